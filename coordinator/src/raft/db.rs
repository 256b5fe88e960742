//! The database file: the log and a few single values, in redb.
//!
//! Every call runs on a blocking thread, because a durable commit waits for the disk. Values are
//! sealed: the log holds the credentials of mounts and the key of the cluster's authority.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;
use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase, TableDefinition, WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::secret::Sealer;

/// Log entries as sealed JSON by index.
pub(super) const LOG: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("log");
/// Single values as sealed JSON by name.
pub(super) const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");

/// redb's page cache: the state is small, and the log is read once, at start.
const CACHE_BYTES: usize = 16 << 20;

/// The database, open until [`close`](Self::close). Clones share it.
#[derive(Clone)]
pub(super) struct Db {
    inner: Arc<RwLock<Option<Database>>>,
    sealer: Sealer,
}

/// The database could not do something.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// redb failed.
    #[error("database: {0}")]
    Redb(#[source] Box<redb::Error>),
    /// The file or its directory cannot be opened.
    #[error("database: {0}")]
    Io(#[source] std::io::Error),
    /// A value is not what this release writes.
    #[error("database: cannot read {what}: {source}")]
    Decode {
        /// Which value.
        what: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A value was sealed with another secret, or is damaged.
    #[error(
        "database: {what} cannot be opened with this secret; give the one that the log was \
         written with (--secret-file), or restore group.secret in the data directory"
    )]
    Sealed {
        /// Which value.
        what: String,
    },
    /// A value cannot be written as JSON.
    #[error("database: cannot encode a value: {0}")]
    Encode(#[source] serde_json::Error),
    /// The process is stopping.
    #[error("database: the process is stopping")]
    Stopping,
}

impl<E: Into<redb::Error>> From<E> for DbError {
    fn from(error: E) -> Self {
        Self::Redb(Box::new(error.into()))
    }
}

impl Db {
    /// Opens or creates the file; repairs it if the last process was killed.
    pub(super) fn open(path: &Path, sealer: Sealer) -> Result<Self, DbError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(DbError::Io)?;
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        let inner = builder.create_file(file)?;
        // A new file is only as durable as its entry in the directory.
        let dir = path.parent().unwrap_or_else(|| Path::new("."));
        let synced = File::open(dir).and_then(|dir| dir.sync_all());
        synced.map_err(DbError::Io)?;
        // Both tables exist from now on, so that readers need not care.
        let tx = inner.begin_write()?;
        tx.open_table(LOG)?;
        tx.open_table(META)?;
        tx.commit()?;
        let inner = Arc::new(RwLock::new(Some(inner)));
        Ok(Self { inner, sealer })
    }

    /// Waits for calls under way and releases the file, whoever still holds a clone: openraft's
    /// tasks end some time after it says that it has stopped.
    pub(super) async fn close(&self) {
        let db = Arc::clone(&self.inner);
        let closed = blocking(move || {
            drop(db.write().take());
            Ok(())
        });
        if let Err(error) = closed.await {
            tracing::error!(%error, "the database was not closed in good order");
        }
    }

    /// One transaction that is on disk when the call returns.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, DbError> {
        self.commit(Durability::Immediate, change).await
    }

    /// One transaction that a crash may undo, but not before an earlier one.
    pub(super) async fn write_lazily<T: Send + 'static>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, DbError> {
        self.commit(Durability::None, change).await
    }

    async fn commit<T: Send + 'static>(
        &self,
        durability: Durability,
        change: impl FnOnce(&WriteTransaction) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, DbError> {
        let db = Arc::clone(&self.inner);
        blocking(move || {
            let db = db.read();
            let mut tx = db.as_ref().ok_or(DbError::Stopping)?.begin_write()?;
            tx.set_durability(durability)?;
            let done = change(&tx)?;
            tx.commit()?;
            Ok(done)
        })
        .await
    }

    /// Reads from one consistent state.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&ReadTransaction) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, DbError> {
        let db = Arc::clone(&self.inner);
        blocking(move || {
            let db = db.read();
            query(&db.as_ref().ok_or(DbError::Stopping)?.begin_read()?)
        })
        .await
    }

    /// The single value called `name`.
    pub(super) async fn value<T: DeserializeOwned + Send + 'static>(
        &self,
        name: &'static str,
    ) -> Result<Option<T>, DbError> {
        let sealer = self.sealer.clone();
        self.read(move |tx| {
            let table = tx.open_table(META)?;
            let bytes = table.get(name)?;
            bytes.map(|b| sealer.decode(name, b.value())).transpose()
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DbError> + Send + 'static,
) -> Result<T, DbError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(join) => match join.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(DbError::Stopping),
        },
    }
}

impl Db {
    /// How values are written and read.
    pub(super) fn sealer(&self) -> Sealer {
        self.sealer.clone()
    }
}

impl Sealer {
    /// Sets the single value called `name`.
    pub(super) fn put(
        &self,
        tx: &WriteTransaction,
        name: &'static str,
        value: &impl Serialize,
    ) -> Result<(), DbError> {
        let bytes = self.encode(value)?;
        tx.open_table(META)?.insert(name, bytes.as_slice())?;
        Ok(())
    }

    pub(super) fn encode(&self, value: &impl Serialize) -> Result<Vec<u8>, DbError> {
        Ok(self.seal(&to_json(value)?))
    }

    pub(super) fn decode<T: DeserializeOwned>(
        &self,
        what: &str,
        bytes: &[u8],
    ) -> Result<T, DbError> {
        from_json(what, &self.unseal(what, bytes)?)
    }

    pub(super) fn unseal(&self, what: &str, bytes: &[u8]) -> Result<Vec<u8>, DbError> {
        self.open(bytes).ok_or_else(|| DbError::Sealed {
            what: what.to_owned(),
        })
    }
}

pub(super) fn to_json(value: &impl Serialize) -> Result<Vec<u8>, DbError> {
    serde_json::to_vec(value).map_err(DbError::Encode)
}

pub(super) fn from_json<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, DbError> {
    serde_json::from_slice(bytes).map_err(|source| DbError::Decode {
        what: what.to_owned(),
        source,
    })
}
