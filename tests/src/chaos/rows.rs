//! The rows, read by a client of its own: not through anything of the product.

use std::{collections::HashMap, fs};

use postgres::{Config, NoTls};

use crate::World;

/// How often a path with a complete answer is stored.
pub(super) fn read(world: &World, proxy: &str) -> HashMap<String, u32> {
    try_read(world, proxy).unwrap_or_else(|error| panic!("the rows cannot be read: {error}"))
}

fn try_read(world: &World, proxy: &str) -> Result<HashMap<String, u32>, Box<dyn std::error::Error>> {
    let password = fs::read_to_string(world.data_dir().join("secrets/database.password"))?;
    let mut client = Config::new()
        .host_path(world.data_dir().join("run/pg"))
        .user("proxyplane")
        .dbname("proxyplane")
        .password(password.trim())
        .connect(NoTls)?;
    let proxy: uuid::Uuid = proxy.parse()?;
    let query = "SELECT path, count(*) FROM exchanges WHERE service_id = $1 AND status = 200 GROUP BY path";
    let rows = client.query(query, &[&proxy])?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, u32::try_from(row.try_get::<_, i64>(1)?)?)))
        .collect()
}
