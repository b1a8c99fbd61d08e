//! Integration tests: the real binary over real sockets, against a real Redis, a real Kafka and real browsers.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod admin;
mod browsers;
mod command_line;
mod compress;
mod contract;
mod cors;
mod demo;
mod direct;
mod drain;
mod hostile;
mod kafka;
mod kafka_security;
mod keyed;
mod limits;
mod made_anew;
mod proof;
mod redis;
mod redis_cluster;
mod redis_cluster_streams;
mod redis_sentinel;
mod redis_streams;
mod redis_tls;
mod replay;
mod restarts;
mod resume;
mod routes;
mod stalled;
mod support;
