//! Health of each part, for `/health`, `/ready`, `grpc.health.v1` and `proxyctl system status`.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::store::{self, Db};

/// Health of everything, at one moment.
#[derive(Clone, Debug)]
pub struct Report {
    /// Every part is ready.
    pub ready: bool,
    /// The parts.
    pub parts: Vec<Part>,
}

/// One part.
#[derive(Clone, Debug)]
pub struct Part {
    /// `database`, `ingest`, `certificates`, `proxy <workspace>/<name>`.
    pub name: String,
    /// Does it work?
    pub ready: bool,
    /// What it does, or why it does not work.
    pub detail: String,
}

/// Looks at the parts when asked.
#[derive(Clone)]
pub struct Health(Arc<Parts>);

struct Parts {
    db: Db,
    started: AtomicBool,
}

impl Health {
    /// Of these parts; not ready before [`Self::started`].
    pub fn new(db: Db) -> Self {
        Self(Arc::new(Parts { db, started: AtomicBool::new(false) }))
    }

    /// The enabled services were started.
    pub fn started(&self) {
        self.0.started.store(true, Ordering::Release);
    }

    /// How each part does now.
    pub async fn report(&self) -> Report {
        let database = match store::ping(&self.0.db).await {
            Ok(()) => part("database", true, "answers"),
            Err(error) => part("database", false, &error.to_string()),
        };
        let parts = vec![database];
        Report { ready: self.0.started.load(Ordering::Acquire) && parts.iter().all(|part| part.ready), parts }
    }
}

fn part(name: &str, ready: bool, detail: &str) -> Part {
    Part { name: name.to_owned(), ready, detail: detail.to_owned() }
}
