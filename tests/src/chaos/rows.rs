//! The rows, read by a client of its own: not through anything of the product.

use std::collections::{HashMap, HashSet};

use postgres::{Config, NoTls};
use uuid::Uuid;

/// What is stored of a path, which was asked for once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stored {
    /// Rows, whatever they say.
    pub(super) rows: u32,
    /// Rows that say that the whole answer passed.
    pub(super) whole: u32,
}

/// What is stored of every path.
pub(super) fn read(database: &Config, proxy: &str) -> Result<HashMap<String, Stored>, Box<dyn std::error::Error>> {
    let mut client = database.connect(NoTls)?;
    let proxy: Uuid = proxy.parse()?;
    let query = "SELECT path, count(*), count(*) FILTER (WHERE status = 200 AND error IS NULL) \
                 FROM exchanges WHERE service_id = $1 GROUP BY path";
    let rows = client.query(query, &[&proxy])?;
    rows.iter()
        .map(|row| {
            let count =
                |column: usize| Ok::<_, Box<dyn std::error::Error>>(u32::try_from(row.try_get::<_, i64>(column)?)?);
            let (rows, whole) = (count(1)?, count(2)?);
            Ok((row.try_get(0)?, Stored { rows, whole }))
        })
        .collect()
}

/// The epochs of a proxy's workers: of each instance, where its records are to go on. Unlike the count of restarts, which
/// a control plane takes with it when it is killed, that stays.
pub(super) fn epochs(database: &Config, proxy: &str) -> Result<HashSet<Uuid>, Box<dyn std::error::Error>> {
    let mut client = database.connect(NoTls)?;
    let proxy: Uuid = proxy.parse()?;
    let rows = client.query("SELECT epoch FROM ingest_cursors WHERE service_id = $1", &[&proxy])?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}
