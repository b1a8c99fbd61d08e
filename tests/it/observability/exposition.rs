//! The text that Prometheus scrapes, and what `promtool check metrics` finds wrong with such a text.

use std::collections::{BTreeMap, BTreeSet};

/// All metrics, by name.
pub struct Exposition {
    pub families: BTreeMap<String, Family>,
    problems: Vec<String>,
}

/// One metric.
#[derive(Default)]
pub struct Family {
    help: Option<String>,
    kind: String,
    /// Of each sample its name and labels.
    samples: Vec<(String, BTreeMap<String, String>)>,
}

impl Exposition {
    /// Reads the format 0.0.4.
    pub fn parse(text: &str) -> Self {
        let mut exposition = Self { families: BTreeMap::new(), problems: Vec::new() };
        for line in text.lines() {
            if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' ')) {
                let family = exposition.families.entry(name.to_owned()).or_default();
                if family.help.replace(help.to_owned()).is_some() {
                    exposition.problems.push(format!("{name} is described twice"));
                }
            } else if let Some((name, kind)) =
                line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' '))
            {
                exposition.families.entry(name.to_owned()).or_default().kind = kind.to_owned();
            } else if line.starts_with('#') {
                exposition.problems.push(format!("a comment: {line}"));
            } else {
                let (name, labels) = sample(line);
                let parts = ["_bucket", "_sum", "_count"];
                let whole =
                    parts.iter().find_map(|part| exposition.families.get_key_value(name.strip_suffix(part)?));
                let family = whole.map_or(name.clone(), |(family, _)| family.clone());
                exposition.families.entry(family).or_default().samples.push((name, labels));
            }
        }
        exposition
    }

    /// The samples of this name.
    pub fn samples(&self, name: &str) -> Vec<&BTreeMap<String, String>> {
        let all = self.families.values().flat_map(|family| &family.samples);
        all.filter(|(own, _)| own == name).map(|(_, labels)| labels).collect()
    }

    /// What is not as it should be: <https://prometheus.io/docs/practices/naming/>.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.problems.clone();
        for (name, family) in &self.families {
            let mut tell = |problem: &str| problems.push(format!("{name} {problem}"));
            if family.help.as_deref().is_none_or(|help| help.trim_matches(['.', ' ']).is_empty()) {
                tell("has no help");
            }
            if family.samples.is_empty() && !MAY_BE_EMPTY.contains(&name.as_str()) {
                tell("has no sample from the start");
            }
            let words: Vec<&str> = name.split('_').collect();
            match family.kind.as_str() {
                "counter" if !name.ends_with("_total") => tell("is a counter without _total"),
                "gauge" | "histogram" if name.ends_with("_total") => tell("is no counter"),
                "counter" | "gauge" | "histogram" => {}
                kind => tell(&format!("is of kind `{kind}`")),
            }
            if name.chars().any(|c| c.is_uppercase() || c == ':') {
                tell("is not written in lower case");
            }
            if let Some(unit) = OTHER_UNITS.iter().find(|unit| words.contains(unit)) {
                tell(&format!("is not in base units: {unit}"));
            }
            if let Some(kind) =
                ["counter", "gauge", "histogram", "summary"].iter().find(|kind| words.contains(kind))
            {
                tell(&format!("names its kind: {kind}"));
            }
            if family.kind != "histogram"
                && ["_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end))
            {
                tell("looks like a part of a histogram");
            }
            let all: BTreeSet<_> = family.samples.iter().collect();
            if all.len() < family.samples.len() {
                tell("has a sample twice");
            }
        }
        problems
    }
}

/// Until there is something to tell.
const MAY_BE_EMPTY: [&str; 0] = [];

const OTHER_UNITS: [&str; 18] = [
    "ms",
    "milliseconds",
    "microseconds",
    "nanoseconds",
    "minutes",
    "hours",
    "days",
    "weeks",
    "kilobytes",
    "megabytes",
    "gigabytes",
    "kb",
    "mb",
    "gb",
    "bits",
    "percent",
    "fahrenheit",
    "kibibytes",
];

/// The name and the labels of a line such as `name{label="value"} 1`.
fn sample(line: &str) -> (String, BTreeMap<String, String>) {
    let (series, _) = line.rsplit_once(' ').unwrap();
    let Some((name, labels)) = series.split_once('{') else { return (series.to_owned(), BTreeMap::new()) };
    let labels = labels.strip_suffix("\"}").unwrap().split("\",");
    let pair =
        |label: &str| label.split_once("=\"").map(|(label, value)| (label.to_owned(), value.to_owned()));
    (name.to_owned(), labels.map(|label| pair(label).unwrap()).collect())
}
