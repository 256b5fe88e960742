//! What the two block ends count.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use millpond_proto::ErrorKind;
use millpond_proto::wire::frame::Op;

/// Which process a metric belongs to; part of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// A cache node.
    Node,
    /// A client.
    Client,
}

impl Component {
    const fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Client => "client",
        }
    }
}

/// Counters of a [`BlockClient`](crate::block_client::BlockClient).
#[derive(Debug, Default)]
pub struct ClientMetrics {
    /// Requests sent to peers, by how they ended.
    pub requests: Family<RequestLabels, Counter>,
    /// Open connections to peers.
    pub connections: Gauge,
    /// Connections that were tried, by how it ended.
    pub connects: Family<OutcomeLabels, Counter>,
    /// Bytes of block data received.
    pub received_bytes: Counter,
    /// Page pieces that did not match their checksum.
    pub corrupt_pages: Counter,
    /// Times that a peer was declared down.
    pub breaker_opens: Counter,
    /// Bytes of block data, by the way that they came.
    pub read_bytes: Family<TransportLabels, Counter>,
    /// What failed on the sockets of nodes on this host, and was asked for over QUIC instead.
    pub local_failures: Family<LocalFailureLabels, Counter>,
    /// Descriptors of block files that are open.
    pub descriptors: Gauge,
}

impl ClientMetrics {
    /// Registers the counters as `millpond_<component>_peer_…`.
    pub fn new(registry: &mut Registry, component: Component) -> Self {
        let metrics = Self::default();
        let mut add = |noun: &str, help: &str, metric: Metric<'_>| {
            let name = format!("millpond_{}_peer_{noun}", component.name());
            match metric {
                Metric::Requests(m) => registry.register(name, help, m.clone()),
                Metric::Outcomes(m) => registry.register(name, help, m.clone()),
                Metric::Counter(m) => registry.register(name, help, m.clone()),
                Metric::Gauge(m) => registry.register(name, help, m.clone()),
                Metric::Transports(m) => registry.register(name, help, m.clone()),
                Metric::LocalFailures(m) => registry.register(name, help, m.clone()),
            }
        };
        add(
            "requests",
            "Requests sent to peers",
            Metric::Requests(&metrics.requests),
        );
        add(
            "connections",
            "Open connections to peers",
            Metric::Gauge(&metrics.connections),
        );
        add(
            "connects",
            "Connection attempts",
            Metric::Outcomes(&metrics.connects),
        );
        add(
            "received_bytes",
            "Bytes of block data received from peers",
            Metric::Counter(&metrics.received_bytes),
        );
        add(
            "corrupt_pages",
            "Page pieces received that did not match their checksum",
            Metric::Counter(&metrics.corrupt_pages),
        );
        add(
            "breaker_opens",
            "Times that a peer was declared down",
            Metric::Counter(&metrics.breaker_opens),
        );
        add(
            "read_bytes",
            "Bytes of block data from peers, by the way that they came",
            Metric::Transports(&metrics.read_bytes),
        );
        add(
            "local_failures",
            "What failed on sockets of nodes on this host and was asked for over QUIC instead",
            Metric::LocalFailures(&metrics.local_failures),
        );
        add(
            "descriptors",
            "Open descriptors of block files of nodes on this host",
            Metric::Gauge(&metrics.descriptors),
        );
        metrics
    }

    pub(crate) fn request_ended(&self, op: Op, outcome: Outcome) {
        self.requests
            .get_or_create(&RequestLabels {
                op: op.into(),
                outcome,
            })
            .inc();
    }

    pub(crate) fn received(&self, transport: Transport, bytes: u64) {
        self.received_bytes.inc_by(bytes);
        self.read_bytes
            .get_or_create(&TransportLabels { transport })
            .inc_by(bytes);
    }

    pub(crate) fn local_failed(&self, reason: LocalFailure) {
        self.local_failures
            .get_or_create(&LocalFailureLabels { reason })
            .inc();
    }

    pub(crate) fn connect_ended(&self, outcome: Outcome) {
        self.connects
            .get_or_create(&OutcomeLabels { outcome })
            .inc();
    }
}

