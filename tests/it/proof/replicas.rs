//! The replicas of ssegate, each on a port of its own that it keeps when it is killed and started again.

use std::time::SystemTime;

use serde_json::Value;

use crate::support::ports;
use crate::support::ssegate::Ssegate;
use crate::support::tls::TestCa;
use crate::support::wait::eventually;

/// All replicas.
pub struct Replicas {
    all: Vec<Replica>,
}

struct Replica {
    port: u16,
    config: String,
    running: Option<Ssegate>,
    /// What its processes said that were killed.
    said: Vec<Vec<Value>>,
}

impl Replicas {
    /// Starts one for each configuration, which has no `server:`.
    pub async fn start(configs: impl IntoIterator<Item = String>) -> Self {
        let mut all = Vec::new();
        for config in configs {
            let (port, leaf) = (ports::free(), TestCa::shared().leaf());
            let tls = format!("cert: \"{}\", key: \"{}\"", leaf.cert.display(), leaf.key.display());
            let config = format!("{config}server: {{ listen: \"127.0.0.1:{port}\", tls: {{ {tls} }} }}\n");
            let running = Some(Ssegate::start(&config).await);
            all.push(Replica { port, config, running, said: Vec::new() });
        }
        Self { all }
    }

    /// The first part of their URLs.
    pub fn urls(&self) -> Vec<String> {
        self.all.iter().map(|replica| format!("https://localhost:{}", replica.port)).collect()
    }

    /// SIGKILL.
    pub fn kill(&mut self, at: usize) {
        let replica = &mut self.all[at];
        replica.said.extend(replica.running.take().map(|ssegate| ssegate.log()));
    }

    /// Starts it again.
    pub async fn restart(&mut self, at: usize) {
        let replica = &mut self.all[at];
        replica.running = Some(Ssegate::start(&replica.config).await);
    }

    /// Waits until each replica has said since `since` that something is wrong with its upstream, in words with `text`.
    pub async fn until_told(&self, text: &str, since: SystemTime) {
        for ssegate in self.all.iter().filter_map(|replica| replica.running.as_ref()) {
            eventually(&format!("a replica to say: {text}"), async || {
                let status = ssegate.status().await;
                let error = &status["upstreams"][0]["last_error"];
                let at = error["at"].as_str().and_then(|at| humantime::parse_rfc3339(at).ok());
                let told = error["error"].as_str().is_some_and(|error| error.contains(text));
                if told && at >= Some(since) { Ok(()) } else { Err(error.to_string()) }
            })
            .await;
        }
    }

    /// What each process said, by replica.
    pub fn logs(&self) -> Vec<Vec<Vec<Value>>> {
        let of = |replica: &Replica| {
            replica.said.iter().cloned().chain(replica.running.as_ref().map(Ssegate::log)).collect()
        };
        self.all.iter().map(of).collect()
    }
}
