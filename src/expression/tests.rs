//! Expressions held against the crate that has all of CEL, and what is refused.

use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::{Value as Plain, json};

use super::*;

struct Known;

impl Names for Known {
    fn variable(&self, name: &str) -> Result<usize, String> {
        let known = ["event", "v"].iter().position(|known| *known == name);
        known.ok_or_else(|| format!("nothing is called `{name}`"))
    }

    fn param(&self, name: &str) -> Result<(), String> {
        (name == "room").then_some(()).ok_or_else(|| format!("no parameter `{name}`"))
    }
}

fn compile(text: &str) -> Expression {
    Expression::compile(text, &Known).unwrap_or_else(|flaws| panic!("{text}: {flaws:?}"))
}

/// What an expression makes of a payload, as JSON.
fn made(expression: &Expression, payload: &str) -> Result<String, Fault> {
    let document = Document::parse(payload).unwrap();
    let variables = [Value::Json(document.root()), Value::Int(7)];
    let mut out = Vec::new();
    let value = expression.evaluate(&variables, &mut Work::for_payload(payload.len()))?;
    write(&value, &mut out, 1 << 16)?;
    Ok(String::from_utf8(out).unwrap())
}

fn says(text: &str, payload: &str) -> Result<String, Fault> {
    made(&compile(text), payload)
}

#[test]
fn what_is_sent_on_unchanged_keeps_every_digit() {
    let payload = r#"{ "id": 12345678901234567890123, "price": 1.10, "text": "\u00e9\ud800", "on": { "b" : [ 1e2 ] } }"#;
    let map = "{'id': event.id, 'of': {'price': event.price, 'text': event.text}, 'on': event.on, 'all': [event.on.b[0]]}";
    assert_eq!(
        says(map, payload).unwrap(),
        r#"{"id":12345678901234567890123,"of":{"price":1.10,"text":"\u00e9\ud800"},"on":{ "b" : [ 1e2 ] },"all":[1e2]}"#,
    );
}

#[test]
fn whole_numbers_and_others_are_taken_together() {
    let payload = r#"{"price": 9.5, "count": 2, "big": 9223372036854775807}"#;
    for (text, expected) in [
        ("event.price * event.count", "19.0"),
        ("event.count / event.price > 0.2", "true"),
        ("event.count - 1", "1"),
        ("event.count == 2.0 && event.price < 10", "true"),
        ("event.big - 1", "9223372036854775806"),
        ("7 / 2", "3"),
    ] {
        assert_eq!(says(text, payload).as_deref(), Ok(expected), "{text}");
    }
    assert_eq!(says("event.big + 1", payload), Err(Fault::Overflow));
    assert_eq!(says("event.count / 0", payload), Err(Fault::Zero));
    assert_eq!(says("event.price / 0", payload), Err(Fault::NoNumber));
    assert_eq!(says("event.price % 2", payload), Err(Fault::Type));
}

