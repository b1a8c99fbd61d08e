//! Expressions held against the crate that has all of CEL, and what is refused.

use std::cmp::Ordering;
use std::collections::HashMap;

use num_bigint::BigInt;
use proptest::prelude::*;
use serde_json::{Value as Plain, json};

use super::*;

struct Known;

impl Names for Known {
    fn variable(&self, name: &str) -> Result<usize, String> {
        variable(name)
    }

    fn param(&self, name: &str) -> Result<(), String> {
        (name == "room").then_some(()).ok_or_else(|| format!("no parameter `{name}`"))
    }
}

/// Which of a record's variables is called so.
pub(super) fn variable(name: &str) -> Result<usize, String> {
    let known = ["event", "v"].iter().position(|known| *known == name);
    known.ok_or_else(|| format!("nothing is called `{name}`"))
}

/// What they are of a record with this payload.
pub(super) fn variables<'d>(document: &'d Document<'d>) -> [Value<'d>; 2] {
    [Value::Json(document.root()), Value::Int(7)]
}

fn compile(text: &str) -> Expression {
    Expression::compile(text, &Known).unwrap_or_else(|flaws| panic!("{text}: {flaws:?}"))
}

/// What an expression makes of a payload, as JSON.
fn made(expression: &Expression, payload: &str) -> Result<String, Fault> {
    let document = Document::parse(payload).unwrap();
    let variables = variables(&document);
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
    assert_eq!(says("[1] + {'a': 1}", payload), Err(Fault::Type));
    assert_eq!(says("event.count / 0", payload), Err(Fault::Zero));
    assert_eq!(says("event.price / 0", payload), Err(Fault::NoNumber));
    assert_eq!(says("event.price % 2", payload), Err(Fault::Type));
}

#[test]
fn whole_numbers_have_64_bits_and_keep_all_of_their_digits() {
    let payload = r#"{"id": 18446744073709551615, "other": 18446744073709551614, "signed": 9223372036854775807,
        "odd": 9007199254740993, "most": 1e400, "ids": [18446744073709551614]}"#;
    for (text, expected) in [
        ("event.id == event.other", "false"),
        ("event.id == 18446744073709551615u && event.other != 18446744073709551615u", "true"),
        ("event.id in event.ids || event.other in event.ids", "true"),
        ("event.id in event.ids", "false"),
        ("event.signed < event.other && event.other < event.id && event.id > -1", "true"),
        ("event.odd == 9007199254740992.0 || event.signed == 9223372036854775808.0", "false"),
        ("event.id < 18446744073709551616.0 && event.odd > 9007199254740992.5", "true"),
        ("event.id < event.most && event.id > -event.most", "true"),
        ("string(event.id)", "\"18446744073709551615\""),
        ("event.id - 1", "18446744073709551614"),
        ("event.id - event.other", "1"),
        ("event.signed - event.id", "-9223372036854775808"),
        ("[event.id, 1u + 1]", "[18446744073709551615,2]"),
    ] {
        assert_eq!(says(text, payload).as_deref(), Ok(expected), "{text}");
    }
    assert_eq!(says("int(event.id)", payload), Err(Fault::Overflow));
    assert_eq!(says("event.id + 1", payload), Err(Fault::Overflow));
    assert_eq!(says("event.other - event.id", payload), Err(Fault::Overflow));
    assert_eq!(says("event.ids[event.id]", payload), Err(Fault::Absent));
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
    let all = Expression::compile("a && foo(b) && b'' == 2", &Known).unwrap_err();
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

