//! What the broker's process has used, as the kernel counts it.

use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;

/// Counts since the process started; `resident_bytes` is as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Usage {
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub resident_bytes_peak: u64,
    /// Reads and writes, the only calls that the kernel counts for others to see.
    pub read_write_calls: u64,
    /// Handed to storage.
    pub written_bytes: u64,
}

impl Usage {
    /// Asks the kernel about a process.
    ///
    /// # Errors
    /// When there is no such process, or it may not be looked at.
    pub fn of(pid: u32) -> Result<Usage> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
        };
        let (stat, status, io) = (read("stat")?, read("status")?, read("io")?);
        let kilobytes = |name| field(&status, name).unwrap_or(0) * 1024;
        let counted = |name| field(&io, name).unwrap_or(0);
        Ok(Usage {
            cpu_seconds: cpu_seconds(&stat).context("an unknown form of /proc/<pid>/stat")?,
            resident_bytes: kilobytes("VmRSS:"),
            resident_bytes_peak: kilobytes("VmHWM:"),
            read_write_calls: counted("syscr:") + counted("syscw:"),
            written_bytes: counted("write_bytes:"),
        })
    }

    /// What was used since `earlier`. Memory is as it stands.
    pub fn since(self, earlier: Usage) -> Usage {
        Usage {
            cpu_seconds: self.cpu_seconds - earlier.cpu_seconds,
            read_write_calls: self.read_write_calls.saturating_sub(earlier.read_write_calls),
            written_bytes: self.written_bytes.saturating_sub(earlier.written_bytes),
            ..self
        }
    }
}

/// User and system time: the 14th and 15th field, counted behind the name, which may hold spaces.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: Vec<u64> =
        fields.split_whitespace().skip(11).take(2).filter_map(|f| f.parse().ok()).collect();
    let per_second = rustix::param::clock_ticks_per_second();
    (ticks.len() == 2).then(|| ticks.iter().sum::<u64>() as f64 / per_second as f64)
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line[name.len()..].split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_counted() {
        let usage = Usage::of(std::process::id()).expect("this process");
        assert!(usage.resident_bytes > 0 && usage.resident_bytes_peak >= usage.resident_bytes);
        assert!(usage.read_write_calls > 0);
    }

    #[test]
    fn a_name_with_spaces_does_not_shift_the_fields() {
        let stat = "7 (a ) b) S 1 1 1 0 -1 0 0 0 0 0 150 50 0 0 20 0";
        let seconds = 200.0 / rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(cpu_seconds(stat), Some(seconds));
    }
}
