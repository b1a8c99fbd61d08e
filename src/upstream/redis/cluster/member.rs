//! What one connection of a cluster is for, and what it carries.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::hub::{Feeds, Source};
use crate::upstream::redis::slots::Node;
use crate::upstream::redis::streams::{self, Carried};
use crate::upstream::redis::subscriptions::Subscriptions;

/// What a connection is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub node: Node,
    pub purpose: Purpose,
}

/// Of one node it is for these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    /// Channels, patterns and shard channels.
    Messages,
    /// The streams of one slot, which it waits for.
    Slot(u16),
    /// The streams of all slots that have no connection of their own.
    Slots,
}

impl Place {
    /// Where a node's messages are.
    pub fn messages(node: Node) -> Self {
        Self { node, purpose: Purpose::Messages }
    }
}

/// A connection.
pub(super) struct Member {
    pub table: Table,
    pub task: AbortHandle,
    pub began: Instant,
    pub settled: bool,
}

/// What a connection carries.
pub(super) enum Table {
    Messages(Arc<Subscriptions>),
    Streams(Arc<streams::Table>),
}

impl Table {
    /// Makes `feeds` what it carries. `carried` are streams that others had.
    pub fn assign(&self, feeds: Feeds, carried: &mut Carried) {
        match self {
            Self::Messages(table) => table.assign(feeds),
            Self::Streams(table) => table.assign(feeds, carried),
        }
    }

    /// Takes away what another is to carry. Messages are lost as of when it was `decided` that they be here; streams
    /// are carried along.
    pub fn withdraw_all_but(
        &self,
        keep: impl Fn(&Source) -> bool,
        decided: SystemTime,
        carried: &mut Carried,
    ) {
        match self {
            Self::Messages(table) => table.withdraw_all_but(keep, decided),
            Self::Streams(table) => table.withdraw_all_but(keep, carried),
        }
    }

    /// The connection has ended. Of streams nothing is lost: their logs say where to read on.
    pub fn lose_all(&self) {
        if let Self::Messages(table) = self {
            table.lose_all(None);
        }
    }
}
