//! `proxyctl workspace …`

use clap::Subcommand;
use clap_complete::engine::ArgValueCompleter;
use prost_types::FieldMask;
use proxyplane_proto::v1::{
    CreateWorkspaceRequest, DeleteWorkspaceRequest, UpdateWorkspaceRequest, Workspace as Message,
};
use serde_json::json;

use super::{Context, present};
use crate::{completion, error::Error, names, output, view::Workspace};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create a workspace.
    Create {
        /// Its code: 1 to 63 of a-z, 0-9, '-' and '_'.
        code: String,
        /// Title for people.
        #[arg(long, default_value = "")]
        title: String,
        /// Description.
        #[arg(long, default_value = "")]
        description: String,
    },
    /// List all workspaces.
    #[command(visible_alias = "ls")]
    List,
    /// Show one.
    Get {
        /// Code or id.
        #[arg(value_name = "WORKSPACE", add = ArgValueCompleter::new(completion::workspaces))]
        name: String,
    },
    /// Change one.
    #[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
    Update {
        /// Code or id.
        #[arg(value_name = "WORKSPACE", add = ArgValueCompleter::new(completion::workspaces))]
        name: String,
        /// New code.
        #[arg(long, group = "change")]
        code: Option<String>,
        /// New title.
        #[arg(long, group = "change")]
        title: Option<String>,
        /// New description.
        #[arg(long, group = "change")]
        description: Option<String>,
    },
    /// Delete one. Its traffic stays.
    #[command(visible_alias = "rm")]
    Delete {
        /// Code or id.
        #[arg(value_name = "WORKSPACE", add = ArgValueCompleter::new(completion::workspaces))]
        name: String,
        /// Stop and remove its proxies with it.
        #[arg(long)]
        force: bool,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Error> {
    match verb {
        Verb::Create {
            code,
            title,
            description,
        } => create(context, code, title, description).await,
        Verb::List => list(context).await,
        Verb::Get { name } => context
            .output
            .object(&Workspace::from(names::workspace(&context.client, &name).await?)),
        Verb::Update {
            name,
            code,
            title,
            description,
        } => update(context, &name, code, title, description).await,
        Verb::Delete { name, force, yes } => delete(context, &name, force, yes).await,
    }
}

async fn create(context: &Context, code: String, title: String, description: String) -> Result<(), Error> {
    let request = CreateWorkspaceRequest {
        code,
        title,
        description,
    };
    let answer = context
        .client
        .workspaces()
        .create_workspace(request)
        .await?
        .into_inner();
    let workspace = Workspace::from(present(answer.workspace)?);
    output::talk(&format!(
        "workspace '{0}' created; a proxy in it: proxyctl proxy create NAME --workspace {0} --start",
        workspace.code
    ));
    context.output.changed(&workspace)
}

async fn list(context: &Context) -> Result<(), Error> {
    let mut list = context.output.list();
    for workspace in names::workspaces(&context.client).await? {
        list.push(Workspace::from(workspace))?;
    }
    list.finish("no workspaces yet; make one: proxyctl workspace create CODE")
}

async fn update(
    context: &Context,
    name: &str,
    code: Option<String>,
    title: Option<String>,
    description: Option<String>,
) -> Result<(), Error> {
    let current = names::workspace(&context.client, name).await?;
    let changed = [
        ("code", code.is_some()),
        ("title", title.is_some()),
        ("description", description.is_some()),
    ];
    let request = UpdateWorkspaceRequest {
        workspace: Some(Message {
            id: current.id,
            code: code.unwrap_or_default(),
            title: title.unwrap_or_default(),
            description: description.unwrap_or_default(),
            ..Default::default()
        }),
        update_mask: Some(FieldMask {
            paths: changed
                .iter()
                .filter(|(_, set)| *set)
                .map(|(path, _)| (*path).to_owned())
                .collect(),
        }),
        ..Default::default()
    };
    let answer = context
        .client
        .workspaces()
        .update_workspace(request)
        .await?
        .into_inner();
    let workspace = Workspace::from(present(answer.workspace)?);
    output::talk(&format!("workspace '{}' updated", workspace.code));
    context.output.changed(&workspace)
}

async fn delete(context: &Context, name: &str, force: bool, yes: bool) -> Result<(), Error> {
    let workspace = names::workspace(&context.client, name).await?;
    if force && !yes && workspace.proxy_count > 0 {
        let question = format!(
            "Delete workspace '{}' and its {} proxies?",
            workspace.code, workspace.proxy_count
        );
        if !output::confirm(&question)? {
            return Err(Error::Usage("nothing was deleted".into()));
        }
    }
    let request = DeleteWorkspaceRequest {
        id: workspace.id.clone(),
        force,
        ..Default::default()
    };
    context.client.workspaces().delete_workspace(request).await?;
    output::talk(&format!("workspace '{}' deleted", workspace.code));
    context
        .output
        .changed(&json!({ "id": workspace.id, "code": workspace.code, "deleted": true }))
}