/// All of these were once evaluated to their end, whatever they took.
#[test]
fn whatever_is_made_or_looked_at_is_charged() {
    let payload = |length: usize, rest: &str| format!(r#"{{"l":[{}0],{rest}}}"#, "0,".repeat(length - 1));
    let lists = payload(400, r#""t":0"#);
    let text = payload(2_000, &format!(r#""t":"{}""#, "x".repeat(2_000)));
    let escapes = payload(2_000, &format!(r#""t":"{}""#, "\\u0041".repeat(2_000)));
    let names = payload(500, &format!(r#""m":{{{}"z":0}}"#, "\"\\u0061\":0,".repeat(20_000)));
    let digits = payload(2_000, &format!(r#""n":1{0},"t":"{0}1""#, "0".repeat(40_000)));
    for (expression, payload) in [
        ("event.l.map(a, event.l.map(b, b)).size()", &lists),
        ("event.l.map(a, [a, a, a, a].map(b, [b, b, b, b, b, b, b, b, b, b])).size()", &text),
        ("[event.t + event.t].map(t, event.l.map(a, t)).size()", &text),
        ("event.l.all(a, string(event.t) != '')", &escapes),
        ("event.l.exists(a, has(event.m.zz))", &names),
        ("event.l.exists(a, 'zz' in event.m)", &names),
        ("event.l.exists(a, event.n == 1)", &digits),
        ("event.l.all(a, int(event.t) == 1)", &digits),
    ] {
        assert_eq!(says(expression, payload), Err(Fault::Work), "{expression}");
    }
    let few = payload(100, r#""o":{"n":7},"t":"\u00e9""#);
    let join = "event.l.map(a, event.l.filter(b, event.o.n == 7 && event.t != '')[0]).size()";
    assert_eq!(says(join, &few).as_deref(), Ok("100"));
}

/// JSON as the other crate has it, whole numbers of one type as far as they have room.
fn theirs(json: &Plain) -> cel::Value {
    match json {
        Plain::Null => cel::Value::Null,
        Plain::Bool(truth) => cel::Value::Bool(*truth),
        Plain::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => cel::Value::Int(whole),
            (None, Some(whole)) => cel::Value::UInt(whole),
            _ => cel::Value::Float(number.as_f64().unwrap()),
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
        cel::Value::UInt(whole) => json!(whole),
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

fn is_number(value: &cel::Value) -> bool {
    matches!(value, cel::Value::Int(_) | cel::Value::UInt(_) | cel::Value::Float(_))
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
        "event.u",
        "18446744073709551615u",
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
    let large = prop::sample::select(&[u64::MAX, u64::MAX - 1, 1 << 63, (1 << 63) + 1][..]);
    (scalar(), scalar(), scalar(), list(), scalar(), large).prop_map(|(n, d, t, l, inner, u)| {
        json!({ "n": n, "d": d, "t": t, "b": true, "l": l, "m": { "n": inner }, "z": null, "u": u })
    })
}

/// Leaves that no double is.
const LARGE: [&str; 3] = ["9223372036854775807", "18446744073709551615u", "event.u"];

/// A whole number of 64 bits, and a double that is near or not.
fn near() -> impl Strategy<Value = (i128, f64)> {
    let whole = prop_oneof![
        any::<i64>().prop_map(i128::from),
        any::<u64>().prop_map(i128::from),
        (-4_i128..=4).prop_map(|off| (1 << 53) + off),
        (-4_i128..=4).prop_map(|off| (1 << 63) + off),
        (-4_i128..=0).prop_map(|off| i128::from(u64::MAX) + off),
        (0_i128..=4).prop_map(|off| i128::from(i64::MIN) + off),
    ];
    let any = any::<f64>().prop_filter("a number of JSON", |any| any.is_finite());
    let off = prop_oneof![Just(0.0), -2.0..2.0, any];
    (whole, off).prop_map(|(whole, off)| (whole, whole as f64 + off))
}

/// A double with every digit that it has, as so many of the smallest parts.
fn exact(double: f64) -> BigInt {
    format!("{double:.PARTS$}").replace('.', "").parse().unwrap()
}

/// Digits behind the point of the double that has the most.
const PARTS: usize = 1_074;

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
        // It takes whole numbers for doubles where it compares them with one.
        prop_assume!(!text.contains("double(") || !LARGE.iter().any(|large| text.contains(large)));
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
            // It adds mappings to lists, for which CEL has no operator.
            (Err(Fault::Type), Ok(_)) if text.contains(" + ") => {}
            (Err(Fault::NoNumber), Ok(theirs)) => prop_assert_eq!(plain(&theirs), None, "{}", text),
            // Numbers of both sorts, which we take together.
            (_, Err(cel::ExecutionError::UnsupportedBinaryOperator(_, one, other)))
                if is_number(&one) && is_number(&other) => {}
            (ours, theirs) => prop_assert!(false, "{text} on {payload}: {ours:?}, not {theirs:?}"),
        }
    }

    #[test]
    fn numbers_compare_by_every_digit((whole, double) in near()) {
        let whole_parts = BigInt::from(whole) * BigInt::from(10).pow(PARTS as u32);
        let expected = match whole_parts.cmp(&exact(double)) {
            Ordering::Less => "[true,false,false]",
            Ordering::Equal => "[false,true,false]",
            Ordering::Greater => "[false,false,true]",
        };
        let payload = format!(r#"{{"whole": {whole}, "double": {double:?}}}"#);
        let compared = "[event.whole < event.double, event.whole == event.double, event.double < event.whole]";
        prop_assert_eq!(says(compared, &payload), Ok(expected.to_owned()), "{}", payload);
    }
}
