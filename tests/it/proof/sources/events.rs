//! A server of events that is no ssegate: it keeps what it has sent, and gives again what follows an id. It is one of the
//! rig's own, so that what was published is known.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::proof::faults::{Fault, Kind};
use crate::proof::harm::harm_link;
use crate::proof::replicas::Replicas;
use crate::proof::source::{Pen, Published, Source, View, all_and_short};
use crate::proof::verdict::placed::{Place, Placed};
use crate::support::proxy::Proxy;
use crate::support::sse_server::SseServer;

/// One path of a server; the first replica reads it through a proxy.
pub struct Events {
    server: Arc<SseServer>,
    link: Proxy,
}

/// Publishes on the server itself.
pub struct EventsPen {
    server: Arc<SseServer>,
    published: Placed,
}

impl Source for Events {
    const NAME: &'static str = "sse";
    const MENU: &'static [(Kind, usize)] =
        &[(Kind::BrokerKilled, 4), (Kind::LinkReset, 4), (Kind::LinkSilent, 3), (Kind::ReplicaKilled, 4)];
    const NUMBERS: (u64, u64) = (25_000, 1_000);

    type Pen = EventsPen;

    async fn start() -> Option<Self> {
        let server = Arc::new(SseServer::start().await);
        server.greet("/numbers");
        let link = Proxy::start(server.addr()).await;
        Some(Self { server, link })
    }

    fn config(&self, replica: usize) -> String {
        let addr = if replica == 0 { self.link.addr() } else { self.server.addr() };
        let routes = all_and_short("from: { upstream: up, path: /numbers }");
        format!(
            "\nupstreams: {{ up: {{ sse: {{ url: \"http://{addr}\", timeout: 1s, idle: 1s }} }} }}{routes}"
        )
    }

    fn views(&self) -> Vec<View> {
        View::all_and_short(8)
    }

    async fn pen(&self) -> EventsPen {
        EventsPen { server: Arc::clone(&self.server), published: Placed { eras: 1, ..Placed::default() } }
    }

    async fn suffer(&mut self, fault: Fault, _: &Mutex<EventsPen>, _: &Replicas) {
        match fault {
            // Every stream breaks off, and for a while there is none to be had.
            Fault::BrokerKilled(down) => {
                self.server.refuse(true);
                sleep(down).await;
                self.server.refuse(false);
            }
            other => harm_link(&self.link, other).await,
        }
    }

    async fn until_settled(&self) {}

    async fn conclude(&mut self, pen: EventsPen) -> Published {
        Published::Placed(pen.published)
    }
}

impl Pen for EventsPen {
    async fn publish(&mut self, numbers: Range<u64>) {
        for number in numbers {
            self.server.publish("/numbers", &format!("n{number}"), &number.to_string());
            let place = Place { era: 0, partition: 0, offset: (number, 0) };
            self.published.places.insert(number, place);
        }
    }
}
