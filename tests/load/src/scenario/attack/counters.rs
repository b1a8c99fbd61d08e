//! What the attacked server counts itself, by its metrics: it shows that an attack took place, and what it met.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::publish::probe;

/// What a server tells on its admin listener.
pub struct Counters {
    counted: BTreeMap<&'static str, u64>,
    /// Bytes that logs hold.
    pub logs: f64,
}

impl Counters {
    /// As it tells them now.
    ///
    /// # Errors
    /// Where nobody answers.
    pub fn of(admin: SocketAddr) -> anyhow::Result<Self> {
        let text = probe(admin, "/metrics")?;
        let counted = COUNTERS.iter().map(|&(what, name, label)| (what, sum(&text, name, label) as u64));
        Ok(Self { counted: counted.collect(), logs: sum(&text, "ssegate_memory_used_bytes", "") })
    }

    /// What was counted since, where it was anything.
    pub fn since(&self, before: &Self) -> BTreeMap<String, u64> {
        let since = self.counted.iter().map(|(&what, count)| (what.to_owned(), count - before.counted[what]));
        since.filter(|(_, count)| *count > 0).collect()
    }
}

/// Of all series of this name that have this label, in the text format of Prometheus.
fn sum(text: &str, name: &str, label: &str) -> f64 {
    let of_name = text.lines().filter_map(|line| line.strip_prefix(name));
    let series = of_name.filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(label));
    series.filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

/// What is counted, for people; the series, and a label of it.
const COUNTERS: [(&str, &str, &str); 7] = [
    ("accepted", "ssegate_connections_accepted_total", ""),
    ("failed before HTTP", "ssegate_handshakes_failed_total", ""),
    ("no room for connections", "ssegate_connections_shed_total", ""),
    ("accepting waited", "ssegate_accept_pauses_total", ""),
    ("HTTP/2 floods", "ssegate_http2_floods_total", ""),
    ("no room for streams", "ssegate_streams_shed_total", ""),
    ("streams stalled", "ssegate_streams_ended_total", "reason=\"stalled\""),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_by_name_and_label() {
        let text =
            "# TYPE a counter\na_total{reason=\"x\",n=\"1\"} 2\na_total{reason=\"y\"} 5\na_totals 7\nb 1.5\n";
        assert_eq!(sum(text, "a_total", ""), 7.0);
        assert_eq!(sum(text, "a_total", "reason=\"x\""), 2.0);
        assert_eq!(sum(text, "b", ""), 1.5);
    }
}
