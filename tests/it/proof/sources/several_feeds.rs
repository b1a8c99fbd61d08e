//! The same two Redis streams as two feeds of their own, which clients read on one connection; of some the routes keep nearly
//! nothing in memory. To the law each feed is a partition.

use tokio::sync::Mutex;

use super::two_streams::{StreamsPen, TwoStreams};
use crate::proof::faults::{Fault, Kind};
use crate::proof::replicas::Replicas;
use crate::proof::source::{Published, SHORT, Source, View};

/// The streams, and what befalls them.
pub struct SeveralFeeds(TwoStreams);

impl Source for SeveralFeeds {
    const NAME: &'static str = "several-feeds";
    const MENU: &'static [(Kind, usize)] = TwoStreams::MENU;
    const NUMBERS: (u64, u64) = TwoStreams::NUMBERS;

    type Pen = StreamsPen;

    async fn start() -> Option<Self> {
        TwoStreams::start().await.map(Self)
    }

    fn config(&self, replica: usize) -> String {
        let one_feed = self.0.config(replica);
        let (upstreams, _) = one_feed.split_once("routes:").expect("it has routes");
        let even = "from: { upstream: one, stream: even, start: earliest }, data: \"{field.n}\"";
        let odd = "from: { upstream: two, stream: odd, start: earliest }, data: \"{field.n}\"";
        format!(
            r#"{upstreams}routes:
  - {{ path: /even, {even} }}
  - {{ path: /odd, {odd} }}
  - {{ path: /even/short, {even}, {SHORT} }}
  - {{ path: /odd/short, {odd}, {SHORT} }}
  - {{ path: /all, multi: {{ of: [/even, /odd, /even/short, /odd/short] }} }}
"#
        )
    }

    fn views(&self) -> Vec<View> {
        let paths = ["/all?feed=/even&feed=/odd", "/all?feed=/odd/short&feed=/even/short"];
        paths.into_iter().cycle().take(8).map(View::all).collect()
    }

    async fn pen(&self) -> StreamsPen {
        self.0.pen().await
    }

    async fn suffer(&mut self, fault: Fault, pen: &Mutex<StreamsPen>, replicas: &Replicas) {
        self.0.suffer(fault, pen, replicas).await;
    }

    async fn until_settled(&self) {
        self.0.until_settled().await;
    }

    async fn conclude(&mut self, pen: StreamsPen) -> Published {
        self.0.conclude(pen).await
    }
}