enum Metric<'a> {
    Requests(&'a Family<RequestLabels, Counter>),
    Outcomes(&'a Family<OutcomeLabels, Counter>),
    Counter(&'a Counter),
    Gauge(&'a Gauge),
    Transports(&'a Family<TransportLabels, Counter>),
    LocalFailures(&'a Family<LocalFailureLabels, Counter>),
}

/// Counters of a [`BlockServer`](crate::block_server::BlockServer).
#[derive(Debug, Default)]
pub struct ServerMetrics {
    /// Requests answered, by how they ended.
    pub requests: Family<RequestLabels, Counter>,
    /// Open connections.
    pub connections: Gauge,
    /// Requests being served now.
    pub in_flight: Gauge,
    /// Bytes of responses held until the peer acknowledges them.
    pub in_flight_bytes: Gauge,
    /// Requests and connections turned away before they were served.
    pub rejected: Family<RejectLabels, Counter>,
    /// Bytes of block data handed to the network.
    pub sent_bytes: Counter,
    /// Open connections to the Unix socket.
    pub local_connections: Gauge,
    /// Answers over the Unix socket, by what came with them.
    pub local_answers: Family<LocalAnswerLabels, Counter>,
}

impl ServerMetrics {
    /// Registers the counters as `millpond_node_served_…`.
    pub fn new(registry: &mut Registry) -> Self {
        let m = Self::default();
        registry.register(
            "millpond_node_served_requests",
            "Block requests answered",
            m.requests.clone(),
        );
        registry.register(
            "millpond_node_served_connections",
            "Open connections from clients and peers",
            m.connections.clone(),
        );
        registry.register(
            "millpond_node_served_requests_in_flight",
            "Block requests being served",
            m.in_flight.clone(),
        );
        registry.register(
            "millpond_node_served_in_flight_bytes",
            "Response bytes held until acknowledged",
            m.in_flight_bytes.clone(),
        );
        registry.register(
            "millpond_node_rejected_requests",
            "Requests and connections turned away before they were served",
            m.rejected.clone(),
        );
        registry.register(
            "millpond_node_sent_bytes",
            "Bytes of block data handed to the network",
            m.sent_bytes.clone(),
        );
        registry.register(
            "millpond_node_local_connections",
            "Open connections of clients on this host to the Unix socket",
            m.local_connections.clone(),
        );
        registry.register(
            "millpond_node_local_answers",
            "Answers over the Unix socket, by what came with them",
            m.local_answers.clone(),
        );
        m
    }

    pub(crate) fn request_ended(&self, op: Op, outcome: Outcome) {
        self.requests
            .get_or_create(&RequestLabels {
                op: op.into(),
                outcome,
            })
            .inc();
    }

    pub(crate) fn local_answered(&self, answer: LocalAnswer) {
        self.local_answers
            .get_or_create(&LocalAnswerLabels { answer })
            .inc();
    }

    pub(crate) fn reject(&self, reason: RejectReason) {
        self.rejected.get_or_create(&RejectLabels { reason }).inc();
    }
}

/// Labels of a request counter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// What was asked for.
    pub op: OpLabel,
    /// How it ended.
    pub outcome: Outcome,
}

/// Labels of a counter with an outcome alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// How it ended.
    pub outcome: Outcome,
}

/// Labels of the counter of rejections.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RejectLabels {
    /// Why.
    pub reason: RejectReason,
}

/// Labels of a counter of bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TransportLabels {
    /// The way that they came.
    pub transport: Transport,
}

/// Labels of the counter of what failed on local sockets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LocalFailureLabels {
    /// What it was.
    pub reason: LocalFailure,
}

/// Labels of the counter of local answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LocalAnswerLabels {
    /// What came.
    pub answer: LocalAnswer,
}

/// An enum whose values print as the given words.
macro_rules! label_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$value_doc])* $value),*
        }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
                let word: &str = match self {
                    $(Self::$value => $word),*
                };
                EncodeLabelValue::encode(&word, encoder)
            }
        }
    };
}

label_enum! {
    /// Why a request or connection was turned away.
    RejectReason {
        /// The frame made no sense, or did not arrive in time.
        Malformed = "malformed",
        /// The limit of requests in flight is reached.
        Busy = "busy",
        /// The limit of connections is reached.
        Connections = "connections",
        /// The handshake failed or the certificate names no role.
        Denied = "denied",
    }
}

