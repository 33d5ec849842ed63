//! A database that answers, and keeps some statements waiting.

use std::process::{Child, Stdio};

use crate::{World, eventually};

/// A table that nobody can write to, or even read, until this is dropped.
pub struct Held<'w> {
    world: &'w World,
    table: String,
    name: String,
    holder: Child,
}

impl<'w> Held<'w> {
    #[track_caller]
    pub(crate) fn of(world: &'w World, table: &str, mode: &str) -> Self {
        let name = format!("held {table}");
        let statement =
            format!("BEGIN; SET application_name = '{name}'; LOCK TABLE {table} IN {mode} MODE; SELECT pg_sleep(600)");
        let mut command = world.psql(&statement);
        let holder = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let held = Self {
            world,
            table: table.to_owned(),
            name,
            holder: holder.expect("psql can be started"),
        };
        eventually("the table is held", || {
            (held.locks(&format!("granted AND application_name = '{}'", held.name)) != "0").then_some(())
        });
        held
    }

    /// Waits until somebody waits for it.
    #[track_caller]
    pub fn wanted(&self) {
        eventually("somebody waits for the table", || {
            (self.locks("NOT granted") != "0").then_some(())
        });
    }

    fn locks(&self, which: &str) -> String {
        let table = &self.table;
        self.world.sql(&format!(
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
             WHERE relation = '{table}'::regclass AND {which}"
        ))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let name = &self.name;
        self.world.sql(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{name}'"
        ));
        let _ = self.holder.wait();
    }
}
