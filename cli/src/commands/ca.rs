//! `proxyctl ca …`

use std::{
    fs,
    io::{self, IsTerminal as _},
    path::PathBuf,
};

use clap::{Subcommand, ValueHint};
use proxyplane_proto::v1::GetCertificateAuthorityRequest;
use serde_json::json;

use super::Context;
use crate::{error::Error, output};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Write the CA certificate (never its key), for clients to trust.
    Export {
        /// DER instead of PEM.
        #[arg(long)]
        der: bool,
        /// File to write; standard output unless given.
        #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: Option<PathBuf>,
    },
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Error> {
    let Verb::Export { der, file } = verb;
    let request = GetCertificateAuthorityRequest {};
    let ca = context
        .client
        .system()
        .get_certificate_authority(request)
        .await?
        .into_inner();
    let bytes = if der {
        ca.der.to_vec()
    } else {
        ca.pem.clone().into_bytes()
    };
    if let Some(path) = file {
        let failed = |source| Error::File {
            context: path.display().to_string(),
            source,
        };
        fs::write(&path, bytes).map_err(failed)?;
        output::talk(&format!("CA certificate written to {}", path.display()));
        output::talk(&format!("SHA-256 {}", ca.fingerprint_sha256));
        let answer = json!({ "file": path.display().to_string(), "fingerprint_sha256": ca.fingerprint_sha256 });
        return context.output.changed(&answer);
    }
    if !context.output.is_table() {
        return context
            .output
            .object(&json!({ "pem": ca.pem, "fingerprint_sha256": ca.fingerprint_sha256 }));
    }
    if der && io::stdout().is_terminal() {
        return Err(Error::Usage(
            "DER is not for a terminal; give a file with -f, or redirect".into(),
        ));
    }
    output::write_bytes(&bytes)
}
