//! `proxyplane`: the control plane.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser as _;
use proxyplane::{
    app::{self, Ended},
    config::{Arguments, Command, Config, Environment, LogFormat, ServeArguments},
    events, telemetry, upgrade,
};

/// `EX_USAGE` of sysexits.h: the command line or a setting is wrong.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    match Arguments::try_parse() {
        Ok(Arguments {
            command: Command::Serve(flags),
        }) => serve(&flags),
        Ok(Arguments {
            command: Command::Features,
        }) => print(&upgrade::FEATURES.join("\n")),
        Err(error) => {
            let wrong = error.use_stderr();
            let _ = error.print();
            if wrong {
                ExitCode::from(USAGE)
            } else {
                ExitCode::SUCCESS
            }
        }
    }
}

fn serve(flags: &ServeArguments) -> ExitCode {
    let environment = Environment::of_process();
    let loaded = match Config::load(flags, &environment) {
        Ok(loaded) => loaded,
        Err(error) => {
            complain(&error);
            return ExitCode::from(USAGE);
        }
    };
    if loaded.print {
        return print(&loaded.to_text());
    }
    let format = loaded.config.log_format;
    let (events, writer) = events::channel();
    telemetry::install(format, loaded.config.log_level, events);
    for variable in environment.unknown() {
        tracing::warn!(
            variable,
            "there is no such setting: it is ignored; `proxyplane serve --help` lists them"
        );
    }
    match app::run(loaded.config, &environment, writer) {
        Ok(Ended::Stopped) => ExitCode::SUCCESS,
        Ok(Ended::Left(left)) => {
            tell(format, &left.execute());
            ExitCode::FAILURE
        }
        Err(error) => {
            tell(format, &error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn tell(format: LogFormat, error: &dyn std::fmt::Display) {
    match format {
        LogFormat::Text => complain(error),
        LogFormat::Json => tracing::error!("{error}"),
    }
}

fn complain(error: &dyn std::fmt::Display) {
    let _ = writeln!(io::stderr(), "proxyplane: {error}");
}
