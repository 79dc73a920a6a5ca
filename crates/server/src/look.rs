//! `tidelog wal inspect|verify`, `tidelog raft status|log`: what a data directory holds, for
//! whoever must look inside.
//!
//! Reads only. A node may be running over the directory, but while it is verified.

use std::{
    io::{self, Write},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{ContentArrangement, Table, presets::ASCII_MARKDOWN};
use serde_json::{Value, json};
use tidelog_metadata::record::decode_records;
use tidelog_raft::{
    Inspection,
    eraftpb::{Entry, EntryType},
};
use tidelog_types::Offset;
use tidelog_wal::{
    env::{FileSystem, std::StdFileSystem},
    inspect::{self as wal, Damage, inspect, verify},
};

/// The metadata group: there is one.
const GROUP: u32 = 0;
/// Columns of a table whose cells are text of any length.
const COLUMNS: u16 = 100;

/// What to look at in the metadata log.
#[derive(Debug, Subcommand)]
pub enum RaftCommand {
    /// Says where a node's metadata log stands: term, vote, commit, indexes, files.
    Status(Where),
    /// Prints entries of a node's metadata log, decoded.
    Log {
        /// Which directory, and how to print.
        #[command(flatten)]
        place: Where,
        /// The first index; the oldest on disk unless given
        #[arg(long, value_name = "INDEX", default_value_t = 0)]
        from: u64,
        /// How many entries at most
        #[arg(long, value_name = "NUMBER", default_value_t = 100)]
        count: u64,
    },
}

/// What to look at in the log of records.
#[derive(Debug, Subcommand)]
pub enum WalCommand {
    /// Says what the checkpoint knows of each partition, and which WAL files there are.
    Inspect(Where),
    /// Reads every frame and every batch of a stopped node and compares their checksums; exits
    /// with 1 where anything is damaged.
    Verify(Where),
}

/// A data directory, and how to print what it holds.
#[derive(Debug, Clone, Args)]
pub struct Where {
    /// Directory that holds everything the node keeps (log.dirs)
    #[arg(long, value_name = "DIRECTORY", default_value = "./tidelog-data")]
    pub data_dir: PathBuf,
    /// How to print it
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Runs `tidelog wal`; the answer is whether all is well.
///
/// # Errors
/// When there is no such log, or its checkpoint is damaged.
pub fn wal(command: &WalCommand) -> anyhow::Result<bool> {
    let fs: Arc<dyn FileSystem> = Arc::new(StdFileSystem);
    let (WalCommand::Inspect(place) | WalCommand::Verify(place)) = command;
    let dir = &place.data_dir;
    if !dir.join("wal").is_dir() {
        bail!("{}: no log here; name a node's data directory with --data-dir", dir.display());
    }
    let mut out = io::stdout().lock();
    match command {
        WalCommand::Inspect(_) => {
            let found =
                inspect(&fs, dir).with_context(|| format!("cannot read {}", dir.display()))?;
            done(match place.output {
                Output::Table => inspection_table(&mut out, &found),
                Output::Json => print_json(&mut out, &inspection_json(&found)),
            })?;
            Ok(true)
        }
        WalCommand::Verify(_) => {
            let found =
                verify(&fs, dir).with_context(|| format!("cannot read {}", dir.display()))?;
            done(match place.output {
                Output::Table => verified_text(&mut out, &found),
                Output::Json => print_json(&mut out, &verified_json(&found)),
            })?;
            Ok(found.damage.is_empty())
        }
    }
}

/// Runs `tidelog raft`.
///
/// # Errors
/// When there is no such log, or it is damaged.
pub fn raft(command: &RaftCommand) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    done(match command {
        RaftCommand::Status(place) => {
            let found = read(&place.data_dir)?;
            match place.output {
                Output::Table => status_table(&mut out, &found),
                Output::Json => print_json(&mut out, &status_json(&found)),
            }
        }
        RaftCommand::Log { place, from, count } => {
            let entries = entries(&read(&place.data_dir)?, *from, *count);
            match place.output {
                Output::Table => entries_table(&mut out, &entries),
                Output::Json => print_json(&mut out, &entries_json(&entries)),
            }
        }
    })
}

fn done(printed: io::Result<()>) -> anyhow::Result<()> {
    match printed {
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => Ok(printed?),
    }
}

fn read(data_dir: &Path) -> anyhow::Result<Inspection> {
    let dir = data_dir.join("raft").join(format!("group-{GROUP}"));
    if !dir.join("log").is_dir() {
        bail!(
            "{}: no metadata log here; name a node's data directory with --data-dir",
            dir.display()
        );
    }
    let read = Inspection::read(&StdFileSystem, &dir, GROUP);
    read.with_context(|| format!("cannot read the metadata log of {}", data_dir.display()))
}

fn status_json(found: &Inspection) -> Value {
    let files: Vec<Value> = found
        .files
        .iter()
        .map(|file| {
            json!({
                "name": file.name,
                "number": file.number,
                "first_sequence": file.first_sequence,
                "bytes": file.bytes,
            })
        })
        .collect();
    json!({
        "group": GROUP,
        "term": found.term,
        "vote": found.vote,
        "commit_index": found.commit,
        "snapshot_index": found.snapshot.map(|(index, _)| index),
        "snapshot_term": found.snapshot.map(|(_, term)| term),
        "voters": found.voters,
        "first_index": found.first_index,
        "last_index": found.last_index,
        "files": files,
    })
}

fn status_table(out: &mut impl Write, found: &Inspection) -> io::Result<()> {
    let snapshot = found.snapshot.map(|(index, term)| format!("{index} (term {term})"));
    let voters: Vec<String> = found.voters.iter().map(u64::to_string).collect();
    let facts = [
        ("group", GROUP.to_string()),
        ("term", found.term.to_string()),
        ("voted for", if found.vote == 0 { "nobody".to_owned() } else { found.vote.to_string() }),
        ("voters", voters.join(", ")),
        ("commit index", found.commit.to_string()),
        ("first index", found.first_index.to_string()),
        ("last index", found.last_index.to_string()),
        ("snapshot index", snapshot.unwrap_or_else(|| "none".to_owned())),
    ];
    for (name, value) in facts {
        writeln!(out, "{name:<15} {value}")?;
    }
    let mut files = table(&["file", "number", "first sequence", "bytes"]);
    for file in &found.files {
        let numbers =
            [file.number, file.first_sequence, file.bytes].map(|number| number.to_string());
        files.add_row([vec![file.name.clone()], numbers.to_vec()].concat());
    }
    writeln!(out, "\n{files}")
}

/// One entry as it is shown.
struct Shown {
    index: u64,
    term: u64,
    bytes: usize,
    records: Vec<String>,
}

fn entries(found: &Inspection, from: u64, count: u64) -> Vec<Shown> {
    let shown = |entry: Entry| {
        let records = match (entry.get_entry_type(), entry.data.is_empty()) {
            (EntryType::EntryNormal, true) => vec!["(a leader began its term)".to_owned()],
            (EntryType::EntryNormal, false) => match decode_records(&entry.data) {
                Ok(records) => records.iter().map(|record| format!("{record:?}")).collect(),
                Err(error) => vec![format!("(not readable: {error})")],
            },
            (kind, _) => vec![format!("({kind:?})")],
        };
        Shown { index: entry.index, term: entry.term, bytes: entry.data.len(), records }
    };
    found.entries(from, count).into_iter().map(shown).collect()
}

fn entries_table(out: &mut impl Write, entries: &[Shown]) -> io::Result<()> {
    let mut table = table(&["index", "term", "bytes", "records"]);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(COLUMNS);
    for entry in entries {
        let numbers = [entry.index.to_string(), entry.term.to_string(), entry.bytes.to_string()];
        table.add_row([numbers.to_vec(), vec![entry.records.join("\n")]].concat());
    }
    writeln!(out, "{table}")
}

fn entries_json(entries: &[Shown]) -> Value {
    let shown = entries.iter().map(|entry| {
        json!({
            "index": entry.index,
            "term": entry.term,
            "bytes": entry.bytes,
            "records": entry.records,
        })
    });
    Value::Array(shown.collect())
}

fn inspection_table(out: &mut impl Write, found: &wal::Inspection) -> io::Result<()> {
    writeln!(out, "{:<20} {}", "durable sequence", found.durable_sequence)?;
    writeln!(out, "{:<20} {}", "oldest needed", found.oldest_needed)?;
    let mut partitions =
        table(&["partition", "log start", "high watermark", "in segments to", "segments", "bytes"]);
    // A node's own view is newer: it is in the WAL's frames and in memory.
    writeln!(out, "\nas of the last checkpoint:\n")?;
    for partition in &found.partitions {
        let numbers =
            [partition.log_start, partition.high_watermark, partition.recovery_point].map(|o| o.0);
        let numbers = numbers.map(|number| number.to_string());
        let sizes = [partition.segments.to_string(), partition.bytes.to_string()];
        partitions.add_row([&[partition.id.to_string()], &numbers[..], &sizes[..]].concat());
    }
    let mut files = table(&["WAL file", "number", "first sequence", "bytes"]);
    for file in &found.files {
        let header = file.header.map(|header| [header.number, header.first_sequence]);
        let header =
            header.map_or(["blank".to_owned(), "-".to_owned()], |h| h.map(|n| n.to_string()));
        files.add_row(
            [std::slice::from_ref(&file.name), &header[..], &[file.bytes.to_string()]].concat(),
        );
    }
    writeln!(out, "{partitions}\n\n{files}")?;
    for partition in &found.partitions {
        for range in &partition.damaged {
            let (from, to) = (range.start.0, range.end.0);
            writeln!(out, "known damage: {} offsets {from} to {to} (exclusive)", partition.id)?;
        }
    }
    Ok(())
}

fn inspection_json(found: &wal::Inspection) -> Value {
    let ranges = |damaged: &[Range<Offset>]| -> Vec<Value> {
        damaged.iter().map(|range| json!([range.start.0, range.end.0])).collect()
    };
    let partition = |partition: &wal::PartitionView| {
        json!({
            "topic_id": partition.id.topic_id.to_string(),
            "partition": partition.id.partition,
            "log_start_offset": partition.log_start.0,
            "checkpoint_high_watermark": partition.high_watermark.0,
            "recovery_point": partition.recovery_point.0,
            "segments": partition.segments,
            "bytes": partition.bytes,
            "damaged": ranges(&partition.damaged),
            "suspect": partition.is_suspect,
        })
    };
    let file = |file: &wal::FileView| {
        json!({
            "name": file.name,
            "bytes": file.bytes,
            "number": file.header.map(|header| header.number),
            "first_sequence": file.header.map(|header| header.first_sequence),
        })
    };
    json!({
        "durable_sequence": found.durable_sequence,
        "oldest_needed": found.oldest_needed,
        "partitions": found.partitions.iter().map(partition).collect::<Vec<_>>(),
        "files": found.files.iter().map(file).collect::<Vec<_>>(),
    })
}

fn verified_text(out: &mut impl Write, found: &wal::Verified) -> io::Result<()> {
    let wal::Verified { frames, batches, segments, bytes, torn_frames, damage } = found;
    writeln!(out, "WAL frames           {frames}")?;
    writeln!(out, "segments             {segments}")?;
    writeln!(out, "batches in segments  {batches} ({bytes} bytes)")?;
    if *torn_frames > 0 {
        writeln!(
            out,
            "never synced         {torn_frames} frames at the end, which a start cuts off"
        )?;
    }
    for Damage { path, position, what } in damage {
        let place = position.map(|position| format!(" at byte {position}")).unwrap_or_default();
        writeln!(out, "DAMAGED {}{place}: {what}", path.display())?;
    }
    let verdict = if damage.is_empty() { "everything that was synced reads" } else { "damaged" };
    writeln!(out, "{verdict}")
}

fn verified_json(found: &wal::Verified) -> Value {
    let damage = |damage: &Damage| {
        json!({
            "path": damage.path.display().to_string(),
            "position": damage.position,
            "what": damage.what,
        })
    };
    json!({
        "frames": found.frames,
        "batches": found.batches,
        "segments": found.segments,
        "bytes": found.bytes,
        "torn_frames": found.torn_frames,
        "damage": found.damage.iter().map(damage).collect::<Vec<_>>(),
    })
}

fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(ASCII_MARKDOWN).set_header(columns.to_vec());
    table
}

fn print_json(out: &mut impl Write, value: &Value) -> io::Result<()> {
    writeln!(out, "{value:#}")
}
