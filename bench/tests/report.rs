//! `millpond-bench report`: one page that shows all, fetches nothing and trusts no text.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

#[path = "support/records.rs"]
mod records;

use std::fs;
use std::path::Path;

use millpond_bench::record::RunRecord;
use millpond_bench::report::{self, ReportArgs};

use records::{record, rows};

/// Kept after the test, to look at.
fn keep(name: &str, text: &str) {
    fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name), text).unwrap();
}

fn html(records: &[RunRecord]) -> String {
    report::html(records).unwrap()
}

#[test]
fn the_page_shows_every_figure_and_what_is_missing() {
    let page = html(&[record("millpond", rows(1.0))]);
    keep("report-one.html", &page);
    let unbroken = page.replace("<wbr>", "");
    for case in rows(1.0) {
        assert!(unbroken.contains(&case.case), "{} is missing", case.case);
    }
    for words in [
        "not built",
        "FUSE passthrough is not built yet",
        "impossible here",
        "FAILED",
        "node 2 did not come up",
        "256 MiB verified",
        "0 UFS requests",
        "kernel pages dropped",
        "goals met",
        "✗",
        "✓",
        "prefers-color-scheme: dark",
        "id=\"time\"",
        "id=\"latency\"",
    ] {
        assert!(page.contains(words), "{words:?} is missing");
    }
    assert!(
        !page.contains("Read with care"),
        "a quiet release run needs no warning"
    );
}

#[test]
fn the_page_fetches_nothing() {
    let page = html(&[record("a", rows(1.0)), record("b", rows(1.1))]);
    for outside in [
        "http://", "https://", "src=", "url(", "@import", "<script", "<link",
    ] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn text_of_a_run_stays_text() {
    let evil = "<script>alert('x')</script>\"'&";
    let mut all = rows(1.0);
    for row in &mut all {
        row.case = format!("{}{evil}", row.case);
        row.unit = evil.to_owned();
        row.note = Some(evil.to_owned());
        if let Some(limit) = &mut row.limit {
            limit.name = evil.to_owned();
        }
        row.detail.first_error = Some(evil.to_owned());
        row.detail.errors = 1;
    }
    let mut run = record(evil, all);
    run.noise.noisy = true;
    run.noise.why = vec![evil.to_owned()];
    run.settings.insert(evil.to_owned(), evil.to_owned());
    run.command = vec![evil.to_owned()];
    run.machine.cpu = evil.to_owned();
    for records in [vec![run.clone()], vec![run.clone(), run]] {
        assert!(!html(&records).contains("<script"));
        assert!(!report::markdown(&records).unwrap().contains("| <script"));
    }
}

#[test]
fn a_run_to_doubt_says_so_at_the_top() {
    let mut run = record("millpond", rows(1.0));
    run.noise.noisy = true;
    run.noise.why = vec!["other processes used 40 % of the CPU".to_owned()];
    run.tool.profile = "debug".to_owned();
    run.figures[0].proof.mismatches = Some(3);
    let page = html(&[run]);
    keep("report-noisy.html", &page);
    let top = &page[..page.find("<main").unwrap()];
    for words in [
        "Read with care",
        "other processes used 40 %",
        "debug build",
        "3 results were wrong",
    ] {
        assert!(top.contains(words), "{words:?} is missing");
    }
}

#[test]
fn several_runs_stand_side_by_side() {
    let runs = [
        record("millpond", rows(1.0)),
        record("another product", rows(0.6)),
        record("millpond", rows(1.2)),
    ];
    let page = html(&runs);
    keep("report-three.html", &page);
    for words in [
        "3 runs side by side",
        "millpond #1",
        "another product",
        "millpond #2",
        "run-2",
    ] {
        assert!(page.contains(words), "{words:?} is missing");
    }
    let markdown = report::markdown(&runs).unwrap();
    assert!(markdown.contains("| figure | millpond #1 | another product | millpond #2 |"));
}

#[test]
fn runs_without_figures_make_a_page_too() {
    assert!(html(&[record("empty", Vec::new())]).contains("empty"));
}

#[test]
fn every_line_of_a_markdown_table_has_as_many_cells() {
    let markdown = report::markdown(&[record("millpond", rows(1.0))]).unwrap();
    keep("report.md", &markdown);
    let cells = |line: &str| line.replace("\\|", "").matches('|').count();
    let mut last = None;
    for line in markdown.lines() {
        let is_table = line.starts_with('|');
        if is_table && let Some(before) = last {
            assert_eq!(cells(line), before, "{line}");
        }
        last = is_table.then(|| cells(line));
    }
    assert!(
        markdown.contains("| `ring.balance_10` | 1.050 | ≤ 1.10 | met |"),
        "{markdown}"
    );
    assert!(markdown.contains("not built"));
}

#[test]
fn the_command_reads_runs_and_writes_where_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (run, page) = (dir.path().join("run.json"), dir.path().join("page.html"));
    fs::write(
        &run,
        serde_json::to_string(&record("millpond", rows(1.0))).unwrap(),
    )
    .unwrap();
    let mut args = ReportArgs {
        runs: vec![run],
        out: Some(page.clone()),
        markdown: false,
    };
    let mut out = Vec::new();
    report::run(&args, &mut out).unwrap();
    assert!(String::from_utf8(out).unwrap().contains("page.html"));
    assert!(
        fs::read_to_string(&page)
            .unwrap()
            .starts_with("<!DOCTYPE html>")
    );

    args = ReportArgs {
        out: None,
        markdown: true,
        ..args
    };
    let mut out = Vec::new();
    report::run(&args, &mut out).unwrap();
    assert!(String::from_utf8(out).unwrap().contains("## millpond"));

    args.runs.push(dir.path().join("nowhere.json"));
    let error = format!("{:#}", report::run(&args, &mut Vec::new()).unwrap_err());
    assert!(error.contains("nowhere.json"), "{error}");
}
