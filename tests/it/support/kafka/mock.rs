//! librdkafka's mock cluster, an in-process broker that speaks the real protocol; on a thread of its
//! own, as it must not move between threads.

use std::sync::mpsc;

use rdkafka::mocking::MockCluster;

/// The running mock. Dropping it ends it.
pub struct Mock {
    orders: mpsc::Sender<Order>,
    bootstrap: String,
}

enum Order {
    CreateTopic(String, i32, mpsc::Sender<()>),
    SetUp(bool, mpsc::Sender<()>),
}

impl Mock {
    /// Starts a cluster of one broker.
    pub fn start() -> Self {
        let (orders, inbox) = mpsc::channel();
        let (ready, started) = mpsc::channel();
        let serve = move || serve(ready, inbox);
        std::thread::Builder::new().name("kafka-mock".into()).spawn(serve).expect("a thread");
        let bootstrap = started.recv().expect("the mock cluster starts");
        Self { orders, bootstrap }
    }

    /// Where it listens.
    pub fn bootstrap(&self) -> String {
        self.bootstrap.clone()
    }

    /// Creates a topic.
    pub fn create_topic(&self, name: &str, partitions: i32) {
        self.order(|done| Order::CreateTopic(name.into(), partitions, done));
    }

    /// Whether the broker takes connections.
    pub fn set_up(&self, up: bool) {
        self.order(|done| Order::SetUp(up, done));
    }

    fn order(&self, order: impl FnOnce(mpsc::Sender<()>) -> Order) {
        let (done, finished) = mpsc::channel();
        self.orders.send(order(done)).expect("the mock cluster runs");
        finished.recv().expect("the mock cluster obeys");
    }
}

fn serve(ready: mpsc::Sender<String>, inbox: mpsc::Receiver<Order>) {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    let _ = ready.send(cluster.bootstrap_servers());
    for order in inbox {
        // The reply is dropped, and the caller panics, where this one does.
        let done = match order {
            Order::CreateTopic(name, partitions, done) => {
                cluster.create_topic(&name, partitions, 1).expect("create_topic");
                done
            }
            Order::SetUp(true, done) => {
                cluster.broker_up(1).expect("broker_up");
                done
            }
            Order::SetUp(false, done) => {
                cluster.broker_down(1).expect("broker_down");
                done
            }
        };
        let _ = done.send(());
    }
}