#[test]
fn what_a_mapping_holds_stays_in_order() {
    let map = "{'z': 1, 'a': [event.x, null, true], 'm': {'k\\\"': 'é'}}";
    assert_eq!(says(map, r#"{"x":"y"}"#).unwrap(), r#"{"z":1,"a":["y",null,true],"m":{"k\"":"é"}}"#);
    assert_eq!(says("{'a': 1, string(event.x): 2}", r#"{"x":"a"}"#), Err(Fault::Twice));
    assert_eq!(says("{event.x: 2}", r#"{"x":1}"#), Err(Fault::Type));
}

#[test]
fn parameters_are_bound_and_tell_expressions_apart() {
    let expression = compile("event.room == params.room && has(params.room)");
    assert_eq!(expression.params().iter().map(|name| &**name).collect::<Vec<_>>(), ["room"]);
    let bound = |room: &str| expression.bind(|name| (name == "room").then(|| room.to_owned()));
    assert_eq!(made(&bound("a"), r#"{"room":"a"}"#).unwrap(), "true");
    assert_eq!(made(&bound("b"), r#"{"room":"a"}"#).unwrap(), "false");
    assert_ne!(bound("a"), bound("b"));
    assert_eq!(
        bound("a"),
        compile("event.room == params.room && has(params.room)").bind(|_| Some("a".into()))
    );
    assert!(!expression.reads(1) && expression.reads(0));
}

#[test]
fn flaws_have_a_place_and_a_way_out() {
    for (text, at, what) in [
        ("event.a ==", 10..10, "this is not an expression in CEL"),
        ("'é' == evnt.a", 8..12, "nothing is called `evnt`"),
        ("event.a.foo(1) || bar(2)", 8..11, "there is no function `foo` here; there are size(x)"),
        ("size(1, 2) == 1", 0..4, "`size` is not called so; there are size(x)"),
        ("contains(event.a, 'b')", 0..8, "`contains` is not called so"),
        ("event.a.matches(event.b)", 21..22, "a pattern must be written out"),
        ("event.a.matches('[')", 16..19, "this is not a regular expression"),
        ("event.a == 1u", 11..13, "unsigned numbers are not supported; leave out the `u`"),
        ("event.a == b'x'", 11..15, "bytes are not supported"),
        ("{1: 2}", 1..2, "the names of a mapping are texts"),
        ("A{b: 1}", 1..2, "messages of a type cannot be made here"),
        ("params.x == 'a'", 7..8, "no parameter `x`"),
        ("params == 'a'", 0..6, "name one parameter of the path"),
        ("params['room'] == 'a'", 0..6, "name one parameter of the path"),
    ] {
        let flaws = Expression::compile(text, &Known).err().unwrap_or_else(|| panic!("{text}"));
        assert!(flaws[0].what.starts_with(what), "{text}: {flaws:?}");
        assert_eq!(flaws[0].at, at, "{text}: {flaws:?}");
    }
    let all = Expression::compile("a && foo(b) && 1u == 2", &Known).unwrap_err();
    assert_eq!(all.iter().map(|flaw| flaw.at.start).collect::<Vec<_>>(), [0, 5, 9, 15], "{all:?}");
    assert!(Expression::compile(&format!("'{}'", "a".repeat(LONGEST)), &Known).is_err());
}

/// On a thread that has no more stack than those which read configurations and records.
#[test]
fn the_longest_and_deepest_expressions_take_little_stack() {
    let check = || {
        let chain = |unit: &str| format!("1{}", unit.repeat((LONGEST - 1) / unit.len()));
        let nested =
            |open: &str, close: &str, depth| format!("{}1{}", open.repeat(depth), close.repeat(depth));
        for text in [
            chain("+1"),
            chain("||1"),
            format!("event{}", ".a".repeat(2_000)),
            format!("event{}", "[0]".repeat(1_300)),
            nested("(", ")", 2_000),
            nested("[", "]", 2_000),
            nested("!", "", 4_000),
            nested("-", "", 4_000),
            nested("size(", ")", 600),
            nested("true?1:", "", 500),
            nested("[1].map(x,", ")", 300),
            nested("{'a':", "}", 600),
            nested("(", ")", 20),
            nested("[", "]", 40),
            format!("1{}", "+1".repeat(90)),
        ] {
            if let Ok(expression) = Expression::compile(&text, &Known) {
                let _ = made(&expression, "{}");
            }
        }
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(check).unwrap().join().unwrap();
}

#[test]
fn macros_on_hostile_lists_end() {
    let list = |length: usize| format!(r#"{{"l":[{}0],"t":"{}"}}"#, "0,".repeat(length), "x".repeat(length));
    let within = "event.l.all(a, event.l.all(b, event.l.all(c, a == b && b == c)))";
    assert_eq!(says(within, &list(100_000)), Err(Fault::Work));
    assert_eq!(says("event.l.map(a, event.t + event.t).size()", &list(100_000)), Err(Fault::Work));
    assert_eq!(says("event.l.all(a, event.l == event.l)", &list(100_000)), Err(Fault::Work));
    assert_eq!(says("event.l.exists(a, event.t.contains('y'))", &list(100_000)), Err(Fault::Work));
    assert_eq!(says("event.l.map(a, event)", &list(2_000)), Err(Fault::TooLarge));
    assert_eq!(says("event.l.exists(a, a > 0 || a < 0)", &list(1_000_000)).as_deref(), Ok("false"));
}

/// JSON as the other crate has it, whole numbers of one type.
fn theirs(json: &Plain) -> cel::Value {
    match json {
        Plain::Null => cel::Value::Null,
        Plain::Bool(truth) => cel::Value::Bool(*truth),
        Plain::Number(number) => match number.as_i64() {
            Some(whole) => cel::Value::Int(whole),
            None => cel::Value::Float(number.as_f64().unwrap()),
        },
        Plain::String(text) => text.clone().into(),
        Plain::Array(items) => items.iter().map(theirs).collect::<Vec<_>>().into(),
        Plain::Object(members) => members
            .iter()
            .map(|(name, value)| (name.clone(), theirs(value)))
            .collect::<HashMap<_, _>>()
            .into(),
    }
}

/// And back; nothing where a number is none of JSON's.
fn plain(value: &cel::Value) -> Option<Plain> {
    Some(match value {
        cel::Value::Null => Plain::Null,
        cel::Value::Bool(truth) => json!(truth),
        cel::Value::Int(whole) => json!(whole),
        cel::Value::Float(double) => Plain::Number(serde_json::Number::from_f64(*double)?),
        cel::Value::String(text) => json!(**text),
        cel::Value::List(items) => Plain::Array(items.iter().map(plain).collect::<Option<_>>()?),
        cel::Value::Map(map) => {
            let member = |(key, value): (&cel::objects::Key, &cel::Value)| match key {
                cel::objects::Key::String(name) => Some(((**name).clone(), plain(value)?)),
                _ => None,
            };
            Plain::Object(map.map.iter().map(member).collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

/// A mapping of more than one name has no order there, so that none is made a list of.
fn leaf() -> impl Strategy<Value = String> {
    const WORDS: &[&str] = &[
        "null",
        "true",
        "false",
        "0",
        "1",
        "2",
        "-1",
        "9223372036854775807",
        "0.0",
        "1.5",
        "2.0",
        "1e308",
        "''",
        "'a'",
        "'é'",
        "'2'",
        "'1.5'",
        "[]",
        "{}",
        "event.n",
        "event.d",
        "event.t",
        "event.b",
        "event.l",
        "event.m",
        "event.z",
        "event.m.n",
        "event.missing",
        "event.l[0]",
        "v",
        "v",
    ];
    prop::sample::select(WORDS).prop_map(str::to_owned)
}

fn text() -> impl Strategy<Value = String> {
    leaf().prop_recursive(4, 24, 3, |inner| {
        let one = inner.clone();
        let two = (inner.clone(), inner.clone());
        let three = (inner.clone(), inner.clone(), inner);
        const UNARY: &[&str] = &[
            "!(@)",
            "-(@)",
            "(@).n",
            "has((@).n)",
            "size(@)",
            "(@).size()",
            "string(@)",
            "int(@)",
            "double(@)",
            "bool(@)",
            "(@).matches('^a|2')",
            "[@]",
            "{'n': @}",
        ];
        const BINARY: &[&str] = &[
            "(@ + #)",
            "(@ - #)",
            "(@ * #)",
            "(@ / #)",
            "(@ % #)",
            "(@ == #)",
            "(@ != #)",
            "(@ < #)",
            "(@ <= #)",
            "(@ > #)",
            "(@ >= #)",
            "(@ in #)",
            "(@ && #)",
            "(@ || #)",
            "(@)[#]",
            "(@).contains(#)",
            "(@).startsWith(#)",
            "(@).endsWith(#)",
            "[@, #]",
            "{'n': @, 'm': #}.m",
            "({'n': @, 'm': #} == {'m': #, 'n': @})",
            "({'n': 1, string(@): #} == {'n': #, 'a': #})",
            "(@).all(v, #)",
            "(@).exists(v, #)",
            "(@).exists_one(v, #)",
            "event.l.map(v, #)",
            "event.l.filter(v, #)",
            "[@, 1].map(v, #)",
            "event.m.exists(v, #)",
        ];
        const TERNARY: &[&str] =
            &["(@ ? # : $)", "event.l.map(v, #, $)", "(@ && # || $)", "[@, #, $].filter(v, v == #)"];
        prop_oneof![
            (prop::sample::select(UNARY), one).prop_map(|(form, one)| form.replace('@', &one)),
            (prop::sample::select(BINARY), two)
                .prop_map(|(form, (one, other))| form.replace('#', &other).replace('@', &one)),
            (prop::sample::select(TERNARY), three).prop_map(|(form, (one, other, third))| {
                form.replace('$', &third).replace('#', &other).replace('@', &one)
            }),
        ]
    })
}

/// Payloads that expressions of these tests say something of.
pub(super) fn payload() -> impl Strategy<Value = Plain> {
    let scalar = || {
        prop_oneof![
            Just(Plain::Null),
            any::<bool>().prop_map(|truth| json!(truth)),
            (-2_i64..4).prop_map(|whole| json!(whole)),
            prop::sample::select(&[0.0, 1.5, -2.5, 2.0, 1e300][..]).prop_map(|double| json!(double)),
            prop::sample::select(&["", "a", "2", "é\"\n", "n"][..]).prop_map(|text| json!(text)),
        ]
    };
    let list = || prop::collection::vec(scalar(), 0..4);
    (scalar(), scalar(), scalar(), list(), scalar()).prop_map(|(n, d, t, l, inner)| {
        json!({ "n": n, "d": d, "t": t, "b": true, "l": l, "m": { "n": inner }, "z": null })
    })
}

#[test]
fn mappings_are_the_same_by_the_last_of_each_name() {
    let same = |payload: &str| made(&compile("event.a == event.b"), payload).unwrap();
    assert_eq!(same(r#"{"a": {"x": 1, "x": 1}, "b": {"x": 1, "y": 2}}"#), "false");
    assert_eq!(same(r#"{"a": {"x": 1, "y": 2}, "b": {"x": 1, "x": 1}}"#), "false");
    assert_eq!(same(r#"{"a": {"x": 2, "x": 1}, "b": {"x": 1}}"#), "true");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn values_are_those_of_the_crate_that_has_all_of_cel(text in text(), payload in payload()) {
        let ours = made(&compile(&text), &payload.to_string());
        let mut context = cel::Context::default();
        context.add_variable_from_value("event", theirs(&payload));
        context.add_variable_from_value("v", 7_i64);
        let theirs = cel::Program::compile(&text).unwrap().execute(&context);
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => {
                let ours: Plain = serde_json::from_str(&ours).unwrap();
                prop_assert_eq!(Some(ours), plain(&theirs), "{}", text);
            }
            (Err(_), Err(_)) => {}
            (Err(Fault::NoNumber), Ok(theirs)) => prop_assert_eq!(plain(&theirs), None, "{}", text),
            // Numbers of both sorts, which we take together.
            (_, Err(cel::ExecutionError::UnsupportedBinaryOperator(_, one, other)))
                if matches!(one, cel::Value::Int(_) | cel::Value::Float(_))
                    && matches!(other, cel::Value::Int(_) | cel::Value::Float(_)) => {}
            (ours, theirs) => prop_assert!(false, "{text} on {payload}: {ours:?}, not {theirs:?}"),
        }
    }
}
