//! What happens to what passes between two processes.

use std::time::Duration;

use tokio::sync::watch;

/// The state of one process's network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Weather {
    /// Nothing passes, in either direction, and nobody is told.
    pub(super) cut: bool,
    /// Everything passes so much later, in each direction.
    pub(super) delay: Duration,
}

impl Weather {
    /// That of a way through two networks.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            cut: self.cut || other.cut,
            delay: self.delay + other.delay,
        }
    }
}

/// The weather of all the networks that one way leads through.
#[derive(Debug, Clone)]
pub(super) struct Way(Vec<watch::Receiver<Weather>>);

impl Way {
    pub(super) const fn through(networks: Vec<watch::Receiver<Weather>>) -> Self {
        Self(networks)
    }

    pub(super) fn now(&self) -> Weather {
        let one = |network: &watch::Receiver<Weather>| *network.borrow();
        self.0
            .iter()
            .map(one)
            .fold(Weather::default(), Weather::and)
    }

    /// Waits until it is not cut.
    pub(super) async fn open(&mut self) {
        for network in &mut self.0 {
            // Who changes the weather is gone: it stays as it is.
            if network.wait_for(|weather| !weather.cut).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_all_networks_counts() {
        let (a, at_a) = watch::channel(Weather::default());
        let (b, at_b) = watch::channel(Weather::default());
        let way = Way::through(vec![at_a, at_b]);
        assert_eq!(way.now(), Weather::default());
        a.send_replace(Weather {
            cut: true,
            delay: Duration::from_millis(3),
        });
        b.send_replace(Weather {
            cut: false,
            delay: Duration::from_millis(4),
        });
        assert!(way.now().cut);
        assert_eq!(way.now().delay, Duration::from_millis(7));
    }
}
