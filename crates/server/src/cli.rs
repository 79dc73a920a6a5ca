//! The command line: what `tidelog` is told, and what it answers to `--help`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use tidelog_bench::BenchArgs;

use crate::look::{RaftCommand, WalCommand};

/// A Kafka-compatible streaming broker: an acknowledged record is on disk.
///
/// Without a command, starts one node: data in ./tidelog-data, clients on port 9092, metrics and
/// health on 127.0.0.1:9644.
#[derive(Debug, Parser)]
#[command(name = "tidelog", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to serve, where no command is given.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Starts a node.
    Serve(ServeArgs),
    /// Prints every setting, as a configuration file with the defaults.
    Settings,
    /// Loads a Kafka-compatible broker and says what it held.
    Bench(Box<BenchArgs>),
    /// Looks into a node's metadata log; the node may be running.
    #[command(subcommand)]
    Raft(RaftCommand),
    /// Looks into a node's log of records.
    #[command(subcommand)]
    Wal(WalCommand),
}

/// How a node is started. A flag wins over the file, the file over the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct ServeArgs {
    /// TOML file of settings, Kafka's names as quoted keys: "num.partitions" = 3
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory that holds everything this node keeps (log.dirs)
    #[arg(long, value_name = "DIRECTORY")]
    pub data_dir: Option<String>,
    /// Where clients connect, such as 127.0.0.1:9092 (listeners)
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// What clients are told to connect to (advertised.listeners)
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Where metrics and health are served; "" serves none (admin.listener)
    #[arg(long, value_name = "HOST:PORT")]
    pub admin: Option<String>,
    /// This node's number in its cluster (node.id)
    #[arg(long, value_name = "NUMBER")]
    pub node_id: Option<String>,
    /// Any other setting; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl ServeArgs {
    /// The flags as settings, in the order in which they apply.
    ///
    /// # Errors
    /// Names an address that is not of the form HOST:PORT, and a `--set` that is not KEY=VALUE.
    pub fn settings(&self) -> Result<Vec<(String, String)>, String> {
        for (flag, address) in [("--listen", &self.listen), ("--advertise", &self.advertise)] {
            let Some(address) = address else { continue };
            if address.contains("://") || !address.contains(':') {
                let expected = "expected HOST:PORT, such as 127.0.0.1:9092";
                return Err(format!("{flag} {address:?}: {expected}"));
            }
        }
        let plaintext = |address: &String| format!("PLAINTEXT://{address}");
        let named = [
            ("log.dirs", self.data_dir.clone()),
            ("listeners", self.listen.as_ref().map(plaintext)),
            ("advertised.listeners", self.advertise.as_ref().map(plaintext)),
            ("admin.listener", self.admin.clone()),
            ("node.id", self.node_id.clone()),
        ];
        let mut settings: Vec<(String, String)> =
            named.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
        for text in &self.set {
            let (key, value) = text
                .split_once('=')
                .ok_or_else(|| format!("--set {text:?}: expected KEY=VALUE"))?;
            settings.push((key.trim().to_owned(), value.trim().to_owned()));
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_become_settings() {
        let line = ["tidelog", "--listen", "127.0.0.1:0", "--set", "num.partitions = 3"];
        let cli = Cli::try_parse_from(line).expect("lawful flags");
        let expected = [("listeners", "PLAINTEXT://127.0.0.1:0"), ("num.partitions", "3")];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(cli.serve.settings(), Ok(expected.to_vec()));
        let cli = Cli::try_parse_from(["tidelog", "--set", "x"]).expect("lawful flags");
        assert_eq!(cli.serve.settings(), Err("--set \"x\": expected KEY=VALUE".to_owned()));
        for address in ["9092", "PLAINTEXT://:9092"] {
            let cli = Cli::try_parse_from(["tidelog", "--listen", address]).expect("lawful flags");
            let refused = cli.serve.settings().expect_err("no address");
            let expected = "expected HOST:PORT, such as 127.0.0.1:9092";
            assert_eq!(refused, format!("--listen {address:?}: {expected}"));
        }
    }
}
