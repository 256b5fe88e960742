use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;
const NODE: NodeId = NodeId(1);
const MOUNT: MountId = MountId(1);

/// A source: time to the first byte in ms, then for each MiB.
#[derive(Debug, Clone, Copy)]
struct Speed {
    first: f64,
    mib: f64,
}

impl Speed {
    const fn new(first: f64, mib: f64) -> Self {
        Self { first, mib }
    }

    fn took(self, bytes: u64) -> Duration {
        let ms = self.first + self.mib * bytes as f64 / MIB as f64;
        Duration::from_secs_f64(ms / 1e3)
    }
}

/// One reader, one node, one UFS.
struct World {
    detours: Detours,
    ufs: Delivery,
    now: Instant,
    turns: Vec<Turn>,
}

impl World {
    fn new() -> Self {
        Self {
            detours: Detours::default(),
            ufs: Delivery::new(),
            now: Instant::now(),
            turns: Vec::new(),
        }
    }

    /// One request, as the race of the sources would have it. Says what it took, and whether
    /// the node was asked first.
    fn request(&mut self, bytes: u64, node: Speed, ufs: Speed) -> (Duration, bool) {
        let size = Size::of(bytes);
        let (choice, turn) = self.detours.choose(NODE, MOUNT, size, &self.ufs, self.now);
        self.turns.extend(turn);
        let (by_node, by_ufs) = (node.took(bytes), ufs.took(bytes));
        let took = match choice {
            Choice::Node => by_node,
            Choice::Trial { patience } => by_node.min(patience + by_ufs),
            Choice::Around { patience } | Choice::Sample { patience } => {
                by_ufs.min(patience + by_node)
            }
        };
        self.now += took;
        let now = self.now;
        match choice {
            Choice::Node => self.detours.answered(NODE, size, took, 1, now),
            Choice::Trial { .. } => {
                let took = (took == by_node).then_some(took);
                let turn = self.detours.tried(NODE, MOUNT, size, took, &self.ufs, now);
                self.turns.extend(turn);
            }
            Choice::Around { .. } | Choice::Sample { .. } if took == by_ufs => {
                self.ufs.add(size, took, now);
            }
            Choice::Around { .. } | Choice::Sample { .. } => self.ufs.overtaken(size, now),
        }
        (took, matches!(choice, Choice::Node | Choice::Trial { .. }))
    }

    fn is_around(&self) -> bool {
        !self.detours.around().is_empty()
    }
}

/// So many requests suffice to find out that a node is slow.
const FOUND_OUT: usize = ENOUGH_OF_NODE + SAMPLE_EVERY as usize * (ENOUGH_OF_UFS + 1);

/// And to find out that it is fast again.
const RECOVERED: usize = (TRIAL_EVERY * (LEAST_TRIALS + 1)) as usize;

const SLOW: Speed = Speed::new(20.0, 200.0);
const FAST: Speed = Speed::new(1.0, 1.0);
const STORE: Speed = Speed::new(30.0, 12.0);

#[test]
fn a_slow_node_is_gone_round_and_trusted_again_when_it_is_fast() {
    let mut world = World::new();
    for _ in 0..FOUND_OUT {
        world.request(MIB, SLOW, STORE);
    }
    assert!(world.is_around());
    let asked = (0..10 * TRIAL_EVERY).filter(|_| world.request(MIB, SLOW, STORE).1);
    assert_eq!(asked.count(), 10, "it is tried now and then");
    for _ in 0..RECOVERED {
        world.request(MIB, FAST, STORE);
    }
    assert!(!world.is_around());
    let back: Vec<_> = world.turns.iter().map(|turn| turn.back).collect();
    assert_eq!(back, [None, Some(Back::Faster)]);
}

#[test]
fn what_takes_little_time_is_asked_whatever_the_store_does() {
    let mut world = World::new();
    let (node, store) = (Speed::new(10.0, 15.0), Speed::new(0.1, 0.1));
    for _ in 0..1000 {
        assert!(world.request(MIB, node, store).1);
    }
}

#[test]
fn a_queue_of_ones_own_does_not_make_a_node_slow() {
    let mut world = World::new();
    let (size, took) = (Size::of(MIB), Duration::from_millis(300));
    for _ in 0..ENOUGH_OF_UFS {
        world.ufs.add(size, Duration::from_millis(20), world.now);
    }
    let choices = [20, 2].map(|load| {
        for _ in 0..20 {
            world.detours.answered(NODE, size, took, load, world.now);
        }
        let (choice, _) = world
            .detours
            .choose(NODE, MOUNT, size, &world.ufs, world.now);
        choice
    });
    assert_eq!(choices[0], Choice::Node);
    assert_eq!(choices[1], Choice::Around { patience: took });
}

#[test]
fn a_store_that_fails_is_not_gone_to() {
    let mut world = World::new();
    for _ in 0..FOUND_OUT {
        world.request(MIB, SLOW, STORE);
    }
    world.ufs.forget();
    let (choice, turn) = world
        .detours
        .choose(NODE, MOUNT, Size::of(MIB), &world.ufs, world.now);
    assert_eq!(choice, Choice::Node);
    assert_eq!(turn.unwrap().back, Some(Back::Unknown));
}

