//! What a coordinator counts.

use std::fmt::Write;
use std::time::Duration;

use millpond_proto::{ClusterView, ErrorKind, MemberState};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The metrics of one coordinator.
#[derive(Debug)]
pub struct Metrics {
    epoch: Gauge,
    view_version: Gauge,
    members: Family<StateLabel, Gauge>,
    mounts: Gauge,
    /// The index of the last applied log entry.
    pub raft_last_applied_index: Gauge,
    /// 1 while this coordinator leads.
    pub raft_leader: Gauge,
    /// Open watch streams.
    pub watchers: Gauge,
    /// Members declared dead.
    pub deaths: Counter,
    /// Certificates signed.
    pub certificates: Counter,
    rpcs: Family<RpcLabels, Counter>,
    rpc_seconds: Family<RpcLabel, Histogram, fn() -> Histogram>,
}

/// The calls that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "named as in control.proto")]
pub enum Rpc {
    Join,
    Heartbeat,
    Leave,
    Certify,
    Watch,
    AddMount,
    UpdateMount,
    RemoveMount,
    Status,
    Coordinators,
    RemoveCoordinator,
    TransferLead,
    CreateToken,
    ListTokens,
    RevokeToken,
}

impl Rpc {
    /// The call as metrics and logs name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Heartbeat => "heartbeat",
            Self::Leave => "leave",
            Self::Certify => "certify",
            Self::Watch => "watch",
            Self::AddMount => "add_mount",
            Self::UpdateMount => "update_mount",
            Self::RemoveMount => "remove_mount",
            Self::Status => "status",
            Self::Coordinators => "coordinators",
            Self::RemoveCoordinator => "remove_coordinator",
            Self::TransferLead => "transfer_lead",
            Self::CreateToken => "create_token",
            Self::ListTokens => "list_tokens",
            Self::RevokeToken => "revoke_token",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RpcLabel {
    rpc: RpcName,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RpcLabels {
    rpc: RpcName,
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct RpcName(Rpc);

impl EncodeLabelValue for RpcName {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.0.name())
    }
}

/// `ok`, or the kind of the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Outcome(Option<ErrorKind>);

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self.0 {
            None => encoder.write_str("ok"),
            Some(kind) => encoder.write_str(&kind.to_string().replace(' ', "_")),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State(MemberState);

impl EncodeLabelValue for State {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(state_name(self.0))
    }
}

/// A member's state as metrics and logs name it.
pub const fn state_name(state: MemberState) -> &'static str {
    match state {
        MemberState::Joining => "joining",
        MemberState::Active => "active",
        MemberState::Draining => "draining",
        MemberState::Left => "left",
        MemberState::Dead => "dead",
    }
}

const STATES: [MemberState; 5] = [
    MemberState::Joining,
    MemberState::Active,
    MemberState::Draining,
    MemberState::Left,
    MemberState::Dead,
];

impl Metrics {
    /// Registers the metrics with `registry`.
    pub fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("millpond_coordinator");
        // 100 us to about 26 s.
        let seconds: fn() -> Histogram = || Histogram::new(exponential_buckets(1e-4, 4.0, 10));
        let metrics = Self {
            epoch: Gauge::default(),
            view_version: Gauge::default(),
            members: Family::default(),
            mounts: Gauge::default(),
            raft_last_applied_index: Gauge::default(),
            raft_leader: Gauge::default(),
            watchers: Gauge::default(),
            deaths: Counter::default(),
            certificates: Counter::default(),
            rpcs: Family::default(),
            rpc_seconds: Family::new_with_constructor(seconds),
        };
        let m = &metrics;
        registry.register("epoch", "Version of membership and ring", m.epoch.clone());
        registry.register(
            "view_version",
            "Version of the view",
            m.view_version.clone(),
        );
        registry.register("members", "Cache nodes by state", m.members.clone());
        registry.register("mounts", "Entries of the mount table", m.mounts.clone());
        registry.register(
            "raft_last_applied_index",
            "Index of the last applied log entry",
            m.raft_last_applied_index.clone(),
        );
        registry.register(
            "raft_leader",
            "1 while this coordinator leads",
            m.raft_leader.clone(),
        );
        registry.register("watchers", "Open watch streams", m.watchers.clone());
        registry.register("deaths", "Nodes declared dead", m.deaths.clone());
        registry.register(
            "certificates",
            "Certificates signed",
            m.certificates.clone(),
        );
        registry.register("rpcs", "Calls by outcome", m.rpcs.clone());
        registry.register(
            "rpc_duration_seconds",
            "Time to answer a call",
            m.rpc_seconds.clone(),
        );
        metrics
    }

    /// The view has changed.
    pub fn set_view(&self, view: &ClusterView) {
        self.epoch.set(view.epoch.0 as i64);
        self.view_version.set(view.version as i64);
        self.mounts.set(view.mounts.iter().len() as i64);
        for state in STATES {
            let count = view.members.iter().filter(|m| m.state == state).count();
            let label = StateLabel {
                state: State(state),
            };
            self.members.get_or_create(&label).set(count as i64);
        }
    }

    /// A call was answered.
    pub fn answered(&self, rpc: Rpc, error: Option<ErrorKind>, took: Duration) {
        let labels = RpcLabels {
            rpc: RpcName(rpc),
            outcome: Outcome(error),
        };
        self.rpcs.get_or_create(&labels).inc();
        let label = RpcLabel { rpc: RpcName(rpc) };
        self.rpc_seconds
            .get_or_create(&label)
            .observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn names_and_labels_are_as_documented() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        metrics.answered(Rpc::Join, None, Duration::from_millis(2));
        metrics.answered(Rpc::AddMount, Some(ErrorKind::NotFound), Duration::ZERO);
        metrics.deaths.inc();
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "millpond_coordinator_rpcs_total{rpc=\"join\",outcome=\"ok\"} 1",
            "millpond_coordinator_rpcs_total{rpc=\"add_mount\",outcome=\"not_found\"} 1",
            "millpond_coordinator_rpc_duration_seconds_count{rpc=\"join\"} 1",
            "millpond_coordinator_deaths_total 1",
            "millpond_coordinator_epoch 0",
        ] {
            assert!(text.contains(line), "{line} not in:\n{text}");
        }
    }
}
