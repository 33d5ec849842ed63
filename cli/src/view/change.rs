//! What differs between two configurations of a proxy.

use proxyplane_proto::v1;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{some, variant};
use crate::{
    error::Error,
    output::{Text, Tone},
    when,
};

/// What can be changed of a proxy, named as a proxy has it.
#[derive(Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "these are a proxy's settings, each by itself"
)]
pub(crate) struct Configuration {
    name: String,
    host: String,
    port: u32,
    on_port_conflict: String,
    verbose: bool,
    log_out_of_scope: bool,
    insecure_upstream: bool,
    extra_ca_pem: Option<String>,
    passthrough_hosts: Vec<String>,
    capture_limit: Option<u64>,
    spool_limit_bytes: Option<u64>,
    spool_full: String,
    durable_before_end: bool,
    /// The certificates of `extra_ca_pem`, a line for each.
    #[serde(skip)]
    certificates: Vec<String>,
}

impl From<v1::ProxyConfiguration> for Configuration {
    fn from(from: v1::ProxyConfiguration) -> Self {
        let on_port_conflict = variant(from.on_port_conflict().as_str_name(), "ON_PORT_CONFLICT_");
        // Whole, so that a new setting is not forgotten here.
        let v1::CaptureSpec {
            insecure_upstream,
            extra_ca_pem,
            passthrough_hosts,
            capture_limit,
            spool_limit_bytes,
            spool_full,
            durable_before_end,
        } = from.capture.unwrap_or_default();
        let certificates = from.extra_ca.iter().map(|ca| {
            let subject = if ca.subject.is_empty() {
                "(no subject)"
            } else {
                &ca.subject
            };
            format!("{subject}, SHA-256 {}", ca.fingerprint_sha256)
        });
        Self {
            name: from.name,
            host: from.host,
            port: from.port,
            on_port_conflict,
            verbose: from.verbose,
            log_out_of_scope: from.log_out_of_scope,
            insecure_upstream,
            extra_ca_pem: some(extra_ca_pem),
            passthrough_hosts,
            capture_limit,
            spool_limit_bytes,
            spool_full: variant(
                v1::SpoolFull::try_from(spool_full).unwrap_or_default().as_str_name(),
                "SPOOL_FULL_",
            ),
            durable_before_end,
            certificates: certificates.collect(),
        }
    }
}

/// A field that differs.
#[derive(Debug, Serialize)]
pub(crate) struct Change {
    field: String,
    old: Value,
    new: Value,
    #[serde(skip)]
    shown: Shown,
}

/// How a difference is shown to people.
#[derive(Debug, PartialEq, Eq)]
enum Shown {
    /// One value for another.
    Values(String, String),
    /// Items that went, items that came.
    Items(Vec<String>, Vec<String>),
}

impl Change {
    /// The fields that differ, in the order in which a proxy has them.
    pub(crate) fn between(old: &Configuration, new: &Configuration) -> Result<Vec<Self>, Error> {
        let mut before = values(old)?;
        let mut changes = Vec::new();
        for (field, now) in values(new)? {
            let was = before.remove(&field).unwrap_or_default();
            if was == now {
                continue;
            }
            let shown = match field.as_str() {
                // Nobody reads PEM.
                "extra_ca_pem" => items(&old.certificates, &new.certificates),
                "passthrough_hosts" => items(&old.passthrough_hosts, &new.passthrough_hosts),
                _ => Shown::Values(text(&field, &was), text(&field, &now)),
            };
            let (old, new) = (was, now);
            changes.push(Self { field, old, new, shown });
        }
        Ok(changes)
    }

