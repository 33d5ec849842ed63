//! Closed sets: how bad, what, and about what.

/// How bad an event is. Numbers are those of the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// As wished.
    #[default]
    Info = 1,
    /// Something failed and is being made up for.
    Warning = 2,
    /// Something is lost, or waits for a person.
    Error = 3,
}

impl Severity {
    /// As stored and sent.
    pub fn number(self) -> i16 {
        self as i16
    }

    /// From its number.
    pub fn of(number: i16) -> Option<Self> {
        [Self::Info, Self::Warning, Self::Error]
            .into_iter()
            .find(|severity| severity.number() == number)
    }
}

/// What an event is about. Numbers are those of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SubjectType {
    /// The installation.
    System = 1,
    /// A ProxyService.
    Proxy = 2,
}

impl SubjectType {
    /// As stored and sent.
    pub fn number(self) -> i16 {
        self as i16
    }

    /// From its number.
    pub fn of(number: i16) -> Option<Self> {
        [Self::System, Self::Proxy]
            .into_iter()
            .find(|subject_type| subject_type.number() == number)
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// What happened. Codes are stable: programs compare them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Kind {
            $($(#[$doc])* $name,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its code.
            pub fn code(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)*
                }
            }
        }
    };
}

kinds! {
    /// A worker serves, after a start.
    WorkerStarted = "worker_started",
    /// A worker ended as it was asked to.
    WorkerStopped = "worker_stopped",
    /// A worker died unasked.
    WorkerCrashed = "worker_crashed",
    /// A worker serves in the place of one that died.
    WorkerRespawned = "worker_respawned",
    /// A worker that a former control plane started was taken over.
    WorkerAdopted = "worker_adopted",
    /// A worker serves in the place of one that goes on only with what it has open.
    WorkerUpgraded = "worker_upgraded",
    /// A worker was to be replaced and was not: it serves on.
    UpgradeFailed = "upgrade_failed",
    /// Workers kept dying early; clients get 503 until somebody starts the proxy again.
    BreakerOpened = "breaker_opened",
    /// At boot, the port of a proxy is taken.
    PortConflict = "port_conflict",
    /// A configuration was refused, by the worker or in its place.
    ConfigRejected = "config_rejected",
    /// A configuration was not changed, because the worker does not answer.
    WorkerUnresponsive = "worker_unresponsive",
    /// A worker's spool is more than 80 % full.
    SpoolAbove80 = "spool_above_80",
    /// Records were dropped because a spool was full.
    Gap = "gap",
    /// Nothing is committed at present.
    IngestStalled = "ingest_stalled",
    /// Records are committed again.
    IngestRecovered = "ingest_recovered",
    /// A start waited for the database.
    DatabaseAwaited = "database_awaited",
    /// The database refused a record; its bytes are kept.
    RowRejected = "row_rejected",
    /// Events themselves were dropped.
    EventsDropped = "events_dropped",
    /// Logged at warning or error by a worker, or by a part that raises no kind of its own for it.
    Logged = "logged",
}

impl Kind {
    /// The kind of that code.
    pub fn by_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.code() == code)
    }
}
