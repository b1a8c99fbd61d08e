//! JSON held against another library's reading, and texts that mean harm.

use serde_json::Value;

use super::*;

/// The value as another library has it.
fn value(json: Json<'_>) -> Value {
    match json.kind() {
        Kind::Text => Value::String(json.text().unwrap().into_owned()),
        Kind::List => Value::Array(json.items().map(value).collect()),
        Kind::Map => Value::Object(
            json.members().map(|(name, value_of)| (name.text().unwrap().into(), value(value_of))).collect(),
        ),
        Kind::Null | Kind::Bool | Kind::Number => serde_json::from_str(json.raw()).unwrap(),
    }
}

#[test]
fn what_is_json_is_read_as_by_another_library() {
    for text in [
        "null",
        " true ",
        "-0.5e+7",
        "0",
        r#""a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00""#,
        "[]",
        "{}",
        "[1,[2,{\"a\":[]}],3]",
        " { \"a\" : 1 , \"b\\u0061\" : { \"c\" : [ null , false ] } } ",
        "\"é😀\u{7f}\"",
    ] {
        let document = Document::parse(text).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(value(document.root()), serde_json::from_str::<Value>(text).unwrap(), "{text}");
    }
}

#[test]
fn what_is_not_json_is_refused() {
    for text in [
        "",
        " ",
        "nul",
        "truee",
        "tru",
        "01",
        "-",
        "1.",
        "1e",
        "+1",
        ".5",
        "1 2",
        "\"",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\\u123",
        "\"\n\"",
        "\"\0\"",
        "[",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "{",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "{\"a\":1,}",
        "{a:1}",
        "{1:1}",
        "{\"a\" 1}",
        "[1}",
        "{\"a\":1]",
        "]",
        "}",
        ",",
        "\u{feff}1",
        "NaN",
        "'a'",
        "[1]]",
        "\u{a0}1",
    ] {
        assert!(Document::parse(text).is_none(), "{text}");
        assert!(serde_json::from_str::<Value>(text).is_err(), "{text}");
    }
}

#[test]
fn members_are_found_whatever_their_escapes_and_the_last_counts() {
    let text = r#"{"a":1,"s\u0065cret":2,"a":{"b":[5,{"c":"x"}]},"":3}"#;
    let document = Document::parse(text).unwrap();
    let raw = |path: &[&str]| document.root().at(path.iter().copied()).map(Json::raw);
    assert_eq!(raw(&["secret"]), Some("2"));
    assert_eq!(raw(&["a", "b", "0"]), Some("5"));
    assert_eq!(raw(&["a", "b", "1", "c"]), Some("\"x\""));
    assert_eq!(raw(&[""]), Some("3"));
    for path in [&["x"][..], &["a", "c"], &["a", "b", "2"], &["a", "b", "x"], &["secret", "x"]] {
        assert_eq!(raw(path), None, "{path:?}");
    }
}

#[test]
fn half_a_pair_reads_as_a_replacement() {
    for (text, says) in [
        (r#""\ud800""#, "\u{fffd}"),
        (r#""\udc00x""#, "\u{fffd}x"),
        (r#""\ud800\u0041""#, "\u{fffd}A"),
        (r#""\ud800\ud83d\ude00""#, "\u{fffd}😀"),
        (r#""\ud83d\ude00\u0000""#, "😀\0"),
    ] {
        let document = Document::parse(text).unwrap();
        assert_eq!(document.root().text().unwrap(), says, "{text}");
        assert!(document.root().says(says));
    }
}

#[test]
fn hostile_texts_take_no_stack_and_bounded_memory() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(Document::parse(&nested(DEPTH)).is_some());
    assert!(Document::parse(&nested(DEPTH + 1)).is_none());
    for unit in ["[", "{\"a\":", "[{\"a\":"] {
        assert!(Document::parse(&unit.repeat(100_000)).is_none());
    }
    let many = format!("[{}0]", "0,".repeat(MOST));
    assert!(Document::parse(&many).is_none());
    let number = "9".repeat(10 << 20);
    assert_eq!(Document::parse(&number).unwrap().root().raw().len(), number.len());
}
