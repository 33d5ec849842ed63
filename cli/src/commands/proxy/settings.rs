//! The settings that `create` and `update` share.

use std::{fs, io, io::Read as _, path::PathBuf};

use clap::{Args, ValueEnum, ValueHint, builder::NonEmptyStringValueParser};
use proxyplane_proto::v1::{self, CaptureSpec};

use crate::{error::Error, when};

#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct Settings {
    /// Address to listen on, or 'localhost' for every loopback address (127.0.0.1 unless given).
    #[arg(long, value_name = "HOST", value_parser = NonEmptyStringValueParser::new())]
    pub(super) host: Option<String>,
    /// Port to listen on; create picks a free one unless given, or for 0. A running proxy moves there without a restart.
    #[arg(long, value_name = "PORT", allow_negative_numbers = true)]
    pub(super) port: Option<u16>,
    /// What happens when the port is still taken 30 s after the server came up: disable the proxy, or keep trying
    /// (disable unless given).
    #[arg(long, value_name = "WHAT")]
    on_port_conflict: Option<OnPortConflict>,
    /// Write a log line per exchange (the default).
    #[arg(long, overrides_with = "no_verbose")]
    verbose: bool,
    /// Write no log line per exchange.
    #[arg(long, overrides_with = "verbose")]
    no_verbose: bool,
    /// Log what is out of scope as well (the default).
    #[arg(long, overrides_with = "no_log_out_of_scope")]
    log_out_of_scope: bool,
    /// Do not log what is out of scope.
    #[arg(long, overrides_with = "log_out_of_scope")]
    no_log_out_of_scope: bool,
    /// Do not verify origins' certificates.
    #[arg(long, overrides_with = "no_insecure_upstream")]
    insecure_upstream: bool,
    /// Verify origins' certificates (the default).
    #[arg(long, overrides_with = "insecure_upstream")]
    no_insecure_upstream: bool,
    /// File of PEM certificates to trust for origins as well; '-' is standard input.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "no_extra_ca")]
    extra_ca: Option<PathBuf>,
    /// Trust no extra certificates.
    #[arg(long)]
    no_extra_ca: bool,
    /// Host whose TLS is tunnelled untouched, such as example.com or *.example.com; may be repeated.
    #[arg(long, value_name = "HOST", conflicts_with = "no_passthrough")]
    passthrough: Vec<String>,
    /// Intercept every host.
    #[arg(long)]
    no_passthrough: bool,
    /// Bytes kept of each body, such as 64KiB, 10M or 1.5GiB; 0 keeps none (10 MiB unless given).
    #[arg(long, value_name = "BYTES", value_parser = when::parse_bytes)]
    capture_limit: Option<u64>,
    /// Bytes of records that may wait on disk, such as 512MiB (1 GiB unless given).
    #[arg(long, value_name = "BYTES", value_parser = when::parse_bytes)]
    spool_limit: Option<u64>,
    /// What happens when that much waits: drop the oldest records, or let new exchanges wait (drop-oldest unless given).
    #[arg(long, value_name = "WHAT")]
    spool_full: Option<SpoolFull>,
    /// Hold each answer's end until its record is on disk.
    #[arg(long, overrides_with = "no_durable_before_end")]
    durable_before_end: bool,
    /// Do not wait for the disk (the default).
    #[arg(long, overrides_with = "durable_before_end")]
    no_durable_before_end: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SpoolFull {
    DropOldest,
    Block,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnPortConflict {
    Disable,
    Retry,
}

impl Settings {
    pub(super) fn on_port_conflict(&self) -> Option<v1::OnPortConflict> {
        self.on_port_conflict.map(|given| match given {
            OnPortConflict::Disable => v1::OnPortConflict::Disable,
            OnPortConflict::Retry => v1::OnPortConflict::Retry,
        })
    }

    /// `--verbose`, `--no-verbose` or neither.
    pub(super) fn verbose(&self) -> Option<bool> {
        switch(self.verbose, self.no_verbose)
    }

    pub(super) fn log_out_of_scope(&self) -> Option<bool> {
        switch(self.log_out_of_scope, self.no_log_out_of_scope)
    }

    /// The capture settings that were given, and their paths in an update mask.
    pub(super) fn capture(&self) -> Result<(CaptureSpec, Vec<&'static str>), Error> {
        let mut spec = CaptureSpec::default();
        let mut paths = Vec::new();
        if let Some(insecure) = switch(self.insecure_upstream, self.no_insecure_upstream) {
            spec.insecure_upstream = insecure;
            paths.push("capture.insecure_upstream");
        }
        if let Some(file) = &self.extra_ca {
            spec.extra_ca_pem = read_text(file)?;
            // Empty it would mean the opposite: what was trusted no longer is.
            if spec.extra_ca_pem.trim().is_empty() {
                let name = file.display();
                return Err(Error::Usage(format!(
                    "--extra-ca: '{name}' holds no certificate; --no-extra-ca takes away what was trusted"
                )));
            }
        }
        if self.extra_ca.is_some() || self.no_extra_ca {
            paths.push("capture.extra_ca_pem");
        }
        if !self.passthrough.is_empty() || self.no_passthrough {
            spec.passthrough_hosts.clone_from(&self.passthrough);
            paths.push("capture.passthrough_hosts");
        }
        if self.capture_limit.is_some() {
            spec.capture_limit = self.capture_limit;
            paths.push("capture.capture_limit");
        }
        if self.spool_limit.is_some() {
            spec.spool_limit_bytes = self.spool_limit;
            paths.push("capture.spool_limit_bytes");
        }
        if let Some(full) = self.spool_full {
            spec.set_spool_full(match full {
                SpoolFull::DropOldest => v1::SpoolFull::DropOldest,
                SpoolFull::Block => v1::SpoolFull::Block,
            });
            paths.push("capture.spool_full");
        }
        if let Some(durable) = switch(self.durable_before_end, self.no_durable_before_end) {
            spec.durable_before_end = durable;
            paths.push("capture.durable_before_end");
        }
        Ok((spec, paths))
    }
}

fn switch(on: bool, off: bool) -> Option<bool> {
    match (on, off) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    }
}

fn read_text(file: &PathBuf) -> Result<String, Error> {
    let mut text = String::new();
    let read = if file.as_os_str() == "-" {
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(file)
    };
    read.map_err(|source| Error::File {
        context: format!("--extra-ca {}", file.display()),
        source,
    })
}