label_enum! {
    /// The way that bytes come from a node.
    Transport {
        /// A QUIC connection.
        Quic = "quic",
        /// The Unix socket of a node on this host.
        Socket = "socket",
        /// A descriptor of a block file of a node on this host.
        Descriptor = "descriptor",
    }
}

label_enum! {
    /// What fails on the socket of a node on this host.
    LocalFailure {
        /// Nobody listens, or does not prove to be the node, or does not let us in.
        Connect = "connect",
        /// The connection broke, or its end spoke nonsense.
        Lost = "lost",
        /// The node did not answer in time.
        Timeout = "timeout",
        /// A page in a block file does not match its checksum.
        Corrupt = "corrupt",
        /// A block file cannot be read.
        Io = "io",
    }
}

label_enum! {
    /// What comes with an answer over the Unix socket.
    LocalAnswer {
        /// A descriptor of the block's file.
        Descriptor = "descriptor",
        /// Bytes.
        Bytes = "bytes",
        /// Nothing: the client asks over QUIC.
        Elsewhere = "elsewhere",
    }
}

label_enum! {
    /// What was asked for; see [`Op`].
    OpLabel {
        /// Bytes, filled if need be.
        Read = "read",
        /// Bytes, if held.
        Peek = "peek",
        /// Where a block is held.
        Probe = "probe",
        /// The node's counters.
        Stats = "stats",
        /// What is at a path.
        Stat = "stat",
        /// A page of a directory.
        List = "list",
        /// A path changed.
        Forget = "forget",
        /// Which paths changed.
        Watch = "watch",
        /// Where the node's socket is.
        Local = "local",
    }
}

impl From<Op> for OpLabel {
    fn from(op: Op) -> Self {
        match op {
            Op::Read => Self::Read,
            Op::Peek => Self::Peek,
            Op::Probe => Self::Probe,
            Op::Stats => Self::Stats,
            Op::Stat => Self::Stat,
            Op::List => Self::List,
            Op::Forget => Self::Forget,
            Op::Watch => Self::Watch,
            Op::Local => Self::Local,
        }
    }
}

label_enum! {
    /// How something ended: `ok` or the kind of failure, see [`ErrorKind`].
    Outcome {
        /// It worked.
        Ok = "ok",
        /// [`ErrorKind::NotFound`]
        NotFound = "not_found",
        /// [`ErrorKind::Invalid`]
        Invalid = "invalid",
        /// [`ErrorKind::Unsupported`]
        Unsupported = "unsupported",
        /// [`ErrorKind::Denied`]
        Denied = "denied",
        /// [`ErrorKind::Stale`]
        Stale = "stale",
        /// [`ErrorKind::Busy`]
        Busy = "busy",
        /// [`ErrorKind::Unavailable`]
        Unavailable = "unavailable",
        /// [`ErrorKind::Timeout`]
        Timeout = "timeout",
        /// [`ErrorKind::Corrupt`]
        Corrupt = "corrupt",
        /// [`ErrorKind::Internal`]
        Internal = "internal",
    }
}

impl From<ErrorKind> for Outcome {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Invalid => Self::Invalid,
            ErrorKind::Unsupported => Self::Unsupported,
            ErrorKind::Denied => Self::Denied,
            ErrorKind::Stale => Self::Stale,
            ErrorKind::Busy => Self::Busy,
            ErrorKind::Unavailable => Self::Unavailable,
            ErrorKind::Timeout => Self::Timeout,
            ErrorKind::Corrupt => Self::Corrupt,
            ErrorKind::Internal => Self::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_component_unit_and_closed_labels() {
        let mut registry = Registry::default();
        let client = ClientMetrics::new(&mut registry, Component::Client);
        let server = ServerMetrics::new(&mut registry);
        client.request_ended(Op::Read, ErrorKind::NotFound.into());
        client.connect_ended(Outcome::Ok);
        server.request_ended(Op::Peek, Outcome::Ok);
        server.reject(RejectReason::Busy);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "millpond_client_peer_requests_total{op=\"read\",outcome=\"not_found\"} 1",
            "millpond_client_peer_connects_total{outcome=\"ok\"} 1",
            "millpond_client_peer_received_bytes_total 0",
            "millpond_client_peer_connections 0",
            "millpond_node_served_requests_total{op=\"peek\",outcome=\"ok\"} 1",
            "millpond_node_rejected_requests_total{reason=\"busy\"} 1",
            "millpond_node_served_in_flight_bytes 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
