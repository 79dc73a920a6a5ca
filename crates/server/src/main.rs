//! `tidelog`: reads the command line and the settings, then runs what was asked for.

mod admin_http;
mod banner;
mod cli;
mod config_file;
mod identity;
mod kafka_keys;
mod log_throttle;
mod logging;
mod look;
mod settings_text;
mod wiring;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser as _;

use crate::{
    cli::{Cli, Command, ServeArgs},
    logging::Format,
};

/// Exit code of a command line or a setting that cannot be used.
const USAGE: u8 = 2;
/// Exit code of a verification that found damage.
const DAMAGED: u8 = 1;

fn main() -> ExitCode {
    let Cli { command, serve } = Cli::parse();
    match command {
        None => run(&serve),
        Some(Command::Serve(serve)) => run(&serve),
        Some(Command::Settings) => print_settings(),
        Some(Command::Wal(command)) => match look::wal(&command) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::from(DAMAGED),
            Err(error) => complain(&format!("{error:#}"), 1),
        },
        Some(Command::Raft(command)) => match look::raft(&command) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(&format!("{error:#}"), 1),
        },
        Some(Command::Bench(bench)) => {
            tidelog_bench::run(*bench).unwrap_or_else(|error| complain(&format!("{error:#}"), 1))
        }
    }
}

fn run(args: &ServeArgs) -> ExitCode {
    let flags = match args.settings() {
        Ok(flags) => flags,
        Err(error) => return complain(&error, USAGE),
    };
    let file = args.config.as_deref();
    let settings = match config_file::load(file, &flags) {
        Ok(settings) => settings,
        Err(error) => {
            let asked = config_file::value(file, &flags, "logging.format");
            return fail(Format::of(asked.as_deref()), &error.to_string(), USAGE);
        }
    };
    let format = Format::of(Some(&settings.broker.logging_format));
    let level = match logging::start(format, &settings.broker.logging_level) {
        Ok(level) => level,
        Err(error) => return fail(format, &error, USAGE),
    };
    match wiring::run(&settings, level) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(format, &format!("{error:#}"), 1),
    }
}

/// A node's failure, for whoever or whatever reads its log.
fn fail(format: Format, message: &str, code: u8) -> ExitCode {
    match format {
        Format::Plain => complain(message, code),
        Format::Json => {
            logging::tell_in_json(message);
            ExitCode::from(code)
        }
    }
}

fn complain(message: &str, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "tidelog: {message}");
    ExitCode::from(code)
}

fn print_settings() -> ExitCode {
    // An error means that the reader has seen enough.
    let _ = io::stdout().lock().write_all(settings_text::text().as_bytes());
    ExitCode::SUCCESS
}
