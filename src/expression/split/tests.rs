//! Whatever is done once for a record or a client: what comes of it is what the whole expression comes to.

use proptest::prelude::*;
use serde_json::{Value as Plain, json};

use super::super::compile::Program;
use super::super::eval::{Given, evaluate};
use super::super::show::show;
use super::super::tests::{payload, variable, variables};
use super::super::{Document, Expression, Fact, Fault, Known, LONGEST, Member, Names, Plan, Work};

struct Named;

impl Names for Named {
    fn variable(&self, name: &str) -> Result<usize, String> {
        variable(name)
    }

    fn param(&self, _name: &str) -> Result<(), String> {
        Ok(())
    }

    fn mapping(&self, name: &str) -> Option<usize> {
        ["query", "claims"].iter().position(|known| *known == name)
    }

    fn member(&self, _mapping: usize, name: &str) -> Result<(), String> {
        if name == "ticket" { Err("`ticket` is taken".to_owned()) } else { Ok(()) }
    }
}

fn compile(text: &str) -> Expression {
    let compiled = Expression::compile(text, &Named).unwrap_or_else(|flaws| panic!("{text}: {flaws:?}"));
    compiled.bind(|_| Some("a".to_owned()))
}

/// What a client brings.
#[derive(Debug, Clone)]
struct Client {
    query: Plain,
    claims: Plain,
}

impl Client {
    fn brings(&self, member: &Member) -> Option<Fact> {
        [&self.query, &self.claims][member.mapping].get(&*member.name).map(Fact::from)
    }
}

/// What an expression comes to in one piece.
fn in_one_piece(text: &str, payload: &str, client: &Client) -> Result<bool, Fault> {
    let program = Program::whole(text, &Named).unwrap_or_else(|flaws| panic!("{text}: {flaws:?}"));
    let document = Document::parse(payload).unwrap();
    let params: Vec<_> = program.params.iter().map(|_| "a".into()).collect();
    let client: Vec<_> = program.client.iter().map(|member| client.brings(member)).collect();
    let variables = variables(&document);
    let given = Given { params: &params, variables: &variables, client: &client, ..Given::default() };
    evaluate(&program.root, given, &mut Work::for_payload(payload.len()))?.truth()
}

/// What is kept of a record, and whether the rest of the expression lets it pass.
fn once(expression: &Expression, payload: &str) -> (Result<bool, Fault>, Vec<Known>) {
    let (document, mut work) = (Document::parse(payload).unwrap(), Work::for_payload(payload.len()));
    let variables = variables(&document);
    (expression.holds(&variables, &mut work), expression.facts(&variables, &mut work))
}

/// The same as [`in_one_piece`], as it is done.
fn in_parts(expression: &Expression, payload: &str, client: &Client) -> Result<bool, Fault> {
    let ((first, facts), (terms, outcomes)) =
        (once(expression, payload), expression.terms(|member| client.brings(member)));
    let rest = expression.holds_for(&facts, &terms, &mut Work::for_client());
    assert!(!outcomes.always_holds() || rest == Ok(true), "{expression:?}: {rest:?}");
    assert!(!outcomes.always_fails() || rest != Ok(true), "{expression:?}");
    match (first, rest) {
        (Ok(false), _) | (_, Ok(false)) => Ok(false),
        (first, rest) => first.and(rest),
    }
}

fn plan(text: &str) -> (String, Vec<String>, String) {
    let Plan { once, each, .. } = compile(text).plan().expect("it names what clients bring");
    let (once, facts) = once.unwrap();
    (once, facts, each.unwrap())
}

