//! The database file: the log and a few single values, in redb.
//!
//! Every call runs on a blocking thread, because a durable commit waits for the disk.

use std::path::Path;
use std::sync::Arc;

use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase, TableDefinition, WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Log entries as JSON by index.
pub(super) const LOG: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("log");
/// Single values as JSON by name.
pub(super) const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");

/// redb's page cache: the state is small, and the log is read once, at start.
const CACHE_BYTES: usize = 16 << 20;

/// The open database. Clones share it.
#[derive(Clone)]
pub(super) struct Db {
    inner: Arc<Database>,
}

/// The database could not do something.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// redb failed.
    #[error("database: {0}")]
    Redb(#[source] Box<redb::Error>),
    /// A value is not what this release writes.
    #[error("database: cannot read {what}: {source}")]
    Decode {
        /// Which value.
        what: String,
        /// Why.
        source: serde_json::Error,
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
    pub(super) fn open(path: &Path) -> Result<Self, DbError> {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        let inner = builder.create(path)?;
        // Both tables exist from now on, so that readers need not care.
        let tx = inner.begin_write()?;
        tx.open_table(LOG)?;
        tx.open_table(META)?;
        tx.commit()?;
        let inner = Arc::new(inner);
        Ok(Self { inner })
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
            let mut tx = db.begin_write()?;
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
        blocking(move || query(&db.begin_read()?)).await
    }

    /// The single value called `name`.
    pub(super) async fn value<T: DeserializeOwned + Send + 'static>(
        &self,
        name: &'static str,
    ) -> Result<Option<T>, DbError> {
        self.read(move |tx| {
            let table = tx.open_table(META)?;
            let bytes = table.get(name)?;
            bytes.map(|b| decode(name, b.value())).transpose()
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

/// Sets the single value called `name`.
pub(super) fn put(
    tx: &WriteTransaction,
    name: &'static str,
    value: &impl Serialize,
) -> Result<(), DbError> {
    let bytes = encode(value)?;
    tx.open_table(META)?.insert(name, bytes.as_slice())?;
    Ok(())
}

pub(super) fn encode(value: &impl Serialize) -> Result<Vec<u8>, DbError> {
    serde_json::to_vec(value).map_err(DbError::Encode)
}

pub(super) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, DbError> {
    serde_json::from_slice(bytes).map_err(|source| DbError::Decode {
        what: what.to_owned(),
        source,
    })
}
