//! ssegate: an edge proxy that turns Redis, Kafka, NATS, MQTT, RabbitMQ, Postgres, HTTP and files into Server-Sent Events over TLS.
//!
//! The data path, which is also a reading order:
//!
//! ```text
//! config ──► app ──► upstream ──► shape ──► hub ──► http ──► TLS, TCP
//!                    records      events    logs    streams
//! ```
//!
//! - [`config`] turns a YAML file into types that cannot be wrong, or into a list of all that is wrong.
//! - [`app`] wires everything from these types, anew when they change, and takes it down again.
//! - [`upstream`] keeps a link to each source of records and hands its records over.
//! - [`schema`] makes JSON of payloads that are something else.
//! - [`expression`] evaluates filters and projections, which are written in CEL.
//! - [`shape`] makes an event of a record, and [`sse`] the bytes of an event, once for all clients.
//! - [`compress`] packs what many clients are sent, once for all of them.
//! - [`hub`] is the heart: a log for each feed, and cursors that read it.
//! - [`history`] reads what only the upstream still holds, once for all cursors that stand before their log.
//! - [`auth`] decides who may listen; [`fetch`] asks others for it.
//! - [`http`] terminates TLS, routes, and serves each cursor as a stream; [`tls`] has certificates and keys, and [`watch`]
//!   tells when their files change.
//! - [`admin`], [`metrics`] and [`traces`] show operators how it goes; [`cli`] is the command line.
//!
//! `sse` ← `shape` ← `hub` ← `history` ← `upstream`, and `hub` ← `http`: dependencies point one way, and a test keeps it so. What must
//! always be true is listed in `ARCHITECTURE.md`.

pub mod admin;
pub mod app;
pub mod auth;
pub mod cli;
pub mod compress;
pub mod config;
pub mod expression;
pub mod fetch;
pub mod history;
pub mod http;
pub mod hub;
pub mod metrics;
pub mod schema;
pub mod shape;
pub mod sse;
pub mod tls;
pub mod traces;
pub mod upstream;
pub mod watch;
