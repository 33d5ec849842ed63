//! One file per noun; larger nouns have one per verb.

pub(crate) mod ca;
pub(crate) mod completions;
pub(crate) mod event;
pub(crate) mod proxy;
pub(crate) mod system;
pub(crate) mod traffic;
pub(crate) mod websocket;
pub(crate) mod workspace;

use crate::{
    args::{Cli, Global, Noun},
    client::Client,
    error::Error,
    output::Output,
    settings::Settings,
};

/// What every command works with.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) output: Output,
    /// The value of `--workspace`.
    pub(crate) workspace: Option<String>,
}

impl Context {
    async fn connect(global: Global) -> Result<Self, Error> {
        let client = Client::connect(&Settings::load(&global)?).await?;
        Ok(Self {
            client,
            output: Output::new(global.output),
            workspace: global.workspace,
        })
    }

    fn workspace(&self) -> Option<&str> {
        self.workspace.as_deref()
    }
}

/// Does what the command line says.
pub(crate) async fn run(cli: Cli) -> Result<(), Error> {
    if let Noun::Completions(arguments) = &cli.noun {
        return completions::run(arguments);
    }
    let context = Context::connect(cli.global).await?;
    match cli.noun {
        Noun::Workspace(verb) => workspace::run(&context, verb).await,
        Noun::Proxy(verb) => proxy::run(&context, verb).await,
        Noun::Traffic(verb) => traffic::run(&context, verb).await,
        Noun::Websocket(verb) => websocket::run(&context, verb).await,
        Noun::Event(verb) => event::run(&context, verb).await,
        Noun::Ca(verb) => ca::run(&context, verb).await,
        Noun::System(verb) => system::run(&context, verb).await,
        Noun::Completions(_) => Ok(()),
    }
}

/// An answer without what it must hold is a fault of the server.
fn present<T>(field: Option<T>) -> Result<T, Error> {
    field.ok_or_else(|| tonic::Status::internal("the server's answer is incomplete").into())
}