#[test]
fn what_needs_one_of_the_two_is_done_once() {
    for (text, once, facts, terms) in [
        ("event.symbol == query.symbol", "true", &["event.symbol"][..], 1),
        ("event.n > 1 && event.s == query.s && has(event.x)", "event.n > 1 && has(event.x)", &["event.s"], 1),
        (
            "query.min == '' || event.price * event.count > double(query.min) + 1",
            "true",
            &["event.price * event.count"],
            2,
        ),
        ("event.region in claims.regions || claims.admin", "true", &["event.region"], 2),
        ("claims.admin && !has(query.none)", "true", &[], 1),
        (
            "claims.groups.exists(g, g == event.of && event.l.all(x, x > 0))",
            "true",
            &["event.of", "event.l"],
            1,
        ),
        ("event.tags.exists(t, t in claims.tags)", "true", &["event.tags"], 1),
        ("event.l.all(x, x > 0) || query.a == 'b'", "true", &["event.l.all(x, x > 0)"], 1),
        ("event[query.field] == params.room + query.a", "true", &["event"], 2),
        ("event.a == query.a || event.a == claims['a b']", "true", &["event.a"], 2),
    ] {
        let (shown, kept, each) = plan(text);
        assert_eq!((&*shown, kept.iter().map(|fact| &**fact).collect::<Vec<_>>()), (once, facts.to_vec()));
        let expression = compile(text);
        let (found, _) = expression.terms(|_| None);
        assert_eq!(found.len(), terms, "{text}");
        compile(&each);
    }
    assert_eq!(plan("event.a == query.a && event.b > 1").2, "event.a == query.a");
    assert_eq!(compile("event.a == 1").plan(), None);
    assert_eq!(compile("event.a == query.a").shown_as("${SECRET}").plan().unwrap().each, None);
}

#[test]
fn members_are_named_in_any_way_and_by_nothing_else() {
    let named = |text: &str| {
        let expression = compile(text);
        let name = |member: &Member| format!("{}/{}", member.of, member.name);
        expression.client().iter().map(name).collect::<Vec<_>>().join(" ")
    };
    let text = "has(query.a) || query['b c'] == claims.d.e || 'f' in claims || [1].exists(query, query == 1)";
    assert_eq!(named(text), "query/a query/b c claims/d claims/f");
    for (text, at, what) in [
        ("query == 1", 0..5, "nothing is called `query`"),
        ("query[event.a] == 1", 0..5, "nothing is called `query`"),
        ("event.a in claims", 11..17, "nothing is called `claims`"),
        ("claims.exists(c, c == 'a')", 0..6, "nothing is called `claims`"),
        ("query.ticket == 'a'", 6..12, "`ticket` is taken"),
        ("query['ticket'] == 'a'", 6..14, "`ticket` is taken"),
    ] {
        let flaws = Expression::compile(text, &Named).err().unwrap_or_else(|| panic!("{text}"));
        assert_eq!((flaws[0].at.clone(), &*flaws[0].what), (at, what), "{text}");
    }
}

#[test]
fn what_a_client_brings_may_decide_by_itself() {
    let outcomes = |text: &str, query: Plain| {
        let client = Client { query, claims: json!({ "admin": true, "regions": ["eu"] }) };
        let outcomes = compile(text).terms(|member| client.brings(member)).1;
        (outcomes.always_holds(), outcomes.always_fails())
    };
    let (holds, fails, open) = ((true, false), (false, true), (false, false));
    let price = "!has(query.min) || event.price > double(query.min)";
    for (text, query, expected) in [
        (price, json!({}), holds),
        (price, json!({ "min": "1.5" }), open),
        (price, json!({ "min": "much" }), fails),
        ("event.s == query.s", json!({}), fails),
        ("event.s == query.s && event.n > 0", json!({}), fails),
        ("event.s == query.s || event.n > 0", json!({}), open),
        ("claims.admin || event.a == query.a", json!({}), holds),
        ("!claims.admin && event.a == query.a", json!({}), open),
        ("claims.admin ? event.a == 1 : query.a", json!({}), open),
        ("query.a ? event.a == 1 : true", json!({ "a": "x" }), fails),
        ("event.region in claims.regions", json!({}), open),
        ("size(query.a) > event.a[query.none]", json!({ "a": "x" }), fails),
        ("query.a", json!({ "a": "x" }), fails),
        ("query.a == 'y'", json!({ "a": "x" }), open),
    ] {
        assert_eq!(outcomes(text, query), expected, "{text}");
    }
}

