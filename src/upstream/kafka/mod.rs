//! scaffold
use super::link::Link;
use super::{Broken, Upstream};
use crate::config;
use std::sync::Arc;
pub(super) struct Kafka;
impl Kafka {
    pub(super) fn new(_c: &config::Kafka) -> Arc<Self> {
        Arc::new(Self)
    }
}
impl Upstream for Kafka {
    const LOSSY: bool = false;
    async fn session(self: Arc<Self>, _link: Arc<Link>) -> Broken {
        std::future::pending().await
    }
}
