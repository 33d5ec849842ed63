//! `proxyctl completions`

use std::env;

use clap::{Args, ValueEnum};
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};

use crate::{completion, error::Error, output};

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints a script that asks this very program, so that names of proxies are completed as well.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Error> {
    let program = env::current_exe().map_or_else(|_| "proxyctl".to_owned(), |path| path.display().to_string());
    let shell: &dyn EnvCompleter = match arguments.shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    let mut script = Vec::new();
    shell.write_registration(completion::VARIABLE, "proxyctl", "proxyctl", &program, &mut script)?;
    output::write_bytes(&script)
}
