//! What a PromQL expression names: metrics, what their labels are to be, and labels that it groups by. No more of the
//! language is understood.

use std::collections::BTreeSet;

use regex::Regex;

use super::exposition::Exposition;

/// An expression taken apart.
pub struct Expression {
    /// Each metric, with the matchers that follow it.
    pub metrics: Vec<(String, Vec<Matcher>)>,
    /// What it groups or joins by.
    by: BTreeSet<String>,
    aggregates: bool,
    /// Whether it is about what Prometheus makes of a scrape by itself.
    of_scrape: bool,
}

/// Label, operator, value.
type Matcher = (String, String, String);

impl Expression {
    pub fn parse(text: &str) -> Self {
        let metric = Regex::new(r"\b((?:ssegate|process)_[a-z0-9_]+)(?:\{([^}]*)\})?").unwrap();
        let matcher = Regex::new(r#"([a-z_]+)\s*(=~|!~|!=|=)\s*"([^"]*)""#).unwrap();
        let groups = Regex::new(r"\b(by|on)\s*\(([^)]*)\)").unwrap();
        let matchers = |text: &str| {
            matcher
                .captures_iter(text)
                .map(|found| (found[1].into(), found[2].into(), found[3].into()))
                .collect()
        };
        let metrics = metric.captures_iter(text).map(|found| {
            (found[1].to_owned(), matchers(found.get(2).map_or("", |matchers| matchers.as_str())))
        });
        let by = groups
            .captures_iter(text)
            .flat_map(|found| found[2].split(',').map(|label| label.trim().to_owned()).collect::<Vec<_>>());
        let aggregates = Regex::new(r"\b(sum|min|max|count)\b\s*(by|\()").unwrap().is_match(text);
        let of_scrape = text.starts_with("up{");
        Self { metrics: metrics.collect(), by: by.collect(), aggregates, of_scrape }
    }

    /// What of it, or of the labels that `shown` has in double braces, is not exported.
    pub fn problems<'e>(
        &'e self,
        shown: &str,
        exposition: &'e Exposition,
    ) -> impl Iterator<Item = String> + use<'e> {
        let braces = Regex::new(r"\{\{\s*([a-z_]+)\s*\}\}").unwrap();
        let shown: BTreeSet<_> = braces.captures_iter(shown).map(|found| found[1].to_owned()).collect();
        let mut problems: Vec<String> = Vec::new();
        for (name, matchers) in &self.metrics {
            let samples = exposition.samples(name);
            if samples.is_empty() {
                problems.push(format!("there is no {name}"));
                continue;
            }
            let has = |label: &str| {
                TARGETS.contains(&label) || samples.iter().all(|labels| labels.contains_key(label))
            };
            let shown = shown.iter().filter(|_| !self.aggregates);
            let labels = matchers.iter().map(|(label, ..)| label).chain(&self.by).chain(shown);
            problems.extend(
                labels.filter(|label| !has(label)).map(|label| format!("{name} has no label {label}")),
            );
            for (label, operator, value) in matchers {
                if TARGETS.contains(&label.as_str()) || value.contains('$') || operator.starts_with('!') {
                    continue;
                }
                let there = |value: &str| {
                    samples.iter().any(|labels| labels.get(label).is_some_and(|own| own == value))
                };
                let missing = value.split('|').filter(|value| !there(value));
                problems
                    .extend(missing.map(|value| format!("{name} has no {label}=\"{value}\" from the start")));
            }
        }
        if self.metrics.is_empty() && !self.of_scrape {
            problems.push("it names no metric".to_owned());
        }
        let known = |label: &&String| TARGETS.contains(&label.as_str()) || self.by.contains(*label);
        if self.aggregates {
            problems.extend(
                shown
                    .iter()
                    .filter(|label| !known(label))
                    .map(|label| format!("it shows {label}, and drops it")),
            );
        }
        problems.into_iter()
    }
}

/// What Prometheus adds by itself.
const TARGETS: [&str; 2] = ["job", "instance"];
