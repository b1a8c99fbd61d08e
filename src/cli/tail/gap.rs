//! A `stream.gap` in words.

use serde_json::Value;

use crate::cli::text::plain;

/// What the data of a gap says: "gap: 120 events missing (trimmed), 10..130".
pub(super) fn words(data: &str) -> String {
    let Ok(gap) = serde_json::from_str::<Value>(data) else { return plain(&format!("gap: {data}")) };
    let missing = match gap["missed"].as_u64() {
        Some(1) => "1 event missing".to_owned(),
        Some(missed) => format!("{missed} events missing"),
        None => "events missing".to_owned(),
    };
    let reason = gap["reason"].as_str().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let range = range(&gap["from"], &gap["to"]).map(|range| format!(", {range}")).unwrap_or_default();
    let span = match (gap["since"].as_str(), gap["until"].as_str()) {
        (Some(since), Some(until)) => format!(", published between {since} and {until}"),
        _ => String::new(),
    };
    plain(&format!("gap: {missing}{reason}{range}{span}"))
}

/// Half-open; of several partitions, those that miss something.
fn range(from: &Value, to: &Value) -> Option<String> {
    match (from, to) {
        (Value::Null, _) | (_, Value::Null) => None,
        (Value::Object(from), Value::Object(to)) => {
            let each = from.iter().map(|(partition, from)| {
                let to = to.get(partition).unwrap_or(&Value::Null);
                format!("partition {partition} {}..{}", show(from), show(to))
            });
            Some(each.collect::<Vec<_>>().join(", ")).filter(|each| !each.is_empty())
        }
        _ => Some(format!("{}..{}", show(from), show(to))),
    }
}

fn show(bound: &Value) -> String {
    match bound {
        Value::String(text) => text.clone(),
        Value::Null => "…".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_words() {
        for (data, expected) in [
            (
                r#"{"reason":"trimmed","missed":120,"from":10,"to":130}"#,
                "gap: 120 events missing (trimmed), 10..130",
            ),
            (
                r#"{"reason":"too_large","missed":1,"from":"1-0","to":"2-0"}"#,
                "gap: 1 event missing (too_large), 1-0..2-0",
            ),
            (
                r#"{"reason":"replay_limit","missed":7,"from":{"0":1,"4":2},"to":{"0":5,"4":5}}"#,
                "gap: 7 events missing (replay_limit), partition 0 1..5, partition 4 2..5",
            ),
            (
                r#"{"reason":"upstream_lost","missed":null,"from":null,"to":null,"since":"A","until":"B"}"#,
                "gap: events missing (upstream_lost), published between A and B",
            ),
            ("{}", "gap: events missing"),
            ("\u{1b}[2J", "gap: \\u{1b}[2J"),
        ] {
            assert_eq!(words(data), expected);
        }
    }
}