#[test]
fn hostile_values_end() {
    let list = format!("[{}0]", "0,".repeat(2_000));
    let payload = format!(r#"{{"l":{list},"t":"{}"}}"#, "x".repeat(100_000));
    let client = Client { query: json!({ "a": "y".repeat(4_000) }), claims: json!({}) };
    let comes_to = |text: &str| in_parts(&compile(text), &payload, &client);
    let within = "event.l.all(a, event.l.all(b, event.l.all(c, string(a) + query.a != '' && b == c)))";
    assert_eq!(comes_to(within), Err(Fault::Work));
    assert_eq!(comes_to("event.l.exists(a, query.a.contains(string(a)))"), Err(Fault::Work));
    assert_eq!(comes_to("event.t == query.a"), Err(Fault::TooLarge), "no more than so much is kept");
    let (list, filter) = (vec![1; 10_000], compile("query.a in event.l || event.s == query.b"));
    let facts = once(&filter, &json!({ "l": list, "s": "x" }).to_string()).1;
    assert_eq!(
        facts,
        [Err(Fault::TooLarge), Ok(Fact::text("x"))],
        "what does not fit takes nothing from the others"
    );
    assert_eq!(comes_to("event.t.contains('y') || query.a == ''"), Ok(false), "but of what is done at once");
    let deep = format!("{}event.a == query.a{}", "(true && ".repeat(90), ")".repeat(90));
    if let Ok(expression) = Expression::compile(&deep, &Named) {
        _ = in_parts(&expression, "{}", &client);
    }
}

fn leaf() -> impl Strategy<Value = String> {
    const WORDS: &[&str] = &[
        "null",
        "true",
        "false",
        "1",
        "2.0",
        "'a'",
        "'2'",
        "[1, 'a']",
        "event.n",
        "event.d",
        "event.t",
        "event.b",
        "event.l",
        "event.m",
        "event.m.n",
        "event.missing",
        "event.l[0]",
        "event",
        "params.room",
        "query.a",
        "query.b",
        "query.none",
        "has(query.a)",
        "has(query.none)",
        "claims.n",
        "claims.t",
        "claims.b",
        "claims.l",
        "claims.m",
        "claims.m.n",
        "claims['z']",
        "('none' in claims)",
        "v",
        "v",
    ];
    prop::sample::select(WORDS).prop_map(str::to_owned)
}

fn text() -> impl Strategy<Value = String> {
    leaf().prop_recursive(5, 32, 3, |inner| {
        const FORMS: &[&str] = &[
            "!(@)",
            "-(@)",
            "(@).n",
            "has((@).n)",
            "size(@)",
            "string(@)",
            "double(@)",
            "(@).matches('^a|2')",
            "{'n': @, 'k': #}",
            "(@ + #)",
            "(@ - #)",
            "(@ == #)",
            "(@ != #)",
            "(@ < #)",
            "(@ >= #)",
            "(@ in #)",
            "(@ && #)",
            "(@ && #)",
            "(@ || #)",
            "(@ || #)",
            "(@)[#]",
            "(@).contains(#)",
            "(@).all(v, #)",
            "(@).exists(v, #)",
            "(@).exists_one(v, #)",
            "(@).map(v, #)",
            "(@).filter(v, #)",
            "(@).exists(w, # == w && (#).exists(v, v == w))",
            "(@ ? # : $)",
            "(@ == # || $)",
            "(@ == # && $)",
        ];
        (prop::sample::select(FORMS), inner.clone(), inner.clone(), inner).prop_map(
            |(form, one, other, third)| form.replace('$', &third).replace('#', &other).replace('@', &one),
        )
    })
}

fn client() -> impl Strategy<Value = Client> {
    let value = || prop::sample::select(&["", "a", "2", "1.5", "é'\""][..]);
    (prop::option::of(value()), value(), payload()).prop_map(|(a, b, claims)| {
        let mut query = json!({ "b": b });
        if let Some(a) = a {
            query["a"] = json!(a);
        }
        Client { query, claims }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn the_parts_come_to_what_the_whole_does(
        (one, other) in (text(), text()),
        payload in payload(),
        client in client(),
    ) {
        let payload = payload.to_string();
        for text in [one.clone(), format!("{one} == {other}"), format!("event.b && ({one}) && !({other})")] {
            if text.len() > LONGEST {
                continue;
            }
            let whole = in_one_piece(&text, &payload, &client).map_err(drop);
            let parts = in_parts(&compile(&text), &payload, &client).map_err(drop);
            prop_assert_eq!(parts, whole, "{}", text);
        }
    }

    #[test]
    fn what_is_shown_says_the_same(text in text(), payload in payload(), client in client()) {
        let payload = payload.to_string();
        let program = Program::whole(&text, &Named).unwrap();
        let shown = show(&program.root, &program);
        let comes_to = |text: &str| in_one_piece(text, &payload, &client).map_err(drop);
        prop_assert_eq!(comes_to(&shown), comes_to(&text), "{} and {}", text, shown);
    }
}
