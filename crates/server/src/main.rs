//! `tidelog`: reads the command line and the settings, then runs what was asked for.

mod admin_http;
mod banner;
mod cli;
mod config_file;
mod identity;
mod logging;
mod wiring;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser as _;
use tidelog_broker::NodeSettings;

use crate::cli::{Cli, Command, ServeArgs};

/// Exit code of a command line or a setting that cannot be used.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let Cli { command, serve } = Cli::parse();
    match command {
        None => run(&serve),
        Some(Command::Serve(serve)) => run(&serve),
        Some(Command::Settings) => print_settings(),
        Some(Command::Bench(bench)) => {
            tidelog_bench::run(*bench).unwrap_or_else(|error| complain(&format!("{error:#}"), 1))
        }
    }
}

fn run(args: &ServeArgs) -> ExitCode {
    let settings = args.settings().map_err(config_file::SettingsError::Flag);
    let settings = settings.and_then(|flags| config_file::load(args.config.as_deref(), &flags));
    match settings {
        Err(error) => complain(&error.to_string(), USAGE),
        Ok(settings) => {
            logging::start();
            match wiring::run(&settings) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => complain(&format!("{error:#}"), 1),
            }
        }
    }
}

fn complain(message: &str, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "tidelog: {message}");
    ExitCode::from(code)
}

fn print_settings() -> ExitCode {
    let mut out = io::stdout().lock();
    for property in NodeSettings::properties() {
        let (key, default) = (property.key, property.default);
        let written =
            writeln!(out, "{key} = {default:?}\n    {} ({})", property.doc, property.expected());
        if written.is_err() {
            break; // the reader has seen enough
        }
    }
    ExitCode::SUCCESS
}
