//! What shaping a record costs, and asking for a client whether it is for that one, measured, for BENCHMARKS.md:
//! `cargo test --release --lib -- --ignored --nocapture shape::costs`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{ClientFilter, Fact, Member, Record, Shape, Shaped, Wrap};
use crate::config::{Brought, Variable};
use crate::expression::{Expression, Names};

/// 304 bytes.
const PAYLOAD: &str = r#"{"id":"ord-20260101-000042","kind":"order.created","customer":{"id":88123,"name":"Ada Lovelace","email":"ada@example.com","country":"GB"},"items":[{"sku":"A-1","price":19.90,"count":2},{"sku":"B-7","price":5.25,"count":1}],"price":45.05,"count":3,"total":135.15,"currency":"EUR","test":false,"note":null}"#;

struct Order;

impl Record for Order {
    fn payload(&self) -> Option<&[u8]> {
        Some(PAYLOAD.as_bytes())
    }

    fn name(&self) -> &str {
        "orders"
    }
}

/// The nanoseconds of one record: the best of many short runs, of which some meet nobody else on the processor.
fn cost(shape: &Shape) -> u128 {
    const RECORDS: u32 = 1_000;
    let mut out = Vec::with_capacity(1 << 20);
    let mut best = Duration::MAX;
    for _ in 0..500 {
        out.clear();
        let begun = Instant::now();
        for _ in 0..RECORDS {
            assert_eq!(black_box(shape).encode(black_box(&Order), &String::new, &mut out).0, Shaped::Event);
        }
        best = best.min(begun.elapsed());
    }
    (best / RECORDS).as_nanos()
}

#[test]
#[ignore = "a measurement, of an optimized build"]
fn shaping_costs() {
    const FILTER: &str = "filter: event.total > 100 && event.kind == 'order.created' && !event.test";
    const MAP: &str = "data: { map: \"{'id': event.id, 'customer': event.customer.name, 'sum': event.price * event.count, 'currency': event.currency}\" }";
    let filtered = |keys: &str| super::tests::of_route(&format!("{FILTER}, {keys}"));
    let wrapped = |wrap| Shape { wrap: Some(wrap), ..Shape::default() };
    let both = cost(&filtered(MAP));
    println!("a payload of {} bytes, nanoseconds a record", PAYLOAD.len());
    println!("{:>6}  as it is", cost(&Shape::default()));
    println!("{:>6}  filter", cost(&filtered("keepalive: 1s")));
    println!("{both:>6}  filter and map");
    println!("{:>6}  filter and keep", cost(&filtered("data: { keep: [id, total, customer.name] }")));
    println!("{:>6}  envelope", cost(&wrapped(Wrap::Envelope("topic"))));
    println!("{:>6}  cloudevents", cost(&wrapped(Wrap::CloudEvent("bus".into()))));
    assert!(cfg!(debug_assertions) || both <= 1_500, "filter and map are to take 1.5 µs at most");
}

/// What filters of clients speak of.
struct Known;

impl Names for Known {
    fn variable(&self, name: &str) -> Result<usize, String> {
        let known = Variable::NAMES.iter().find(|(known, _)| *known == name);
        known.map(|(_, variable)| *variable as usize).ok_or_else(|| name.to_owned())
    }

    fn param(&self, name: &str) -> Result<(), String> {
        Err(name.to_owned())
    }

    fn mapping(&self, name: &str) -> Option<usize> {
        Brought::NAMES.iter().find(|(known, _)| *known == name).map(|(_, brought)| *brought as usize)
    }
}

#[test]
#[ignore = "a measurement, of an optimized build"]
fn asking_for_a_client_costs() {
    const QUESTIONS: u32 = 10_000;
    let brought = json!({
        "currency": "EUR",
        "countries": ["FR", "DE", "US", "IT", "NL", "ES", "SE", "GB"],
        "prefix": "order.",
        "min": "100",
        "none": "",
    });
    println!("nanoseconds a question, and what is estimated");
    for filter in [
        "event.currency == query.currency",
        "event.customer.country in claims.countries",
        "claims.countries.exists(country, country == event.customer.country)",
        "event.kind.startsWith(query.prefix)",
        "query.min == '' || event.total > double(query.min)",
        "event.kind.startsWith('order.') && (query.none == '' || event.kind == query.none) && event.count <= int(query.min)",
    ] {
        let filter = Expression::compile(filter, &Known).unwrap();
        let of_client = |member: &Member| brought.get(&*member.name).map(Fact::from);
        let bound = ClientFilter::bind(&filter, of_client).unwrap().expect("not all is for it");
        let cost = filter.plan().unwrap().cost;
        let shape = Shape { filter: Some(filter.clone()), ..Shape::default() };
        let (_, _, facts) = shape.encode(&Order, &String::new, &mut Vec::new());
        let mut best = Duration::MAX;
        for _ in 0..500 {
            let begun = Instant::now();
            for _ in 0..QUESTIONS {
                assert_eq!(black_box(&*bound).passes(black_box(&facts), &mut 0), Ok(true));
            }
            best = best.min(begun.elapsed());
        }
        let best = best.as_nanos() / u128::from(QUESTIONS);
        println!("{best:>6} {cost:>6}  {}", filter.shown());
    }
}
