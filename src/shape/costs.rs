//! What shaping a record costs, measured, for BENCHMARKS.md:
//! `cargo test --release --lib -- --ignored --nocapture shaping_costs`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::{Record, Shape, Shaped, Wrap};

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