    /// The lines for people.
    pub(crate) fn lines(&self) -> Vec<Vec<Text>> {
        let (gone, new) = match &self.shown {
            Shown::Values(old, new) => {
                let change = [
                    Text::new(old, Tone::Bad),
                    Text::plain(" → "),
                    Text::new(new, Tone::Good),
                ];
                return vec![
                    std::iter::once(Text::plain(format!("{}: ", self.field)))
                        .chain(change)
                        .collect(),
                ];
            }
            Shown::Items(gone, new) => (gone, new),
        };
        let mut lines = vec![vec![Text::plain(format!("{}:", self.field))]];
        if gone.is_empty() && new.is_empty() {
            lines.push(vec![Text::new("  the same, written differently", Tone::Faint)]);
        }
        lines.extend(
            gone.iter()
                .map(|item| vec![Text::new(format!("  - {item}"), Tone::Bad)]),
        );
        lines.extend(
            new.iter()
                .map(|item| vec![Text::new(format!("  + {item}"), Tone::Good)]),
        );
        lines
    }
}

fn values(configuration: &Configuration) -> Result<Map<String, Value>, Error> {
    match serde_json::to_value(configuration) {
        Ok(Value::Object(values)) => Ok(values),
        Ok(_) => Ok(Map::new()),
        Err(error) => Err(Error::Io(error.into())),
    }
}

fn items(old: &[String], new: &[String]) -> Shown {
    let without = |items: &[String], others: &[String]| -> Vec<String> {
        items.iter().filter(|item| !others.contains(item)).cloned().collect()
    };
    Shown::Items(without(old, new), without(new, old))
}

fn text(field: &str, value: &Value) -> String {
    match value {
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        Value::Number(number) if matches!(field, "capture_limit" | "spool_limit_bytes") => {
            let bytes = number.as_u64().unwrap_or_default();
            format!("{number} ({})", when::bytes(bytes))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::*;

    fn configuration(change: impl FnOnce(&mut v1::ProxyConfiguration)) -> Configuration {
        let mut configuration = v1::ProxyConfiguration {
            name: "capture".into(),
            port: 8080,
            capture: Some(v1::CaptureSpec {
                passthrough_hosts: vec!["a.example".into(), "b.example".into()],
                capture_limit: Some(10 << 20),
                ..Default::default()
            }),
            ..Default::default()
        };
        change(&mut configuration);
        configuration.into()
    }

    fn told(new: &Configuration) -> Vec<String> {
        let changes = Change::between(&configuration(|_| {}), new).unwrap();
        let lines = changes.iter().flat_map(Change::lines);
        let painted = lines.map(|line| line.iter().map(Text::painted).collect::<String>());
        painted.map(|line| strip_str(&line).to_string()).collect()
    }

    #[test]
    fn what_is_equal_is_not_told() {
        assert_eq!(told(&configuration(|_| {})), [""; 0]);
    }

    #[test]
    fn values_are_told_side_by_side_and_lists_by_item() {
        let new = configuration(|new| {
            new.verbose = true;
            let capture = new.capture.as_mut().unwrap();
            capture.capture_limit = Some(7);
            capture.passthrough_hosts = vec!["b.example".into(), "c.example".into()];
        });
        let expected = [
            "verbose: no → yes",
            "passthrough_hosts:",
            "  - a.example",
            "  + c.example",
            "capture_limit: 10485760 (10.0 MiB) → 7 (7 B)",
        ];
        assert_eq!(told(&new), expected);
    }

    #[test]
    fn another_order_is_a_difference_without_items() {
        let new = configuration(|new| new.capture.as_mut().unwrap().passthrough_hosts.reverse());
        assert_eq!(told(&new), ["passthrough_hosts:", "  the same, written differently"]);
    }

    #[test]
    fn certificates_are_told_by_subject_and_fingerprint_never_as_pem() {
        let new = configuration(|new| {
            new.capture.as_mut().unwrap().extra_ca_pem = "-----BEGIN CERTIFICATE-----".into();
            new.extra_ca = vec![v1::CertificateSummary {
                subject: "CN=Root".into(),
                fingerprint_sha256: "AB:CD".into(),
            }];
        });
        assert_eq!(told(&new), ["extra_ca_pem:", "  + CN=Root, SHA-256 AB:CD"]);
        let change = serde_json::to_value(Change::between(&configuration(|_| {}), &new).unwrap()).unwrap();
        let expected = serde_json::json!([
            { "field": "extra_ca_pem", "old": null, "new": "-----BEGIN CERTIFICATE-----" }
        ]);
        assert_eq!(change, expected);
    }
}
