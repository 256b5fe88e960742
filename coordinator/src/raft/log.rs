//! The log store: votes and entries are on disk before anyone hears of them.

use std::fmt::Debug;
use std::ops::RangeBounds;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{
    Entry, LogId, LogState, OptionalSend, RaftLogReader, StorageError, StorageIOError, Vote,
};
use redb::ReadableTable as _;

use super::Types;
use super::db::{Db, DbError, LOG, META};
use crate::secret::Sealer;

const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";

/// The log in the database.
#[derive(Clone)]
pub(super) struct LogStore {
    db: Db,
}

impl LogStore {
    pub(super) const fn new(db: Db) -> Self {
        Self { db }
    }
}

type Res<T> = Result<T, StorageError<u64>>;

/// Whether anything was ever voted for or logged.
pub(super) async fn is_used(db: &Db) -> Result<bool, DbError> {
    db.read(|tx| {
        let voted = tx.open_table(META)?.get(VOTE)?.is_some();
        Ok(voted || tx.open_table(LOG)?.first()?.is_some())
    })
    .await
}

fn reading(error: DbError) -> StorageError<u64> {
    StorageIOError::read_logs(openraft::AnyError::new(&error)).into()
}

fn writing(error: DbError) -> StorageError<u64> {
    StorageIOError::write_logs(openraft::AnyError::new(&error)).into()
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Res<Vec<Entry<Types>>> {
        let range = (range.start_bound().cloned(), range.end_bound().cloned());
        let sealer = self.db.sealer();
        let entries = self.db.read(move |tx| {
            let table = tx.open_table(LOG)?;
            let mut entries = Vec::new();
            for row in table.range::<u64>(range)? {
                let (index, entry) = row?;
                entries.push(decode_entry(&sealer, index.value(), entry.value())?);
            }
            Ok(entries)
        });
        entries.await.map_err(reading)
    }
}

fn decode_entry(sealer: &Sealer, index: u64, bytes: &[u8]) -> Result<Entry<Types>, DbError> {
    sealer.decode(&format!("log entry {index}"), bytes)
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Res<LogState<Types>> {
        let sealer = self.db.sealer();
        let state = self.db.read(move |tx| {
            let purged = tx.open_table(META)?.get(PURGED)?;
            let last_purged_log_id = purged
                .map(|b| sealer.decode(PURGED, b.value()))
                .transpose()?;
            let table = tx.open_table(LOG)?;
            let last = table.last()?;
            let last = last
                .map(|(i, e)| decode_entry(&sealer, i.value(), e.value()))
                .transpose()?;
            Ok(LogState {
                last_purged_log_id,
                last_log_id: last.map(|e| e.log_id).or(last_purged_log_id),
            })
        });
        state.await.map_err(reading)
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Res<()> {
        let (vote, sealer) = (*vote, self.db.sealer());
        let saved = self.db.write(move |tx| sealer.put(tx, VOTE, &vote)).await;
        saved.map_err(|e| StorageIOError::write_vote(openraft::AnyError::new(&e)).into())
    }

    async fn read_vote(&mut self) -> Res<Option<Vote<u64>>> {
        let vote = self.db.value(VOTE).await;
        vote.map_err(|e| StorageIOError::read_vote(openraft::AnyError::new(&e)).into())
    }

    /// May be lost in a crash: the leader commits again what is in the log, which was written
    /// durably.
    async fn save_committed(&mut self, committed: Option<LogId<u64>>) -> Res<()> {
        let sealer = self.db.sealer();
        let saved = self
            .db
            .write_lazily(move |tx| sealer.put(tx, COMMITTED, &committed));
        saved.await.map_err(writing)
    }

    async fn read_committed(&mut self) -> Res<Option<LogId<u64>>> {
        let committed = self.db.value::<Option<LogId<u64>>>(COMMITTED).await;
        Ok(committed.map_err(reading)?.flatten())
    }

    async fn append<I>(&mut self, entries: I, flushed: LogFlushed<Types>) -> Res<()>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let sealer = self.db.sealer();
        let rows: Result<Vec<_>, DbError> = entries
            .into_iter()
            .map(|entry| Ok((entry.log_id.index, sealer.encode(&entry)?)))
            .collect();
        let rows = rows.map_err(writing)?;
        let appended = self.db.write(move |tx| {
            let mut table = tx.open_table(LOG)?;
            for (index, entry) in &rows {
                table.insert(*index, entry.as_slice())?;
            }
            Ok(())
        });
        match appended.await {
            Ok(()) => {
                flushed.log_io_completed(Ok(()));
                Ok(())
            }
            Err(error) => {
                flushed.log_io_completed(Err(std::io::Error::other(error.to_string())));
                Err(writing(error))
            }
        }
    }

    async fn truncate(&mut self, from: LogId<u64>) -> Res<()> {
        let truncated = self.db.write(move |tx| {
            tx.open_table(LOG)?
                .retain_in::<u64, _>(from.index.., |_, _| false)?;
            Ok(())
        });
        truncated.await.map_err(writing)
    }

    async fn purge(&mut self, upto: LogId<u64>) -> Res<()> {
        let sealer = self.db.sealer();
        let purged = self.db.write(move |tx| {
            sealer.put(tx, PURGED, &upto)?;
            tx.open_table(LOG)?
                .retain_in::<u64, _>(..=upto.index, |_, _| false)?;
            Ok(())
        });
        purged.await.map_err(writing)
    }
}
