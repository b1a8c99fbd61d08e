//! The labels of metrics: what stands in the configuration, and fixed words.

use prometheus_client::encoding::EncodeLabelSet;

/// An upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfUpstream {
    pub upstream: String,
}

/// What happened to a source of an upstream, and why.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct UpstreamReason {
    pub upstream: String,
    pub reason: &'static str,
}

/// What was tried at an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct UpstreamOutcome {
    pub upstream: String,
    pub outcome: &'static str,
}

/// A route: its host, if it has one, and its path as configured.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfRoute {
    pub route: String,
}

/// A gap that one client was told, a stream's end, and a stream for which there was no room.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RouteReason {
    pub route: String,
    pub reason: &'static str,
}

/// A request that an application was to answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RouteStatus {
    pub route: String,
    pub status: u16,
}

/// A connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfProtocol {
    pub protocol: &'static str,
}

/// What is told apart by its reason alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfReason {
    pub reason: &'static str,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfResult {
    pub result: &'static str,
}

/// A part of the memory that events may take.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfPart {
    pub part: &'static str,
}

/// What a stream reads on that has to wait for its turn.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfReading {
    pub reads: &'static str,
}

/// What belongs to TLS and may be replaced: a file or a domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfTls {
    pub name: String,
}

/// An attempt to replace it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct TlsOutcome {
    pub name: String,
    pub outcome: &'static str,
}

/// The build.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Version {
    pub version: &'static str,
}
