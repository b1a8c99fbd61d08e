//! What is fuzzed: for each kind of input that ssegate parses a function that takes any bytes, and panics where a promise
//! about them does not hold. What is right is told by models of their own, which share no code with ssegate.
//!
//! `fuzz_targets` hands them to libFuzzer; `main.rs` runs them as plain tests, on the corpora and on what is near to them.

pub mod config;
pub mod decode;
pub mod event_id;
pub mod path;
pub mod proxy_protocol;
pub mod shape;
pub mod sse;
pub mod ticket;

/// A target, under the name that its corpus and its file in `fuzz_targets` have, too.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const ALL: [Target; 8] = [
    ("config", config::check),
    ("event_id", event_id::check),
    ("path", path::check),
    ("proxy_protocol", proxy_protocol::check),
    ("shape", shape::check),
    ("sse", sse::check),
    ("ticket", ticket::check),
    ("decode", decode::check),
];
