//! `millpond status`: the cluster, or a mount, at a glance.

mod mount;

use std::path::PathBuf;

use comfy_table::Table;
use millpond_net::control::NodeStatus;
use millpond_proto::{Member, MemberState, NodeStats};
use serde::Serialize;

use crate::connect::ClusterArgs;
use crate::mounts::MountRow;
use crate::output::{self, OutputArgs, human};

/// Shows the cluster: epoch, leader, nodes with what they hold, mounts. With DIR: a mount of
/// this host, how it is set and what works on it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond status
  millpond status --coordinator 10.0.0.1:7000 -o json
  millpond status /mnt/data")]
pub(crate) struct StatusArgs {
    /// A mount of this host, or a path in it
    dir: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// The cluster, as it is printed.
#[derive(Debug, Serialize)]
struct Report {
    cluster: String,
    version: u64,
    epoch: u64,
    block_size: u64,
    leader: String,
    nodes: Vec<NodeRow>,
    mounts: Vec<MountRow>,
}

#[derive(Debug, Serialize)]
struct NodeRow {
    node: String,
    state: MemberState,
    addr: String,
    admin: String,
    zone: String,
    weight: u32,
    capacity: u64,
    used: u64,
    hit_ratio: Option<f64>,
    heartbeat_age_ms: Option<u64>,
    stats: Option<NodeStats>,
}

pub(crate) async fn run(args: StatusArgs) -> anyhow::Result<()> {
    if let Some(dir) = &args.dir {
        return mount::show(dir, args.output);
    }
    let status = args.cluster.control()?.status().await?;
    let node_row = |member: &Member| {
        let node = status.nodes.iter().find(|n| n.node == member.id);
        NodeRow::new(member, node)
    };
    let view = &status.view;
    let report = Report {
        cluster: view.cluster.to_string(),
        version: view.version,
        epoch: view.epoch.0,
        block_size: view.block_size.bytes(),
        leader: status.leader.clone(),
        nodes: view.members.iter().map(node_row).collect(),
        mounts: view.mounts.iter().map(MountRow::new).collect(),
    };
    if args.output.is_json() {
        return output::json(&report);
    }
    report.print()
}

impl NodeRow {
    fn new(member: &Member, status: Option<&NodeStatus>) -> Self {
        let heartbeat_age = status.and_then(|status| status.heartbeat_age);
        // Without a heartbeat the counters are zeros that nobody sent.
        let stats = heartbeat_age.and(status).map(|status| status.stats);
        Self {
            node: member.id.to_string(),
            state: member.state,
            addr: member.addr.clone(),
            admin: member.admin.clone(),
            zone: member.zone.clone(),
            weight: member.weight,
            capacity: member.capacity,
            used: stats.map_or(0, |s| s.memory_used + s.disk_used),
            hit_ratio: stats.and_then(|s| s.hit_ratio()),
            heartbeat_age_ms: heartbeat_age.map(|age| age.as_millis() as u64),
            stats,
        }
    }

    fn cells(&self) -> [String; 10] {
        let percent = |ratio: f64| format!("{:.1} %", ratio * 100.0);
        let seconds = |ms: u64| format!("{:.1} s", ms as f64 / 1000.0);
        let dash = || "-".to_owned();
        [
            self.node.clone(),
            state_name(self.state).to_owned(),
            self.addr.clone(),
            self.zone.clone(),
            human(self.capacity),
            self.stats.map_or_else(dash, |_| human(self.used)),
            self.hit_ratio.map_or_else(dash, percent),
            self.stats.map_or_else(dash, disk),
            self.stats.map_or_else(dash, scrub),
            self.heartbeat_age_ms.map_or_else(dash, seconds),
        ]
    }
}

impl Report {
    fn print(&self) -> anyhow::Result<()> {
        output::line(format!(
            "cluster {}  epoch {}  block size {}  leader {}",
            self.cluster,
            self.epoch,
            human(self.block_size),
            self.leader,
        ))?;
        output::line("")?;
        output::line(self.node_table().trim_fmt())?;
        output::line("")?;
        output::line(MountRow::table(&self.mounts).trim_fmt())?;
        Ok(())
    }

    fn node_table(&self) -> Table {
        let mut table = output::table(&[
            "node",
            "state",
            "address",
            "zone",
            ">capacity",
            ">used",
            ">hits",
            "disk",
            ">scrub",
            ">heard",
        ]);
        table.add_rows(self.nodes.iter().map(NodeRow::cells));
        table
    }
}

/// Whether the disk tier is used.
fn disk(stats: NodeStats) -> String {
    let text = match (stats.disks_not_read > 0, stats.disks_not_written > 0) {
        _ if stats.disk_capacity == 0 => "-",
        (false, false) => "ok",
        (false, true) => "not written",
        (true, false) => "not read",
        (true, true) => "out",
    };
    text.to_owned()
}

/// How far the scrub is, and what it found.
fn scrub(stats: NodeStats) -> String {
    let progress = match (stats.scrub_permille, stats.scrub_passes) {
        (0, 0) => "-".to_owned(),
        (0, _) => "done".to_owned(),
        (permille, _) => format!("{:.0} %", permille as f64 / 10.0),
    };
    match stats.scrub_bad_blocks {
        0 => progress,
        bad => format!("{progress}, {bad} bad"),
    }
}

fn state_name(state: MemberState) -> &'static str {
    match state {
        MemberState::Joining => "joining",
        MemberState::Active => "active",
        MemberState::Draining => "draining",
        MemberState::Left => "left",
        MemberState::Dead => "dead",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sick_disk_and_a_scrub_are_told_in_words() {
        let none = NodeStats::default();
        let well = NodeStats {
            disk_capacity: 1,
            ..none
        };
        let full = NodeStats {
            disks_not_written: 1,
            scrub_permille: 123,
            ..well
        };
        let out = NodeStats {
            disks_not_read: 1,
            scrub_passes: 1,
            scrub_bad_blocks: 2,
            ..full
        };
        let all = [none, well, full, out];
        assert_eq!(all.map(disk), ["-", "ok", "not written", "out"]);
        assert_eq!(all.map(scrub), ["-", "-", "12 %", "12 %, 2 bad"]);
        let between = NodeStats {
            scrub_permille: 0,
            ..out
        };
        assert_eq!(scrub(between), "done, 2 bad");
    }
}
