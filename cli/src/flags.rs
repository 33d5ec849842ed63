//! Which flag gives which field of a request.

/// Fields by their path below a resource, and the flag that gives each and nothing else.
const FLAGS: &[(&str, &str)] = &[
    ("host", "--host"),
    ("port", "--port"),
    ("on_port_conflict", "--on-port-conflict"),
    ("verbose", "--verbose"),
    ("log_out_of_scope", "--log-out-of-scope"),
    ("capture.insecure_upstream", "--insecure-upstream"),
    ("capture.extra_ca_pem", "--extra-ca"),
    ("capture.passthrough_hosts", "--passthrough"),
    ("capture.capture_limit", "--capture-limit"),
    ("capture.spool_limit_bytes", "--spool-limit"),
    ("capture.spool_full", "--spool-full"),
    ("capture.durable_before_end", "--durable-before-end"),
    ("drain_timeout", "--drain-timeout"),
    ("title", "--title"),
    ("description", "--description"),
    ("filter.method", "--method"),
    ("filter.host", "--host"),
    ("filter.since", "--since"),
    ("filter.until", "--until"),
    ("filter.severity_min", "--severity"),
    ("filter.kinds", "--kind"),
    ("since", "--since"),
    // Of what is changed; what is created has it without a flag.
    ("proxy_service.name", "--rename"),
    ("workspace.code", "--code"),
];

/// The flag that gave `field`; of a list, with the number of the item. `None` if it was no flag, or several together.
pub(crate) fn of(field: &str) -> Option<String> {
    let (path, index) = match field.strip_suffix(']').and_then(|field| field.rsplit_once('[')) {
        Some((path, index)) => (path, Some(index.parse::<usize>().ok()?)),
        None => (field, None),
    };
    let below = path
        .strip_prefix("proxy_service.")
        .or_else(|| path.strip_prefix("workspace."));
    let known = |path: &str| FLAGS.iter().find(|(known, _)| *known == path);
    let (_, flag) = known(path).or_else(|| known(below?))?;
    Some(match index {
        Some(index) => format!("{flag} number {}", index + 1),
        None => (*flag).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn a_field_is_named_by_the_flag_that_gives_it() {
        let named = |field| of(field).unwrap();
        assert_eq!(named("proxy_service.capture.capture_limit"), "--capture-limit");
        assert_eq!(named("capture.capture_limit"), "--capture-limit");
        assert_eq!(named("capture.passthrough_hosts[1]"), "--passthrough number 2");
        assert_eq!(named("proxy_service.name"), "--rename");
        assert_eq!(named("workspace.title"), "--title");
    }

    #[test]
    fn what_is_given_without_a_flag_or_by_several_keeps_its_path() {
        for field in [
            "name",
            "code",
            "update_mask",
            "proxy_service",
            "filter.status_min",
            "capture",
            "host[x]",
            "]",
            "",
        ] {
            assert_eq!(of(field), None, "{field}");
        }
    }

    #[test]
    fn every_flag_exists() {
        let mut commands = vec![Cli::command()];
        let mut flags = Vec::new();
        while let Some(command) = commands.pop() {
            flags.extend(
                command
                    .get_arguments()
                    .filter_map(|argument| argument.get_long())
                    .map(str::to_owned),
            );
            commands.extend(command.get_subcommands().cloned());
        }
        for (field, flag) in FLAGS {
            assert!(
                flags.iter().any(|known| format!("--{known}") == *flag),
                "{field}: {flag}"
            );
        }
    }
}
