//! How long the ids of several feeds become where they stand in one. `hub` writes them, and holds what it writes against this;
//! here a configuration is measured by it before it is served.

/// The most bytes of an id of several feeds: what servers and proxies take of a header field for sure, in which clients bring it
/// back.
pub const LONGEST: usize = 4096;

/// What every such id begins with.
pub const PREFIX: &str = "m1";

/// Bytes of what names one of the feeds within.
pub const TAG: usize = 12;

/// The most bytes of the id of feeds whose own ids have at most so many. Each takes its own length where it has none but
/// letters, digits, `-`, `_` and `.`. Other text may take three times as much; of an id that is one of several feeds itself each
/// of these takes two bytes more.
pub fn longest(parts: impl Iterator<Item = usize>) -> usize {
    PREFIX.len() + parts.map(|own| 1 + TAG + own).sum::<usize>()
}
