//! The table of settings.

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Name in the file, with underscores; flag and variable follow from it.
    pub key: &'static str,
    /// May the file set it? Not those that say what this one run is to do.
    pub in_file: bool,
}

impl Setting {
    const fn new(key: &'static str) -> Self {
        Self { key, in_file: true }
    }

    const fn of_run(key: &'static str) -> Self {
        Self { key, in_file: false }
    }

    /// `--shutdown-timeout`.
    pub fn flag(&self) -> String {
        format!("--{}", self.key.replace('_', "-"))
    }

    /// `PROXYPLANE_SHUTDOWN_TIMEOUT`.
    pub fn variable(&self) -> String {
        format!("PROXYPLANE_{}", self.key.to_ascii_uppercase())
    }
}

pub(super) const LISTEN: Setting = Setting::new("listen");
pub(super) const DATA_DIR: Setting = Setting::new("data_dir");
pub(super) const DATABASE_URL: Setting = Setting::new("database_url");
pub(super) const WORKER_BIN: Setting = Setting::new("worker_bin");
pub(super) const WORKER_USER: Setting = Setting::new("worker_user");
pub(super) const SHUTDOWN_TIMEOUT: Setting = Setting::new("shutdown_timeout");
pub(super) const LOG_FORMAT: Setting = Setting::new("log_format");
pub(super) const LOG_LEVEL: Setting = Setting::new("log_level");
pub(super) const ALLOWED_ORIGIN: Setting = Setting::new("allowed_origin");
pub(super) const BOOTSTRAP: Setting = Setting::of_run("bootstrap");
pub(super) const PRINT_CONFIG: Setting = Setting::of_run("print_config");
pub(super) const CONFIG: Setting = Setting::of_run("config");

/// Every setting, in the order of `--print-config`.
pub(super) const ALL: [&Setting; 12] = [
    &LISTEN,
    &DATA_DIR,
    &DATABASE_URL,
    &WORKER_BIN,
    &WORKER_USER,
    &SHUTDOWN_TIMEOUT,
    &LOG_FORMAT,
    &LOG_LEVEL,
    &ALLOWED_ORIGIN,
    &BOOTSTRAP,
    &PRINT_CONFIG,
    &CONFIG,
];
