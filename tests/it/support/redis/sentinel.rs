//! A real Redis Sentinel that watches one master under the name `main`.

use std::fs;

use tempfile::TempDir;

use super::super::child::{self, Child};
use super::super::wait::{DEADLINE, eventually};
use super::super::{ports, scratch};
use super::command;

/// A running sentinel, alone and so a majority by itself.
pub struct Sentinel {
    port: u16,
    _process: Child,
    _dir: TempDir,
}

impl Sentinel {
    /// Starts one that watches the server at this port of 127.0.0.1. It takes `patience` milliseconds of silence for
    /// a failure.
    pub async fn start(master: u16, patience: u64) -> Self {
        let (dir, port) = (scratch::dir("sentinel"), ports::free());
        let config = dir.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {master} 1\n\
             sentinel down-after-milliseconds main {patience}\nsentinel failover-timeout main 5000\n",
            dir.path().display()
        );
        fs::write(&config, text).expect("write the sentinel's configuration");
        let mut command = child::command("redis-server");
        command.arg(&config).arg("--sentinel").arg("--logfile").arg(dir.path().join("sentinel.log"));
        let sentinel = Self { port, _process: Child::spawn(command), _dir: dir };
        sentinel.until("to answer", |master| master.is_ok()).await;
        sentinel
    }

    /// Where it listens, for the configuration.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its port on 127.0.0.1, for a [`super::super::proxy::Proxy`].
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Any command, its words parted by blanks.
    pub async fn say(&self, words: &str) -> redis::RedisResult<redis::Value> {
        // The crate's own default, half a second, is too short on a loaded machine.
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(DEADLINE))
            .set_response_timeout(Some(DEADLINE));
        let client = redis::Client::open(self.url())?;
        let mut link = client.get_multiplexed_async_connection_with_config(&config).await?;
        command(words).query_async(&mut link).await
    }

    /// Waits until it knows a replica that is fit to become master.
    pub async fn until_a_replica_is_known(&self) {
        eventually("the sentinel to know a sound replica", async || {
            let text = format!("{:?}", self.say("SENTINEL REPLICAS main").await);
            let sound = text.contains("slave-priority") && text.contains("'ok'") || text.contains("\"ok\"");
            sound.then_some(()).ok_or(text)
        })
        .await;
    }

    /// Waits until it names the server at this port as master.
    pub async fn until_master_is(&self, port: u16) {
        self.until("to name the new master", |master| master.as_ref().is_ok_and(|known| *known == port))
            .await;
    }

    async fn until(&self, what: &str, enough: impl Fn(&redis::RedisResult<u16>) -> bool) {
        eventually(&format!("the sentinel {what}"), async || {
            let answer = self.say("SENTINEL GET-MASTER-ADDR-BY-NAME main").await;
            let port = answer.and_then(|answer| Ok(redis::from_redis_value::<(String, u16)>(answer)?.1));
            if enough(&port) { Ok(()) } else { Err(format!("{port:?}")) }
        })
        .await;
    }
}
