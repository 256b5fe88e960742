use proptest::prelude::*;

use super::*;

const KIB: u32 = 1024;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// One worker that reads without a pause, `took` each, from `from` to `to`.
fn steady(from: u64, to: u64, took: u64) -> Vec<Read> {
    let ends = (from..=to).step_by(took as usize).skip(1);
    ends.map(|end| Read {
        end: ms(end),
        took: ms(took),
        bytes: 128 * KIB,
    })
    .collect()
}

/// Good until 2 s, then one read that hangs for `hang` ms, then `after` ms each, to 10 s; the
/// fault lasts from 2 s to 6 s.
fn hung(hang: u64, after: u64) -> Timeline {
    let mut reads = steady(0, 2000, 10);
    reads.push(Read {
        end: ms(2000 + hang),
        took: ms(hang),
        bytes: 128 * KIB,
    });
    reads.extend(steady(2000 + hang, 10_000, after));
    Timeline::new(reads, ms(2001), ms(6000), ms(10_000))
}

#[test]
fn a_fault_that_nobody_feels_costs_nothing() {
    let timeline = Timeline::new(steady(0, 8000, 10), ms(2001), ms(5000), ms(8000));
    assert_eq!(timeline.stall(), ms(10));
    assert_eq!(timeline.recovered_after(), Some(Duration::ZERO));
    assert_eq!(timeline.recovered_after_heal(), Some(Duration::ZERO));
    assert!((timeline.throughput_kept() - 1.0).abs() < 0.02);
    let ratio = timeline.during().quantile(0.99).as_secs_f64()
        / timeline.before().quantile(0.99).as_secs_f64();
    assert!((ratio - 1.0).abs() < 0.02, "{ratio}");
}

#[test]
fn what_never_gets_good_again_has_not_recovered() {
    let timeline = hung(1000, 20);
    assert_eq!(timeline.recovered_after(), None);
    assert_eq!(timeline.recovered_after_heal(), None);
    assert_eq!(Timeline::default().recovered_after(), None);
}

#[test]
fn a_read_that_hangs_past_the_end_of_a_second_is_seen_in_it() {
    // Two workers: one goes on, one hangs for 3 s.
    let mut reads = steady(0, 10_000, 10);
    reads.extend(steady(0, 2000, 10));
    reads.push(Read {
        end: ms(5000),
        took: ms(3000),
        bytes: 0,
    });
    reads.extend(steady(5000, 10_000, 10));
    let timeline = Timeline::new(reads, ms(2001), ms(9000), ms(10_000));
    let recovered = timeline.recovered_after().unwrap();
    assert!(recovered >= ms(2000), "{recovered:?}");
}

#[test]
fn the_plot_has_every_byte_in_its_slot() {
    let timeline = Timeline::new(steady(0, 1000, 50), ms(500), ms(700), ms(1050));
    let series = timeline.series();
    assert_eq!(series.bytes.len(), 11);
    assert_eq!(series.bytes.iter().sum::<u64>(), 20 * 128 * 1024);
    assert_eq!(series.bytes[1], 2 * 128 * 1024);
}

proptest! {
    #[test]
    fn a_stall_is_the_longest_read_and_lasts_until_recovery(hang in 400u64..5000) {
        let timeline = hung(hang, 10);
        prop_assert_eq!(timeline.stall(), ms(hang));
        let recovered = timeline.recovered_after().unwrap();
        // The read that hangs is one of a hundred in the second in which it ends.
        let exact = ms(hang.saturating_sub(1));
        prop_assert!(recovered <= exact + STEP, "{:?} for {}", recovered, hang);
        prop_assert!(recovered + WINDOW >= exact, "{:?} for {}", recovered, hang);
    }

    #[test]
    fn before_and_during_share_no_read(
        times in prop::collection::vec((0u64..5000, 1u64..400), 0..200),
        fault in 0u64..5000,
        lasts in 0u64..2000,
    ) {
        let reads: Vec<Read> = times
            .iter()
            .map(|(start, took)| Read { end: ms(start + took), took: ms(*took), bytes: 1 })
            .collect();
        let fault_at = ms(fault);
        let before = reads.iter().filter(|read| read.end < fault_at).count();
        let timeline = Timeline::new(reads.clone(), fault_at, ms(fault + lasts), ms(8000));
        let stall = timeline.stall();
        prop_assert!(reads.iter().filter(|r| r.end >= fault_at).all(|r| r.took <= stall));
        prop_assert!(timeline.during().max() <= stall);
        prop_assert_eq!(timeline.before().max() == Duration::ZERO, before == 0);
        let bytes: u64 = timeline.series().bytes.iter().sum();
        prop_assert_eq!(bytes, reads.len() as u64);
    }
}
