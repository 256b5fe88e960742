//! The `millpond-bench peer` program.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use std::process::Command;

use millpond_bench::record::{RunRecord, Status};

#[test]
fn a_node_is_measured_beside_plain_quinn() {
    let output = Command::new(env!("CARGO_BIN_EXE_millpond-bench"))
        .args([
            "peer",
            "--quick",
            "--runs",
            "2",
            "--duration",
            "20ms",
            "--json",
        ])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let record: RunRecord = serde_json::from_slice(&output.stdout).unwrap();
    let ids: Vec<_> = record.figures.iter().map(|row| row.id()).collect();
    assert_eq!(
        ids,
        [
            "peer/quic/1m-4/throughput",
            "peer/quic/1m-4/cpu",
            "peer/quic/128k-4/throughput",
            "peer/quic/4k-1/p50",
            "peer/local/1m-4/throughput",
            "peer/local/quic-1m-4/throughput",
            "peer/local/quic-128k-4/throughput",
            "peer/local/quic-4k-1/p50",
        ]
    );
    for row in &record.figures {
        assert_eq!(row.status, Status::Measured, "{:?}", row.note);
        assert!(row.ratio.as_ref().unwrap().median > 0.0);
        assert_eq!(row.proof.ufs_requests, Some(0));
        assert_eq!(
            (row.proof.mismatches, row.proof.verified_bytes),
            (Some(0), Some(64 << 20))
        );
    }
}
