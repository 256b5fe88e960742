//! The state machine: the engine's state in memory, its snapshots on disk.
//!
//! After a restart the state is the last snapshot plus the committed entries after it, which
//! openraft applies again. Applying therefore needs no disk.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;

use millpond_proto::ClusterView;
use openraft::storage::RaftStateMachine;
use openraft::{
    AnyError, Entry, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot,
    SnapshotMeta, StorageError, StorageIOError, StoredMembership,
};
use redb::ReadableTable as _;
use tokio::sync::watch;

use super::Types;
use super::db::{Db, DbError, META, from_json, to_json};
use crate::engine::tokens::Token;
use crate::engine::{Applied, Hidden, State};

const SNAPSHOT_META: &str = "snapshot_meta";
const SNAPSHOT_DATA: &str = "snapshot_data";

type Meta = SnapshotMeta<u64, openraft::BasicNode>;
type Res<T> = Result<T, StorageError<u64>>;

/// What the rest of the process sees of the state: swapped whole after every applied batch.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// The view; none before bootstrap.
    pub view: Option<Arc<ClusterView>>,
    /// The certificate of the cluster's authority, once it is recorded.
    pub ca_pem: Option<Arc<str>>,
    /// Its key, once it is recorded.
    pub ca_key: Option<Arc<Hidden>>,
    /// The tokens by name, those that have ended among them.
    pub tokens: Arc<BTreeMap<String, Token>>,
}

impl Published {
    fn of(state: &State) -> Self {
        Self {
            view: state.view().map(Arc::new),
            ca_pem: state.ca_pem().map(Arc::from),
            tokens: Arc::new(state.tokens().clone()),
            ca_key: state
                .ca_key_pem()
                .map(|key| Arc::new(Hidden(key.to_owned()))),
        }
    }
}

/// The state and what is needed to snapshot it.
pub(super) struct Machine {
    db: Db,
    at: Position,
    published: watch::Sender<Published>,
}

/// A state and the place in the log that it belongs to.
#[derive(Clone, Default)]
struct Position {
    state: State,
    last_applied: Option<LogId<u64>>,
    membership: StoredMembership<u64, openraft::BasicNode>,
}

impl Machine {
    /// Starts from the last snapshot in `db`.
    pub(super) async fn open(db: Db) -> Result<Self, DbError> {
        let mut at = Position::default();
        if let Some((meta, data)) = read_snapshot(&db).await? {
            at = Position {
                state: from_json(SNAPSHOT_DATA, &data)?,
                last_applied: meta.last_log_id,
                membership: meta.last_membership,
            };
        }
        let published = watch::Sender::new(Published::of(&at.state));
        Ok(Self { db, at, published })
    }

    /// Where the state appears after every applied batch.
    pub(super) fn published(&self) -> watch::Receiver<Published> {
        self.published.subscribe()
    }
}

async fn read_snapshot(db: &Db) -> Result<Option<(Meta, Vec<u8>)>, DbError> {
    let sealer = db.sealer();
    db.read(move |tx| {
        let table = tx.open_table(META)?;
        let (Some(meta), Some(data)) = (table.get(SNAPSHOT_META)?, table.get(SNAPSHOT_DATA)?)
        else {
            return Ok(None);
        };
        let meta = sealer.decode(SNAPSHOT_META, meta.value())?;
        let data = sealer.unseal(SNAPSHOT_DATA, data.value())?;
        Ok(Some((meta, data)))
    })
    .await
}

/// Stores a snapshot unless a later one is there already.
async fn store_snapshot(db: &Db, meta: Meta, data: Vec<u8>) -> Result<(), DbError> {
    let sealer = db.sealer();
    db.write(move |tx| {
        let stored = {
            let table = tx.open_table(META)?;
            let stored = table.get(SNAPSHOT_META)?;
            stored
                .map(|b| sealer.decode::<Meta>(SNAPSHOT_META, b.value()))
                .transpose()?
        };
        if stored.is_some_and(|s| s.last_log_id > meta.last_log_id) {
            return Ok(());
        }
        sealer.put(tx, SNAPSHOT_META, &meta)?;
        tx.open_table(META)?
            .insert(SNAPSHOT_DATA, sealer.seal(&data).as_slice())?;
        Ok(())
    })
    .await
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(
        &mut self,
    ) -> Res<(
        Option<LogId<u64>>,
        StoredMembership<u64, openraft::BasicNode>,
    )> {
        Ok((self.at.last_applied, self.at.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Res<Vec<Applied>>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut answers = Vec::new();
        for entry in entries {
            self.at.last_applied = Some(entry.log_id);
            answers.push(match entry.payload {
                EntryPayload::Blank => Applied::nothing(),
                EntryPayload::Normal(command) => self.at.state.apply(&command),
                EntryPayload::Membership(membership) => {
                    self.at.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Applied::nothing()
                }
            });
        }
        if answers.iter().any(|a| !a.effects.is_empty()) {
            self.published.send_replace(Published::of(&self.at.state));
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            db: self.db.clone(),
            at: self.at.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Res<Box<Cursor<Vec<u8>>>> {
        Ok(Box::default())
    }

    async fn install_snapshot(&mut self, meta: &Meta, snapshot: Box<Cursor<Vec<u8>>>) -> Res<()> {
        let data = snapshot.into_inner();
        let failed = |error: &DbError| {
            StorageIOError::write_snapshot(Some(meta.signature()), AnyError::new(error))
        };
        let state = from_json(SNAPSHOT_DATA, &data).map_err(|e| failed(&e))?;
        let stored = store_snapshot(&self.db, meta.clone(), data).await;
        stored.map_err(|e| failed(&e))?;
        self.at = Position {
            state,
            last_applied: meta.last_log_id,
            membership: meta.last_membership.clone(),
        };
        self.published.send_replace(Published::of(&self.at.state));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Res<Option<Snapshot<Types>>> {
        let read = read_snapshot(&self.db).await;
        let read = read.map_err(|e| StorageIOError::read_snapshot(None, AnyError::new(&e)))?;
        Ok(read.map(|(meta, data)| Snapshot {
            meta,
            snapshot: Box::new(Cursor::new(data)),
        }))
    }
}

/// Writes one state as a snapshot, beside the running state machine.
pub(super) struct Builder {
    db: Db,
    at: Position,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Res<Snapshot<Types>> {
        let index = self.at.last_applied.map_or(0, |id| id.index);
        let meta = SnapshotMeta {
            last_log_id: self.at.last_applied,
            last_membership: self.at.membership.clone(),
            snapshot_id: format!("{index}-{:08x}", rand::random::<u32>()),
        };
        let failed = |error: &DbError| {
            StorageIOError::write_snapshot(Some(meta.signature()), AnyError::new(error))
        };
        let data = to_json(&self.at.state).map_err(|e| failed(&e))?;
        let stored = store_snapshot(&self.db, meta.clone(), data.clone()).await;
        stored.map_err(|e| failed(&e))?;
        tracing::debug!(index, bytes = data.len(), "state snapshot written");
        Ok(Snapshot {
            meta,
            snapshot: Box::new(Cursor::new(data)),
        })
    }
}
