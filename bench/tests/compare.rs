//! `millpond-bench compare`: a verdict for each figure, exit code 3 for a regression.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

#[path = "support/records.rs"]
mod records;

use std::fs;
use std::process::{Command, Output};

use millpond_bench::compare::{Basis, Comparison, Verdict};
use millpond_bench::measure::Spread;
use millpond_bench::record::{Better, RunRecord, Status};

use records::{ratio, read, record, rows};

const LIMIT: (&str, f64) = ("limit", 10.0);

fn compare(old: &RunRecord, new: &RunRecord) -> Comparison {
    Comparison::of(old, new, 0.05)
}

fn verdict(comparison: &Comparison, id: &str) -> Verdict {
    comparison
        .rows
        .iter()
        .find(|row| row.id == id)
        .unwrap()
        .verdict
}

#[test]
fn a_run_is_the_same_as_itself() {
    let run = record("a", rows(1.0));
    let comparison = compare(&run, &run);
    assert_eq!(comparison.rows.len(), rows(1.0).len());
    assert!(comparison.warnings.is_empty(), "{:?}", comparison.warnings);
    for row in &comparison.rows {
        assert!(
            matches!(row.verdict, Verdict::Same | Verdict::Neither),
            "{row:?}"
        );
    }
}

#[test]
fn ratios_decide_where_the_machine_is_slower_today() {
    let old = record("a", vec![read("x", 8.0, LIMIT)]);
    let slower_machine = record("a", vec![read("x", 4.0, ("limit", 5.0))]);
    let comparison = compare(&old, &slower_machine);
    assert_eq!(comparison.rows[0].verdict, Verdict::Same);
    assert_eq!(comparison.rows[0].basis, Some(Basis::Ratio));

    let slower_product = record("a", vec![read("x", 4.0, LIMIT)]);
    assert_eq!(
        compare(&old, &slower_product).rows[0].verdict,
        Verdict::Worse
    );
    assert_eq!(
        compare(&slower_product, &old).rows[0].verdict,
        Verdict::Better
    );
}

#[test]
fn figures_decide_where_a_run_has_no_limit() {
    let mut bare = read("x", 4.0, LIMIT);
    (bare.limit, bare.ratio) = (None, None);
    let comparison = compare(
        &record("a", vec![read("x", 8.0, LIMIT)]),
        &record("b", vec![bare]),
    );
    assert_eq!(comparison.rows[0].basis, Some(Basis::Value));
    assert_eq!(comparison.rows[0].unit, "GB/s");
    assert_eq!(comparison.rows[0].verdict, Verdict::Worse);
}

#[test]
fn the_worse_come_first_and_what_is_in_one_run_only_is_told() {
    let better = Better::Lower;
    let old = vec![
        ratio("s", "gone", "f", better, &[1.0]),
        ratio("s", "same", "f", better, &[1.0]),
        ratio("s", "worse", "f", better, &[1.0]),
        ratio("s", "worst", "f", better, &[1.0]),
    ];
    let new = vec![
        ratio("s", "same", "f", better, &[1.01]),
        ratio("s", "worse", "f", better, &[1.5]),
        ratio("s", "worst", "f", better, &[3.0]),
        ratio("s", "new", "f", better, &[1.0]),
    ];
    let comparison = compare(&record("a", old), &record("b", new));
    let order: Vec<_> = comparison.rows.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(
        order,
        ["s/worst/f", "s/worse/f", "s/gone/f", "s/same/f", "s/new/f"]
    );
    assert_eq!(comparison.worse().count(), 2);
    assert_eq!(verdict(&comparison, "s/gone/f"), Verdict::OnlyOld);
    assert_eq!(verdict(&comparison, "s/new/f"), Verdict::OnlyNew);
}

#[test]
fn what_fails_only_now_is_worse_and_what_was_never_built_is_not() {
    let good = || read("x", 8.0, LIMIT);
    let mut failed = good();
    (failed.status, failed.value, failed.ratio) = (Status::Failed, None, None);
    let mut wrong = good();
    wrong.proof.mismatches = Some(1);
    let mut with_errors = good();
    with_errors.detail.errors = 2;
    let mut impossible = failed.clone();
    impossible.status = Status::Impossible;
    let verdict =
        |old, new| compare(&record("a", vec![old]), &record("b", vec![new])).rows[0].verdict;
    for bad in [&failed, &wrong, &with_errors] {
        assert_eq!(verdict(good(), bad.clone()), Verdict::Worse);
        assert_eq!(verdict(bad.clone(), good()), Verdict::Better);
        assert_eq!(verdict(bad.clone(), bad.clone()), Verdict::Neither);
    }
    assert_eq!(verdict(good(), impossible.clone()), Verdict::OnlyOld);
    assert_eq!(verdict(impossible.clone(), impossible), Verdict::Neither);
}

#[test]
fn what_makes_runs_hard_to_compare_is_said() {
    let old = record("a", Vec::new());
    let mut new = record("b", Vec::new());
    new.machine.kernel = "9.9".to_owned();
    new.tool.profile = "debug".to_owned();
    new.settings.insert("seed".to_owned(), "2".to_owned());
    new.noise.noisy = true;
    let warnings = compare(&old, &new).warnings.join("\n");
    for words in [
        "kernel",
        "debug",
        "seed differs: 1 before, 2 now",
        "noisy now",
    ] {
        assert!(
            warnings.contains(words),
            "{words:?} is missing in {warnings}"
        );
    }
}

fn command(old: &RunRecord, new: &RunRecord, flags: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let files = [("old.json", old), ("new.json", new)].map(|(name, run)| {
        let path = dir.path().join(name);
        fs::write(&path, serde_json::to_string(run).unwrap()).unwrap();
        path
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpond-bench"));
    command
        .arg("compare")
        .args(files)
        .args(flags)
        .output()
        .unwrap()
}

#[test]
fn the_exit_code_is_3_for_a_regression_and_2_for_a_wrong_flag() {
    let (good, bad) = (record("before", rows(1.0)), record("after", rows(0.7)));
    let same = command(&good, &good, &[]);
    assert_eq!(same.status.code(), Some(0), "{same:?}");

    let worse = command(&good, &bad, &[]);
    assert_eq!(worse.status.code(), Some(3), "{worse:?}");
    let (out, err) = (
        String::from_utf8(worse.stdout).unwrap(),
        String::from_utf8(worse.stderr).unwrap(),
    );
    assert!(out.contains("WORSE") && out.contains("6 WORSE"), "{out}");
    assert!(err.contains("6 figures are worse"), "{err}");

    let tolerant = command(&good, &bad, &["--tolerance", "50"]);
    assert_eq!(tolerant.status.code(), Some(0), "{tolerant:?}");
    let wrong = command(&good, &bad, &["--tolerance", "-1"]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
}

#[test]
fn json_is_one_object_even_where_a_change_is_infinite() {
    let row = |value| ratio("s", "c", "f", Better::Lower, &[value]);
    let (old, new) = (record("a", vec![row(0.0)]), record("b", vec![row(1.0)]));
    let output = command(&old, &new, &["--json"]);
    assert_eq!(output.status.code(), Some(3));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["rows"][0]["verdict"], "worse");
    assert_eq!(json["rows"][0]["change"], "-inf");
    assert_eq!(json["rows"][0]["new"]["median"], Spread::once(1.0).median);
}
