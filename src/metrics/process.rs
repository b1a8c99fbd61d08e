//! What the system says of the process, by the names that Prometheus clients of all languages use. Looked up when
//! somebody asks; nothing where there is no `/proc`.

use std::fmt;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// Asks the system.
#[derive(Debug)]
pub(super) struct Process {
    started: f64,
}

impl Process {
    /// A process that starts now.
    pub(super) fn starts() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: now.as_secs_f64() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut put = |name: &str, help: &str, unit: Option<&Unit>, metric: &dyn Shown| {
            metric.show(&mut encoder, name, help, unit)
        };
        let (bytes, seconds) = (Some(&Unit::Bytes), Some(&Unit::Seconds));
        put("start_time", "When the process started, since 1970", seconds, &ConstGauge::new(self.started))?;
        if let Some(limit) = getrlimit(Resource::Nofile).current {
            put("max_fds", "Descriptors that may be open", None, &ConstGauge::new(limit as f64))?;
        }
        if let Some(open) = open_descriptors() {
            put("open_fds", "Descriptors that are open", None, &ConstGauge::new(open as f64))?;
        }
        let Some(stat) = fs::read_to_string("/proc/self/stat").ok().and_then(|stat| Stat::parse(&stat))
        else {
            return Ok(());
        };
        let cpu = stat.ticks as f64 / clock_ticks_per_second() as f64;
        put("cpu", "Processor time, the system's on its behalf included", seconds, &ConstCounter::new(cpu))?;
        put("threads", "Threads", None, &ConstGauge::new(stat.threads as f64))?;
        put("virtual_memory", "Address space", bytes, &ConstGauge::new(stat.virtual_bytes as f64))?;
        let resident = stat.resident_pages as f64 * page_size() as f64;
        put("resident_memory", "Memory in use", bytes, &ConstGauge::new(resident))
    }
}

/// A figure of either kind.
trait Shown {
    fn show(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
    ) -> fmt::Result;
}

impl<M: EncodeMetric> Shown for M {
    fn show(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
    ) -> fmt::Result {
        self.encode(encoder.encode_descriptor(name, help, unit, self.metric_type())?)
    }
}

/// Linux tells the number as the folder's size from 6.2 on; before that each is counted.
fn open_descriptors() -> Option<u64> {
    const OWN: &str = "/proc/self/fd";
    match fs::metadata(OWN).ok()?.len() {
        0 => Some(fs::read_dir(OWN).ok()?.count() as u64),
        open => Some(open),
    }
}

/// Of `/proc/self/stat`, see proc_pid_stat(5).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    ticks: u64,
    threads: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name of the program may hold spaces and parentheses.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Self {
            ticks: number(11)? + number(12)?,
            threads: number(17)?,
            virtual_bytes: number(20)?,
            resident_pages: number(21)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says() {
        let text = "42 (a (b) c) S 1 42 42 0 -1 4194560 100 0 0 0 7 5 0 0 20 0 9 0 12345 1000000 250 18446744073709551615 0";
        let stat = Stat { ticks: 12, threads: 9, virtual_bytes: 1_000_000, resident_pages: 250 };
        assert_eq!(Stat::parse(text), Some(stat));
        assert_eq!(Stat::parse("42 (a"), None);
        assert!(open_descriptors().is_none_or(|open| open > 2));
    }
}
