//! `GET /status/live`: the status once a second as Server-Sent Events, for the status page. Made once for all who watch,
//! and only while somebody does.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::{Admin, feeds, status};
use crate::sse;

/// The newest snapshot, as an event. Who is slow misses some, and is given the newest then.
#[derive(Default)]
pub struct Live {
    newest: watch::Sender<Bytes>,
    came: Notify,
}

impl Live {
    /// Makes snapshots for those who watch, for as long as it runs.
    pub(super) async fn run(&self, admin: &Admin) -> Infallible {
        loop {
            while self.newest.receiver_count() == 0 {
                self.came.notified().await;
            }
            self.newest.send_replace(event(&snapshot(admin)));
            sleep(EVERY).await;
        }
    }

    /// What one who watches is sent.
    pub(super) fn watch(&self) -> impl Stream<Item = Bytes> + Send + use<> {
        let newest = self.newest.subscribe();
        self.came.notify_one();
        let mut opening = Vec::new();
        sse::comment(&mut opening, "");
        sse::retry(&mut opening, EVERY);
        stream::unfold((newest, Some(Bytes::from(opening))), |(mut newest, opening)| async move {
            if let Some(opening) = opening {
                return Some((opening, (newest, None)));
            }
            newest.changed().await.ok()?;
            let event = newest.borrow_and_update().clone();
            Some((event, (newest, None)))
        })
    }
}

fn event(snapshot: &Value) -> Bytes {
    let mut event = Vec::new();
    sse::body(&mut event, None, &snapshot.to_string());
    event.push(b'\n');
    event.into()
}

/// `/status`, with the routes that have the most subscribers, in the order of the file.
fn snapshot(admin: &Admin) -> Value {
    let mut snapshot = status::overview(admin);
    let site = admin.edge.site();
    snapshot["routes"] =
        feeds::busiest_routes(site.router.routes(), ROUTES).into_iter().map(status::route).collect();
    snapshot
}

/// How often a snapshot is made.
const EVERY: Duration = Duration::from_secs(1);
/// Routes that it has.
const ROUTES: usize = 100;
