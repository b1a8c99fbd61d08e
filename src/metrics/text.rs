//! The two text formats. Prometheus asks for OpenMetrics; curl, `promtool check metrics` and older scrapers get
//! the format that was there before it.

use std::collections::HashSet;

/// A format of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    Open,
    /// Prometheus's own, 0.0.4.
    Classic,
}

impl Format {
    /// What an `accept` header asks for.
    pub fn asked(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::Open } else { Self::Classic }
    }

    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Open => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// What is in OpenMetrics, in this format.
    pub(super) fn of(self, open: String) -> String {
        match self {
            Self::Open => open,
            Self::Classic => classic(&open),
        }
    }
}

/// A counter's name ends in `_total` here, where it is described as well; units and the end are not marked.
fn classic(open: &str) -> String {
    let counters: HashSet<&str> = open.lines().filter_map(counter).collect();
    let mut text = String::with_capacity(open.len());
    for line in open.lines().filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF") {
        let described = ["# HELP ", "# TYPE "].into_iter().find(|start| line.starts_with(start));
        match described.and_then(|start| Some((start, line[start.len()..].split_once(' ')?))) {
            Some((start, (name, rest))) => {
                let total = if counters.contains(name) { "_total" } else { "" };
                text.extend([start, name, total, " ", rest, "\n"]);
            }
            None => text.extend([line, "\n"]),
        }
    }
    text
}

/// The name of the counter that this line begins, if it does.
fn counter(line: &str) -> Option<&str> {
    line.strip_prefix("# TYPE ")?.strip_suffix(" counter")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: &str = "\
# HELP a_sent_bytes Sent.
# TYPE a_sent_bytes counter
# UNIT a_sent_bytes bytes
a_sent_bytes_total{route=\"/x y\"} 5
# HELP a_up Up.
# TYPE a_up gauge
a_up 1
# EOF
";

    const CLASSIC: &str = "\
# HELP a_sent_bytes_total Sent.
# TYPE a_sent_bytes_total counter
a_sent_bytes_total{route=\"/x y\"} 5
# HELP a_up Up.
# TYPE a_up gauge
a_up 1
";

    #[test]
    fn who_asks_for_nothing_gets_the_older_format() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.4,*/*;q=0.3";
        assert_eq!(Format::asked(prometheus).of(OPEN.to_owned()), OPEN);
        for accept in ["", "*/*", "text/plain"] {
            assert_eq!(Format::asked(accept).of(OPEN.to_owned()), CLASSIC, "{accept}");
        }
    }
}
