use std::fs;

use super::*;

fn flags(arguments: &[&str]) -> ServeArguments {
    use clap::Parser as _;
    let all = ["proxyplane", "serve"].iter().chain(arguments);
    let Command::Serve(serve) = Arguments::try_parse_from(all).unwrap().command else {
        panic!("it is to serve")
    };
    *serve
}

struct Home(PathBuf);

impl Home {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("proxyplane-config-{}", uuid::Uuid::now_v7()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn environment(&self, more: &[(&str, &str)]) -> Environment {
        let home = self.0.to_str().unwrap();
        let fixed = [
            ("HOME", home),
            ("PROXYPLANE_DATA_DIR", home),
            ("PROXYPLANE_WORKER_BIN", "/bin/sh"),
        ];
        fixed.into_iter().chain(more.iter().copied()).collect()
    }

    fn file(&self, text: &str) {
        fs::write(self.0.join("proxyplane.toml"), text).unwrap();
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn misspelt_variables_are_noticed() {
    let environment = Environment::from_iter([
        ("PROXYPLANE_LISTEN", "127.0.0.1:1"),
        ("PROXYPLANE_LISTENS", "127.0.0.1:1"),
        ("PROXYPLANE_DATA", "/x"),
        ("PROXYPLANE_WORKER_THREADS", "2"),
        ("PROXYPLANE_SERVICE_HOST", "10.0.0.1"),
        ("PROXYPLANE_PORT_7070_TCP", "tcp://10.0.0.1:7070"),
        ("HOME", "/"),
    ]);
    assert_eq!(environment.unknown(), ["PROXYPLANE_DATA", "PROXYPLANE_LISTENS"]);
}

#[test]
fn a_flag_goes_before_the_environment_before_the_file_before_the_default() {
    let home = Home::new();
    let listen = |flag: &[&str], environment: &[(&str, &str)]| {
        Config::load(&flags(flag), &home.environment(environment))
            .unwrap()
            .config
            .listen
            .port()
    };
    assert_eq!(listen(&[], &[]), 7070);
    home.file("listen = \"127.0.0.1:3\"\n");
    assert_eq!(listen(&[], &[]), 3);
    assert_eq!(listen(&[], &[("PROXYPLANE_LISTEN", "127.0.0.1:2")]), 2);
    assert_eq!(
        listen(&["--listen", "127.0.0.1:1"], &[("PROXYPLANE_LISTEN", "127.0.0.1:2")]),
        1
    );
    assert_eq!(listen(&[], &[("PROXYPLANE_LISTEN", "")]), 3);
}

#[test]
fn what_is_printed_names_each_origin_and_masks_the_password() {
    let home = Home::new();
    home.file("log_level = \"debug\"\nallowed_origin = [\"http://a\", \"http://b\"]\n");
    let environment = home.environment(&[("PROXYPLANE_DATABASE_URL", "postgres://u:s3cret@h/d")]);
    let loaded = Config::load(&flags(&["--bootstrap", "--print-config"]), &environment).unwrap();
    let text = loaded.to_text();
    assert!(loaded.print && loaded.config.bootstrap);
    let line = |key: &str| {
        text.lines()
            .find(|line| line.trim_start_matches("# ").starts_with(key))
            .unwrap()
            .to_owned()
    };
    assert!(line("listen").ends_with("# default"), "{text}");
    assert!(
        line("log_level").contains("= \"debug\"") && line("log_level").contains("# file "),
        "{text}"
    );
    assert!(
        line("bootstrap").contains("true") && line("bootstrap").ends_with("# flag"),
        "{text}"
    );
    assert!(
        line("database_url").contains("u:***@h") && line("database_url").ends_with("# environment"),
        "{text}"
    );
    assert!(line("allowed_origin").contains(r#"["http://a", "http://b"]"#), "{text}");
    assert!(toml::from_str::<toml::Table>(&text).is_ok(), "{text}");
    assert!(!text.contains("s3cret"));
}

#[test]
fn a_wrong_value_names_its_setting_as_it_was_given() {
    let home = Home::new();
    let failure = |flag: &[&str], environment: &[(&str, &str)]| {
        Config::load(&flags(flag), &home.environment(environment)).unwrap_err()
    };
    assert_eq!(failure(&["--listen", "nowhere"], &[]).setting, "--listen");
    assert_eq!(
        failure(&[], &[("PROXYPLANE_LOG_LEVEL", "loud")]).setting,
        "PROXYPLANE_LOG_LEVEL"
    );
    assert_eq!(
        failure(&["--shutdown-timeout=3 days"], &[]).setting,
        "--shutdown-timeout"
    );
    assert_eq!(failure(&["--worker-bin", "/nonexistent"], &[]).setting, "--worker-bin");
    assert_eq!(failure(&["--config", "/nonexistent.toml"], &[]).setting, "--config");
    let url = failure(&[], &[("PROXYPLANE_DATABASE_URL", "mysql://u:s3cret@h")]);
    assert!(!url.to_string().contains("s3cret"), "{url}");
    home.file("listen = 7\n");
    assert_eq!(failure(&[], &[]).setting, "listen");
}

#[test]
fn a_file_with_an_unknown_or_nested_key_is_refused() {
    let home = Home::new();
    for (text, setting) in [
        ("lisn = \"x\"", "lisn"),
        ("[listen]\nport = 1", "listen"),
        ("bootstrap = true", "bootstrap"),
    ] {
        home.file(text);
        assert_eq!(
            Config::load(&flags(&[]), &home.environment(&[])).unwrap_err().setting,
            setting
        );
    }
    home.file("database_url = \"postgres://u:s3cret@h/d\n");
    let torn = Config::load(&flags(&[]), &home.environment(&[]))
        .unwrap_err()
        .to_string();
    assert!(torn.contains("line 1") && !torn.contains("s3cret"), "{torn}");
    home.file("data_dir = \"/elsewhere\"");
    let circular = Config::load(
        &flags(&[]),
        &Environment::from_iter([("PROXYPLANE_DATA_DIR", home.0.to_str().unwrap())]),
    );
    assert_eq!(circular.unwrap_err().setting, "data_dir");
}
