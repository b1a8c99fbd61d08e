//! What is bound to an exchange: which messages a feed of RabbitMQ is to be given.

use std::sync::Arc;

/// An exchange, and by what a queue is bound to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Binding {
    /// The exchange.
    pub exchange: Arc<str>,
    /// The routing key, or a pattern of such; empty where there is none.
    pub routing_key: Arc<str>,
    /// Headers and what they are to be.
    pub arguments: Arc<[(Arc<str>, Arc<str>)]>,
    /// As operators know it.
    name: Arc<str>,
}

impl Binding {
    /// Of these.
    pub fn new(exchange: Arc<str>, routing_key: Arc<str>, arguments: Arc<[(Arc<str>, Arc<str>)]>) -> Self {
        let headers = arguments.iter().map(|(name, value)| format!(" {name}={value}"));
        let name = format!("{exchange} {routing_key}{}", headers.collect::<String>());
        let name = name.trim_end().into();
        Self { exchange, routing_key, arguments, name }
    }

    /// As operators know it.
    pub fn name(&self) -> &str {
        &self.name
    }
}