#[test]
fn a_store_that_is_slow_under_load_is_not_gone_to_again_soon() {
    let mut world = World::new();
    for _ in 0..FOUND_OUT {
        world.request(MIB, SLOW, STORE);
    }
    let overloaded = Speed::new(200.0, 200.0);
    for _ in 0..60 {
        world.request(MIB, SLOW, overloaded);
    }
    assert!(!world.is_around());
    assert_eq!(world.turns.last().unwrap().back, Some(Back::NoGain));
    let rests = world.now + LEAST_REST / 2;
    while world.now < rests {
        world.request(MIB, SLOW, STORE);
        assert!(!world.is_around());
    }
}

#[test]
fn a_node_that_is_slow_again_soon_has_to_go_well_for_longer() {
    let mut world = World::new();
    let mut needed = Vec::new();
    for _ in 0..3 {
        for _ in 0..FOUND_OUT {
            world.request(MIB, SLOW, STORE);
        }
        assert!(world.is_around());
        let trials = (0..).find(|_| {
            world.request(MIB, FAST, STORE);
            !world.is_around()
        });
        needed.push(trials.unwrap());
    }
    assert!(needed[1] > needed[0] && needed[2] > needed[1], "{needed:?}");
}

#[test]
fn mounts_and_nodes_are_told_apart_and_forgotten() {
    let mut world = World::new();
    for _ in 0..FOUND_OUT {
        world.request(MIB, SLOW, STORE);
    }
    let mut choose = |node, mount, ufs: &Delivery| {
        let (size, now) = (Size::of(MIB), world.now);
        world.detours.choose(node, mount, size, ufs, now).0
    };
    let unknown = Delivery::new();
    assert_eq!(choose(NODE, MountId(2), &unknown), Choice::Node);
    assert_eq!(choose(NodeId(2), MOUNT, &world.ufs), Choice::Node);
    assert_eq!(world.detours.around(), [NODE]);
    world.detours.retain(|_| true, |mount| mount != MOUNT);
    assert_eq!(world.detours.around(), []);
}

prop_compose! {
    fn speed()(first in 0.0f64..500.0, mib in 0.0f64..500.0) -> Speed {
        Speed::new(first, mib)
    }
}

proptest! {
    /// However both vary: a node that is always at least as fast as the UFS is always asked
    /// first, but for the few requests that measure the UFS.
    #[test]
    fn a_node_that_is_faster_is_never_gone_round(
        node in proptest::collection::vec(speed(), 1..50),
        more in proptest::collection::vec(speed(), 1..50),
        sizes in proptest::collection::vec(1..=MIB, 1..20),
    ) {
        let mut world = World::new();
        let slowest = node.iter().fold(Speed::new(0.0, 0.0), |a, b| {
            Speed::new(a.first.max(b.first), a.mib.max(b.mib))
        });
        for i in 0..400 {
            let more = more[i % more.len()];
            let ufs = Speed::new(slowest.first + more.first, slowest.mib + more.mib);
            world.request(sizes[i % sizes.len()], node[i % node.len()], ufs);
            prop_assert!(!world.is_around());
        }
        prop_assert_eq!(world.turns, []);
    }

    /// However fast either is: what is asked first is not for long the one that takes more
    /// than twice as long, and that a node is fast again is noticed.
    #[test]
    fn the_faster_way_is_found_and_found_again(
        node in speed(),
        ufs in speed(),
        bytes in 1..=MIB,
    ) {
        let mut world = World::new();
        for _ in 0..FOUND_OUT {
            world.request(bytes, node, ufs);
        }
        let (by_node, by_ufs) = (node.took(bytes), ufs.took(bytes));
        let margin = Duration::from_micros(10);
        if by_node >= BEARABLE + margin && by_node > by_ufs * CLEARLY + margin {
            // A slow UFS takes long to measure: what is old does not count.
            let quick = FOUND_OUT as u32 * by_node.max(by_ufs) < Duration::from_secs(50);
            prop_assert!(world.is_around() || !quick);
        }
        for _ in 0..RECOVERED {
            world.request(bytes, FAST, Speed::new(50.0, 50.0));
        }
        prop_assert!(!world.is_around());
    }

    /// Whatever happens: without recent answers of the UFS the node is asked, and whoever is
    /// asked first, the other one is within a bounded time.
    #[test]
    fn no_way_is_closed_for_good(
        events in proptest::collection::vec((0u8..6, 0u64..3000, 1..=MIB), 0..300),
    ) {
        let mut world = World::new();
        for (event, ms, bytes) in events {
            let (size, took) = (Size::of(bytes), Duration::from_millis(ms));
            let now = world.now;
            match event {
                0 => world.detours.answered(NODE, size, took, 1 + ms as u32 % 7, now),
                1 => world.ufs.overtaken(size, now),
                2 => world.ufs.add(size, took, now),
                3 => world.ufs.forget(),
                4 => {
                    let took = (ms % 2 == 0).then_some(took);
                    world.detours.tried(NODE, MOUNT, size, took, &world.ufs, now);
                }
                _ => world.now += took,
            }
            let now = world.now;
            let known = world.ufs.usual(size, ENOUGH_OF_UFS, now).is_some();
            let (choice, _) = world.detours.choose(NODE, MOUNT, size, &world.ufs, now);
            match choice {
                Choice::Node => {}
                Choice::Sample { patience } => prop_assert!(!known && patience <= MOST_PATIENCE),
                Choice::Around { patience } => {
                    prop_assert!(known && patience <= MOST_PATIENCE);
                }
                Choice::Trial { patience } => {
                    prop_assert!(known && patience <= MOST_PATIENCE);
                }
            }
        }
    }
}
