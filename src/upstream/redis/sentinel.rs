//! Sentinels: who is the master? Asked before connecting, and again as often as the link is tried.
//!
//! Asked, not listened to: a `+switch-master` that is published while the link to a sentinel is down is gone, while a
//! question that fails is known to have failed. All sentinels are asked, and the answer of the latest election counts,
//! so that one that is cut off from the others misleads nobody. The master itself is asked for its ROLE with each
//! ping, which tells a demotion that no sentinel ordered.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use redis::{FromRedisValue as _, cmd};
use tokio::time::timeout;

use super::Redis;
use super::connection::Dialer;
use super::subscriptions::Subscriptions;
use crate::config::Endpoint;
use crate::upstream::Broken;
use crate::upstream::link::Link;

/// How long the answers of other sentinels are waited for once there is one.
const OTHERS: Duration = Duration::from_millis(250);

/// One link to the master of now.
pub(super) async fn session(
    redis: &Redis,
    dialer: &Dialer,
    master: &Endpoint,
    sentinels: &[Endpoint],
    link: &Arc<Link>,
) -> Broken {
    let asked = SystemTime::now();
    let elected = match ask_all(dialer, &master.host, sentinels).await {
        Ok(elected) => elected,
        Err(broken) => return broken,
    };
    let table = Subscriptions::new(link);
    let mut agreed = asked;
    let endpoint = master.at(&elected.host, elected.port);
    let subscriber = redis.subscriber(dialer, endpoint, true);
    let broken = tokio::select! {
        broken = subscriber.run_when_wanted(&table, link) => broken,
        broken = table.follow_wanted() => broken,
        broken = redis.streams.session(dialer, &subscriber.endpoint, link) => broken,
        broken = watch(redis, dialer, master, sentinels, &elected, &mut agreed, link) => broken,
    };
    // A master that was cut off from its sentinels answers pings, and is told nothing.
    table.lose_all(Some(agreed));
    broken
}

/// Returns when the sentinels have come to name another master. `agreed` is when they last named this one.
async fn watch(
    redis: &Redis,
    dialer: &Dialer,
    master: &Endpoint,
    sentinels: &[Endpoint],
    elected: &Elected,
    agreed: &mut SystemTime,
    link: &Link,
) -> Broken {
    loop {
        tokio::time::sleep(redis.ping_interval()).await;
        let asked = SystemTime::now();
        match ask_all(dialer, &master.host, sentinels).await {
            Ok(now) if (&now.host, now.port) == (&elected.host, elected.port) => *agreed = asked,
            Ok(now) if now.epoch >= elected.epoch => {
                let (old, new) = (master.at(&elected.host, elected.port), master.at(&now.host, now.port));
                return Broken(format!(
                    "Redis at {} is no longer the master, {} is",
                    old.address(),
                    new.address()
                ));
            }
            // Of an earlier election.
            Ok(_) => {}
            Err(broken) => link.trouble(&broken.to_string()),
        }
    }
}

/// What a sentinel says.
struct Elected {
    host: String,
    port: u16,
    /// Grows with each election.
    epoch: u64,
}

async fn ask_all(dialer: &Dialer, name: &str, sentinels: &[Endpoint]) -> Result<Elected, Broken> {
    let mut asked: FuturesUnordered<_> =
        sentinels.iter().map(|sentinel| ask(dialer, name, sentinel)).collect();
    let mut best: Result<Elected, Broken> = Err(Broken("there are no sentinels".to_owned()));
    loop {
        // One that is silent may be on the machine that has just died along with the master.
        let patience = if best.is_ok() { OTHERS } else { Duration::MAX };
        let Ok(Some(answer)) = timeout(patience, asked.next()).await else { return best };
        best = match (best, answer) {
            (Ok(best), Ok(other)) if other.epoch > best.epoch => Ok(other),
            (Ok(best), _) => Ok(best),
            (Err(_), answer) => answer,
        };
    }
}

async fn ask(dialer: &Dialer, name: &str, sentinel: &Endpoint) -> Result<Elected, Broken> {
    let question = cmd("SENTINEL").arg("MASTER").arg(name).take();
    let answer = dialer.ask(sentinel, question).await;
    let answer = answer.map_err(|broken| Broken::new("asking a sentinel failed", broken))?;
    let mut fields = HashMap::<String, String>::from_redis_value(answer).unwrap_or_default();
    let number = |field: &str| fields.get(field)?.parse::<u64>().ok();
    let (port, epoch) = (number("port"), number("config-epoch"));
    match (fields.remove("ip"), port.and_then(|port| port.try_into().ok()), epoch) {
        (Some(host), Some(port), Some(epoch)) => Ok(Elected { host, port, epoch }),
        _ => Err(Broken(format!("the sentinel at {} gives no address for {name}", sentinel.address()))),
    }
}
