//! Orders of a shop that does not exist: something plausible to say on a Kafka topic.

use std::collections::VecDeque;
use std::time::SystemTime;

use rand::seq::IndexedRandom as _;
use serde_json::json;

/// What happens in the shop, without end.
#[derive(Default)]
pub(super) struct Orders {
    messages: u64,
    orders: u32,
    open: VecDeque<Order>,
}

/// One message.
pub(super) struct Message {
    /// The order's name, so that all that happens to it stays in one partition.
    pub(super) key: String,
    /// What happened.
    pub(super) kind: &'static str,
    /// All of it, as JSON.
    pub(super) payload: String,
}

struct Order {
    name: String,
    item: &'static str,
    quantity: u32,
    cents: u32,
    /// How many of [`KINDS`] have happened.
    done: usize,
}

impl Orders {
    /// The next thing to happen.
    pub(super) fn next(&mut self) -> Message {
        let mut order = match self.open.len() {
            0 => self.create(),
            open if open < MOST_OPEN && rand::random_bool(0.4) => self.create(),
            _ => self.open.pop_front().unwrap_or_else(|| self.create()),
        };
        let message = self.tell(&order);
        order.done += 1;
        if order.done < KINDS.len() {
            self.open.push_back(order);
        }
        message
    }

    fn create(&mut self) -> Order {
        self.orders += 1;
        let &(item, price) = ITEMS.choose(&mut rand::rng()).unwrap_or(&ITEMS[0]);
        let quantity = rand::random_range(1..=3);
        Order { name: format!("A{}", 1000 + self.orders), item, quantity, cents: price * quantity, done: 0 }
    }

    fn tell(&mut self, order: &Order) -> Message {
        self.messages += 1;
        let payload = json!({
            "number": self.messages,
            "order": order.name,
            "status": KINDS[order.done],
            "item": order.item,
            "quantity": order.quantity,
            "total": f64::from(order.cents) / 100.0,
            "time": now(),
        });
        Message { key: order.name.clone(), kind: KINDS[order.done], payload: payload.to_string() }
    }
}

/// The time as the demo's messages carry it.
pub(super) fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

const KINDS: [&str; 4] = ["created", "paid", "packed", "shipped"];
const MOST_OPEN: usize = 12;
const ITEMS: [(&str, u32); 8] = [
    ("Tea kettle", 3990),
    ("Desk lamp", 2450),
    ("Notebook", 690),
    ("Fountain pen", 1890),
    ("Backpack", 7900),
    ("Umbrella", 1995),
    ("Bicycle bell", 1250),
    ("Wool socks", 990),
];

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn each_order_goes_its_way_and_messages_are_numbered() {
        let mut orders = Orders::default();
        let mut done: HashMap<String, usize> = HashMap::new();
        for number in 1..=500 {
            let message = orders.next();
            let payload: serde_json::Value = serde_json::from_str(&message.payload).unwrap();
            assert_eq!(payload["number"], number);
            let done = done.entry(message.key).or_default();
            assert_eq!(message.kind, KINDS[*done]);
            *done += 1;
        }
        assert!(orders.open.len() <= MOST_OPEN);
    }
}
