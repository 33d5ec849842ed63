//! A database that answers and stores nothing.

use std::process::{Child, Stdio};

use crate::{World, eventually};

/// A table that nobody can write to until this is dropped.
pub struct Held<'w> {
    world: &'w World,
    name: String,
    holder: Child,
}

impl<'w> Held<'w> {
    #[track_caller]
    pub(crate) fn of(world: &'w World, table: &str) -> Self {
        let name = format!("held {table}");
        let statement = format!(
            "BEGIN; SET application_name = '{name}'; LOCK TABLE {table} IN EXCLUSIVE MODE; SELECT pg_sleep(600)"
        );
        let mut command = world.psql(&statement);
        let holder = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let held = Self {
            world,
            name,
            holder: holder.expect("psql can be started"),
        };
        eventually("the table is held", || (held.locks() != "0").then_some(()));
        held
    }

    fn locks(&self) -> String {
        let locks = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)";
        let name = &self.name;
        self.world.sql(&format!(
            "{locks} WHERE application_name = '{name}' AND mode = 'ExclusiveLock' AND granted AND relation IS NOT NULL"
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
