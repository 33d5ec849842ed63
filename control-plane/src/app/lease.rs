//! One control plane per database: the lease is taken at the start, renewed while we run and given back at the end.

use std::{
    fs, io,
    sync::{Arc, OnceLock},
};

use tokio::task::AbortHandle;
use tracing::{error, warn};
use uuid::Uuid;

use super::StartError;
use crate::{
    data_dir::DataDir,
    lifecycle::Lifecycle,
    store::{
        self, Db, StoreError,
        installation::{self, Holder, RENEWAL},
    },
};

/// The lease, held.
pub(super) struct Lease {
    db: Db,
    boot: Uuid,
    renewal: AbortHandle,
    /// Who took it from us, if somebody did.
    lost: Arc<OnceLock<String>>,
}

impl Lease {
    /// Takes the lease for this run, `boot`, and keeps it; when it is lost, the process is told to stop.
    pub(super) async fn acquire(db: &Db, boot: Uuid, data: &DataDir, process: &Lifecycle) -> Result<Self, StartError> {
        let instance = data.instance().map_err(StartError::of("data directory's id"))?;
        let host = nix::unistd::gethostname()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let name = format!(
            "{host}, pid {}, data directory {}",
            std::process::id(),
            data.root().display()
        );
        let holder = Holder { instance, boot, name };
        store::patiently(|| installation::acquire(db, &holder)).await?;
        let lost = Arc::new(OnceLock::new());
        let renewing = renew(db.clone(), boot, lost.clone(), process.clone());
        Ok(Self {
            db: db.clone(),
            boot,
            renewal: tokio::spawn(renewing).abort_handle(),
            lost,
        })
    }

    /// Gives it back; fails if it was lost meanwhile.
    pub(super) async fn release(self) -> Result<(), StartError> {
        self.renewal.abort();
        if let Some(holder) = self.lost.get() {
            return Err(StartError::Held { holder: holder.clone() });
        }
        if let Err(error) = installation::release(&self.db, self.boot).await {
            warn!(%error, "the lease could not be given back; it ends by itself");
        }
        Ok(())
    }
}

async fn renew(db: Db, boot: Uuid, lost: Arc<OnceLock<String>>, process: Lifecycle) {
    loop {
        tokio::time::sleep(RENEWAL).await;
        match installation::renew(&db, boot).await {
            Ok(()) => {}
            Err(StoreError::Held { holder }) => {
                error!(holder, "another control plane took the installation; stopping");
                let _ = lost.set(holder);
                process.stop();
                return;
            }
            // Ingest checks the lease in every transaction: as long as nobody took it, it is ours.
            Err(error) => warn!(%error, "the lease could not be renewed; trying again"),
        }
    }
}

impl DataDir {
    /// The id of this data directory, made once. The lease knows a restart on the same directory by it.
    fn instance(&self) -> io::Result<Uuid> {
        let path = self.root().join("instance");
        match fs::read_to_string(&path) {
            Ok(text) => Uuid::try_parse(text.trim()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let id = Uuid::now_v7();
                fs::write(&path, format!("{id}\n"))?;
                Ok(id)
            }
            Err(error) => Err(error),
        }
    }
}
