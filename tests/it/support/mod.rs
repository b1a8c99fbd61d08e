//! The rig: everything outside ssegate that the integration tests need, real wherever it can be.
//!
//! Reading order: [`ssegate`] runs the product, [`command`] its other commands, [`eventsource`] and [`recorder`] read its streams,
//! [`redis`], [`kafka`], [`postgres`], [`rabbitmq`], [`nats`] and [`mqtt`] feed it, [`writer`] writes what others write, a
//! [`registry`] knows its schema, [`proxy`] cuts links, [`balancer`] stands before replicas, [`frames`] attacks while a
//! [`witness`] looks on, [`browser`] opens real browsers on the page that [`collector`] serves, [`devtools`] drives one,
//! [`acme`] certifies it, `client.mjs` reads with the client module, [`app`] is what routes with `proxy` lead to, [`origin`]
//! stands for issuers and endpoints that decide, [`sse_server`] sends events of its own, [`otlp`] collects traces,
//! [`token`] signs. Below them: [`tls`], [`http`],
//! [`decoder`], [`sse_parser`], [`serve`], and what keeps a run clean:
//! [`child`] (no process outlives the tests), [`scratch`] (no file does), [`ports`], [`wait`].
//!
//! Nothing in here uses the product's own code, so that a mistake cannot hide on both sides.

// Each test file uses a part of this; what no test uses yet is no defect.
#![allow(dead_code)]

pub mod acme;
pub mod app;
pub mod balancer;
pub mod browser;
pub mod child;
pub mod collector;
pub mod command;
pub mod decoder;
pub mod devtools;
pub mod eventsource;
pub mod frames;
pub mod http;
pub mod kafka;
pub mod mqtt;
pub mod nats;
pub mod origin;
pub mod otlp;
pub mod ports;
pub mod postgres;
pub mod proxy;
pub mod rabbitmq;
pub mod recorder;
pub mod redis;
pub mod registry;
pub mod scratch;
pub mod serve;
pub mod sse_parser;
pub mod sse_server;
pub mod ssegate;
pub mod tls;
pub mod token;
pub mod wait;
pub mod witness;
pub mod writer;
