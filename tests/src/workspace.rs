//! A workspace of a test's own.

use std::{ffi::OsStr, thread};

use serde_json::Value;

use crate::{ProxyBuilder, Ran, World};

/// Removed with its proxies when it is dropped.
pub struct Workspace<'w> {
    world: &'w World,
    code: String,
}

impl<'w> Workspace<'w> {
    pub(crate) fn create(world: &'w World) -> Self {
        let code = new_code();
        let _ = world.proxyctl(["workspace", "create", &code]).ok();
        Self { world, code }
    }

    /// Its code.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The world it is in.
    pub fn world(&self) -> &'w World {
        self.world
    }

    /// A proxy to be: say more about it, then `create` or `start` it.
    pub fn proxy(&self, name: &str) -> ProxyBuilder<'_> {
        ProxyBuilder::new(self, name)
    }

    /// Runs `proxyctl --workspace` this one.
    pub fn proxyctl<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ran {
        let mut all = vec!["--workspace".into(), self.code.clone().into()];
        all.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self.world.proxyctl(all)
    }

    /// Its proxies, by name.
    pub fn proxies(&self) -> Vec<Value> {
        let list = self.proxyctl(["-o", "json", "proxy", "list"]).json();
        list.as_array().expect("a list is an array").clone()
    }

    fn show_logs(&self) {
        let list = self.proxyctl(["-o", "jsonl", "proxy", "list"]);
        eprintln!("--- proxies of {} ---\n{}{}", self.code, list.text(), list.stderr);
        for line in list.text().lines() {
            let Ok(proxy) = serde_json::from_str::<Value>(line) else {
                continue;
            };
            let Some(id) = proxy["id"].as_str() else { continue };
            let logs = self.proxyctl(["proxy", "logs", "-n", "50", id]);
            eprintln!("--- log of {} ---\n{}{}", proxy["name"], logs.text(), logs.stderr);
        }
    }
}

impl Drop for Workspace<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.show_logs();
        }
        self.proxyctl(["workspace", "delete", "--force", &self.code]);
    }
}

/// The end of the test's name and of a fresh id, as a workspace's code.
fn new_code() -> String {
    let thread = thread::current();
    let name = thread
        .name()
        .and_then(|name| name.rsplit("::").next())
        .unwrap_or("test")
        .to_ascii_lowercase();
    let id = uuid::Uuid::now_v7().simple().to_string();
    format!("{}-{}", name.get(..40).unwrap_or(&name), &id[20..])
}
