//! What a capture service does with what passes.

use crate::{HostPattern, Violation, limits};

/// What happens when a service's spool is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpoolFull {
    /// The oldest records are dropped and counted as a gap.
    #[default]
    DropOldest,
    /// New exchanges wait.
    Block,
}

/// Unchecked values, as they come from the API or the link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawCapture {
    /// Do not verify origins' certificates.
    pub insecure_upstream: bool,
    /// PEM certificates, concatenated; empty for none.
    pub extra_ca_pem: String,
    /// Patterns as text.
    pub passthrough_hosts: Vec<String>,
    /// `None` means [`limits::CAPTURE_LIMIT_DEFAULT`].
    pub capture_limit: Option<u64>,
    /// `None` means [`limits::SPOOL_LIMIT_DEFAULT`].
    pub spool_limit: Option<u64>,
    /// What happens when the spool is full.
    pub spool_full: SpoolFull,
    /// Hold each answer's end until its record is on disk.
    pub durable_before_end: bool,
}

/// Checked values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureSpec {
    /// Do not verify origins' certificates.
    pub insecure_upstream: bool,
    /// PEM certificates, concatenated, each with a well-formed PEM frame; empty for none.
    pub extra_ca_pem: String,
    /// Hosts whose TLS is tunnelled untouched.
    pub passthrough_hosts: Vec<HostPattern>,
    /// Captured bytes per body and direction.
    pub capture_limit: u64,
    /// Bytes of records on disk that are not committed.
    pub spool_limit: u64,
    /// What happens when there are that many.
    pub spool_full: SpoolFull,
    /// Hold each answer's end until its record is on disk.
    pub durable_before_end: bool,
}

impl Default for CaptureSpec {
    fn default() -> Self {
        Self {
            insecure_upstream: false,
            extra_ca_pem: String::new(),
            passthrough_hosts: Vec::new(),
            capture_limit: limits::CAPTURE_LIMIT_DEFAULT,
            spool_limit: limits::SPOOL_LIMIT_DEFAULT,
            spool_full: SpoolFull::default(),
            durable_before_end: false,
        }
    }
}

impl CaptureSpec {
    /// Checks everything and reports every violation, with paths below `capture`.
    ///
    /// Whether the certificates can be used as roots is for the TLS library of the process that uses them; what is
    /// checked here is size and PEM framing.
    pub fn parse(raw: &RawCapture) -> Result<Self, Vec<Violation>> {
        let mut violations = Vec::new();
        let pem = raw.extra_ca_pem.trim();
        if pem.len() > limits::EXTRA_CA_MAX {
            violations.push(Violation::new("capture.extra_ca_pem", "must have at most 1 MiB"));
        } else if pem.contains("PRIVATE KEY") {
            violations.push(Violation::new(
                "capture.extra_ca_pem",
                "contains a private key; give certificates only",
            ));
        } else if !pem.is_empty() && !has_certificate(pem) {
            violations.push(Violation::new(
                "capture.extra_ca_pem",
                "must be one or more PEM certificates",
            ));
        }
        if raw.passthrough_hosts.len() > limits::PASSTHROUGH_HOSTS_MAX {
            violations.push(Violation::new(
                "capture.passthrough_hosts",
                "must have at most 1,000 entries",
            ));
        }
        let mut hosts = Vec::new();
        for (index, text) in raw.passthrough_hosts.iter().enumerate() {
            match HostPattern::parse(&format!("capture.passthrough_hosts[{index}]"), text) {
                Ok(host) if hosts.contains(&host) => {}
                Ok(host) => hosts.push(host),
                Err(violation) => violations.push(violation),
            }
        }
        let capture_limit = raw.capture_limit.unwrap_or(limits::CAPTURE_LIMIT_DEFAULT);
        if capture_limit > limits::CAPTURE_LIMIT_MAX {
            violations.push(Violation::new(
                "capture.capture_limit",
                "must be at most 4294967296 (4 GiB)",
            ));
        }
        let spool_limit = raw.spool_limit.unwrap_or(limits::SPOOL_LIMIT_DEFAULT);
        if !(limits::SPOOL_LIMIT_MIN..=limits::SPOOL_LIMIT_MAX).contains(&spool_limit) {
            violations.push(Violation::new(
                "capture.spool_limit_bytes",
                "must be between 1048576 (1 MiB) and 1099511627776 (1 TiB)",
            ));
        }
        if violations.is_empty() {
            let insecure_upstream = raw.insecure_upstream;
            Ok(Self {
                insecure_upstream,
                extra_ca_pem: pem.to_owned(),
                passthrough_hosts: hosts,
                capture_limit,
                spool_limit,
                spool_full: raw.spool_full,
                durable_before_end: raw.durable_before_end,
            })
        } else {
            Err(violations)
        }
    }

    /// Is TLS to `host` to be tunnelled untouched?
    pub fn passes_through(&self, host: &str) -> bool {
        self.passthrough_hosts.iter().any(|pattern| pattern.matches(host))
    }
}

fn has_certificate(pem: &str) -> bool {
    let begins = pem.matches("-----BEGIN CERTIFICATE-----").count();
    begins > 0 && begins == pem.matches("-----END CERTIFICATE-----").count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_violation_is_reported_with_its_path() {
        let raw = RawCapture {
            extra_ca_pem: "garbage".into(),
            passthrough_hosts: vec!["ok.example".into(), "not ok".into()],
            capture_limit: Some(u64::MAX),
            spool_limit: Some(0),
            ..RawCapture::default()
        };
        let fields: Vec<_> = CaptureSpec::parse(&raw)
            .unwrap_err()
            .into_iter()
            .map(|v| v.field)
            .collect();
        assert_eq!(
            fields,
            [
                "capture.extra_ca_pem",
                "capture.passthrough_hosts[1]",
                "capture.capture_limit",
                "capture.spool_limit_bytes"
            ]
        );
    }

    #[test]
    fn nothing_given_is_the_default() {
        assert_eq!(
            CaptureSpec::parse(&RawCapture::default()).unwrap(),
            CaptureSpec::default()
        );
    }

    #[test]
    fn a_private_key_is_not_taken() {
        let raw = RawCapture {
            extra_ca_pem: "-----BEGIN PRIVATE KEY-----".into(),
            ..RawCapture::default()
        };
        assert!(
            CaptureSpec::parse(&raw).unwrap_err()[0]
                .description
                .contains("private key")
        );
    }
}
