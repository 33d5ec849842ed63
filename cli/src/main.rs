//! `proxyctl`: the command line of Proxyplane.
//!
//! Standard output is data, standard error is talk. Exit codes: 0 ok, 1 failure, 2 usage or invalid argument, 3 server
//! unreachable, 4 not found, 5 conflict, 130 interrupted.

mod args;
mod client;
mod commands;
mod completion;
mod error;
mod escape;
mod flags;
mod follow;
mod names;
mod output;
mod settings;
mod view;
mod when;

use std::{process, thread};

use clap::Parser as _;
use tokio::{
    runtime,
    sync::oneshot::{self, error::RecvError},
};

use crate::error::Error;

/// Exit code after Ctrl-C: 128 and the signal's number, as shells do it.
const INTERRUPTED: i32 = 130;

fn main() {
    completion::answer_the_shell();
    let cli = args::Cli::parse();
    let (done, finished) = oneshot::channel();
    // The work has a thread of its own, so that Ctrl-C ends the program even while a full pipe blocks standard output.
    thread::spawn(move || {
        let result = runtime().and_then(|runtime| runtime.block_on(commands::run(cli)));
        // The main thread waits for this and for nothing longer.
        let _ = done.send(result);
    });
    let code = match runtime() {
        Ok(runtime) => runtime.block_on(async {
            tokio::select! {
                result = finished => exit_code(result),
                _ = tokio::signal::ctrl_c() => INTERRUPTED,
            }
        }),
        Err(error) => exit_code(Ok(Err(error))),
    };
    process::exit(code)
}

fn runtime() -> Result<runtime::Runtime, Error> {
    Ok(runtime::Builder::new_current_thread().enable_all().build()?)
}

fn exit_code(result: Result<Result<(), Error>, RecvError>) -> i32 {
    match result {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => {
            error.report();
            error.exit_code()
        }
        // The thread panicked and has said so.
        Err(RecvError { .. }) => 1,
    }
}
