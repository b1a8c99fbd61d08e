//! How busy this machine is: something true to say on Redis channels.

use std::fs;
use std::time::Duration;

use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use super::orders::now;

/// Publishes on `metrics.cpu` and `metrics.memory`, by turns and for as long as it runs.
pub(super) async fn publish(mut redis: MultiplexedConnection) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut processors = Processors::default();
    for number in 1_u64.. {
        for metric in ["cpu", "memory"] {
            ticks.tick().await;
            let percent = if metric == "cpu" { processors.busy() } else { memory_used() };
            let message = json!({
                "number": number,
                "metric": metric,
                "percent": percent.map(|percent| (percent * 10.0).round() / 10.0),
                "time": now(),
            });
            let published: redis::RedisResult<()> =
                redis.publish(format!("metrics.{metric}"), message.to_string()).await;
            if let Err(error) = published {
                tracing::debug!(%error, "a metric of the demo was not published");
            }
        }
    }
}

/// The processors' times at the last look.
#[derive(Default)]
struct Processors {
    idle: u64,
    total: u64,
}

impl Processors {
    /// Per cent of the time since the last look; `None` where the system does not tell.
    fn busy(&mut self) -> Option<f64> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let (idle, total) = processor_times(&stat)?;
        let (idle_since, since) = (idle.saturating_sub(self.idle), total.saturating_sub(self.total));
        *self = Self { idle, total };
        (since > 0).then(|| 100.0 - 100.0 * idle_since as f64 / since as f64)
    }
}

/// Idle and total time of all processors, from the first line of `/proc/stat` (proc_stat(5)).
fn processor_times(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let times: Vec<u64> = line.split_whitespace().map_while(|time| time.parse().ok()).take(8).collect();
    Some((times.get(3)? + times.get(4)?, times.iter().sum()))
}

/// Per cent of the memory that is not available; `None` where the system does not tell.
fn memory_used() -> Option<f64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let value = |name: &str| -> Option<f64> {
        let line = info.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Some(100.0 - 100.0 * value("MemAvailable:")? / value("MemTotal:")?)
}

/// Between two messages.
const EVERY: Duration = Duration::from_millis(750);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_own_figures_are_read() {
        assert_eq!(processor_times("cpu  10 0 5 70 10 1 2 2 9 9\ncpu0 1\n"), Some((80, 100)));
        assert_eq!(processor_times("intr 1\n"), None);
        assert!(memory_used().is_none_or(|percent| (0.0..=100.0).contains(&percent)));
    }
}
