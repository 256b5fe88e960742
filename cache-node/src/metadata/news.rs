//! What changed, told to all who watch.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use millpond_proto::wire::query::{News, Seen};
use millpond_proto::{Change, ChangeLog};

/// Changes that are remembered: who was away for more of them has everything in doubt.
const REMEMBERED: usize = 4096;

/// The changes that this node was told of.
#[derive(Debug)]
pub(super) struct NewsRoom {
    /// Another one after each start.
    id: u64,
    /// All changes, for this node's own answers.
    all: Mutex<ChangeLog>,
    /// Those that are told.
    published: Mutex<Published>,
    /// The number of the last one that is told.
    latest: watch::Sender<u64>,
    /// Nobody is kept waiting any more.
    closed: CancellationToken,
}

#[derive(Debug)]
struct Published {
    log: ChangeLog,
    /// Whose changes they are; as long as what the log remembers.
    origins: VecDeque<u64>,
}

impl NewsRoom {
    pub(super) fn new() -> Self {
        Self {
            id: rand::random(),
            all: Mutex::new(ChangeLog::new(REMEMBERED)),
            published: Mutex::new(Published {
                log: ChangeLog::new(REMEMBERED),
                origins: VecDeque::new(),
            }),
            latest: watch::Sender::new(0),
            closed: CancellationToken::new(),
        }
    }

    /// How many changes there were.
    pub(super) fn seq(&self) -> u64 {
        self.all.lock().seq()
    }

    /// Whether there was a change after number `seq` for which `concerned` is true, as far as
    /// that is known.
    pub(super) fn changed_since(&self, seq: u64, concerned: impl Fn(&Change) -> bool) -> bool {
        match self.all.lock().since(seq) {
            Some(mut changes) => changes.any(concerned),
            None => true,
        }
    }

    /// Notes a change that others are told of later.
    pub(super) fn note(&self, change: Change) {
        self.all.lock().push(change);
    }

    /// Notes a change of `origin` and tells it.
    pub(super) fn publish(&self, change: Change, origin: u64) {
        self.note(change.clone());
        let mut published = self.published.lock();
        let seq = published.log.push(change);
        published.origins.push_back(origin);
        if published.origins.len() > REMEMBERED {
            published.origins.pop_front();
        }
        self.latest.send_replace(seq);
    }

    /// Answers all who wait, now and from now on.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    /// The changes after `seen` that are not of `origin`, as soon as there are any, else what
    /// there is after `patience`.
    pub(super) async fn watch(&self, seen: Option<Seen>, origin: u64, patience: Duration) -> News {
        let Some(seen) = seen else {
            return self.news(*self.latest.borrow(), Some(Vec::new()));
        };
        if seen.log != self.id {
            return self.news(*self.latest.borrow(), None);
        }
        let mut latest = self.latest.subscribe();
        // The sender is here: what ends the wait is news, or time, or the end.
        let news = timeout(patience, latest.wait_for(|seq| *seq != seen.seq));
        let _ = self.closed.run_until_cancelled(news).await;
        let published = self.published.lock();
        let changes = published.log.since(seen.seq).map(|changes| {
            let changes: Vec<&Change> = changes.collect();
            let first = published.origins.len() - changes.len();
            let origins = published.origins.range(first..);
            let others = changes.into_iter().zip(origins);
            let others = others.filter(|(_, by)| **by != origin);
            others.map(|(change, _)| change.clone()).collect()
        });
        self.news(published.log.seq(), changes)
    }

    const fn news(&self, seq: u64, changes: Option<Vec<Change>>) -> News {
        let seen = Seen { log: self.id, seq };
        News { seen, changes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(path: &str) -> Change {
        Change {
            path: path.to_owned(),
            recursive: false,
        }
    }

    const NOW: Duration = Duration::ZERO;

    #[tokio::test]
    async fn who_watches_hears_of_others_changes_once() {
        let room = NewsRoom::new();
        room.publish(change("/before"), 1);
        let start = room.watch(None, 7, NOW).await;
        assert_eq!(start.changes, Some(vec![]));
        room.publish(change("/own"), 7);
        room.publish(change("/other"), 8);
        room.note(change("/not yet told"));
        let news = room.watch(Some(start.seen), 7, NOW).await;
        assert_eq!(news.changes, Some(vec![change("/other")]));
        let none = room.watch(Some(news.seen), 7, NOW).await;
        assert_eq!(none.changes, Some(vec![]));
        assert_eq!(none.seen, news.seen);
    }

    #[tokio::test]
    async fn a_change_ends_the_wait() {
        let room = NewsRoom::new();
        let start = room.watch(None, 7, NOW).await;
        let waiting = room.watch(Some(start.seen), 7, Duration::from_secs(3600));
        let publishing = async { room.publish(change("/x"), 1) };
        let (news, ()) = tokio::join!(waiting, publishing);
        assert_eq!(news.changes, Some(vec![change("/x")]));
    }

    #[tokio::test]
    async fn the_end_ends_the_wait() {
        let room = NewsRoom::new();
        let start = room.watch(None, 7, NOW).await;
        let waiting = room.watch(Some(start.seen), 7, Duration::from_secs(3600));
        let (news, ()) = tokio::join!(waiting, async { room.close() });
        assert_eq!(news.changes, Some(vec![]));
    }

    #[tokio::test]
    async fn a_gap_or_another_start_puts_everything_in_doubt() {
        let room = NewsRoom::new();
        let start = room.watch(None, 7, NOW).await;
        let other = NewsRoom::new();
        assert_eq!(other.watch(Some(start.seen), 7, NOW).await.changes, None);
        for i in 0..=REMEMBERED {
            room.publish(change(&format!("/{i}")), 1);
        }
        let news = room.watch(Some(start.seen), 7, NOW).await;
        assert_eq!(news.changes, None);
        assert_eq!(news.seen.seq, REMEMBERED as u64 + 1);
    }
}
