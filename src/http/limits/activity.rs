//! What an HTTP/2 connection does: counts its streams, since hyper tells nobody when there are none.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// The streams of a connection.
#[derive(Debug, Clone, Default)]
pub struct Activity(Arc<watch::Sender<Streams>>);

#[derive(Debug, Default)]
struct Streams {
    open: usize,
    /// Since the connection was opened: some are over before anybody looks.
    begun: u64,
}

impl Activity {
    /// Counts a stream, which has to be told to have ended.
    pub fn begins(&self) {
        self.0.send_modify(|streams| {
            streams.open += 1;
            streams.begun += 1;
        });
    }

    /// A stream has ended.
    pub fn ended(&self) {
        self.0.send_modify(|streams| streams.open -= 1);
    }

    /// Ends when no stream has come within `first`, or when there have been none for `idle`.
    pub fn silence(&self, first: Duration, idle: Duration) -> impl Future<Output = ()> + use<> {
        let mut streams = self.0.subscribe();
        async move {
            let (mut patience, mut seen) = (first, 0);
            while timeout(patience, streams.wait_for(|streams| streams.begun > seen)).await.is_ok() {
                let Ok(none) = streams.wait_for(|streams| streams.open == 0).await else { return };
                (patience, seen) = (idle, none.begun);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_begins_when_the_last_stream_ends() {
        let (activity, secs) = (Activity::default(), Duration::from_secs);
        let began = Instant::now();
        activity.silence(secs(10), secs(60)).await;
        assert_eq!(began.elapsed(), secs(10));

        let silence = activity.silence(secs(10), secs(60));
        let streams = async {
            for (quiet, busy) in [(9, 100), (59, 1)] {
                tokio::time::sleep(secs(quiet)).await;
                activity.begins();
                tokio::time::sleep(secs(busy)).await;
                activity.ended();
            }
        };
        let began = Instant::now();
        tokio::join!(silence, streams);
        assert_eq!(began.elapsed(), secs(9 + 100 + 59 + 1 + 60));

        let silence = activity.silence(secs(10), secs(60));
        let began = Instant::now();
        tokio::join!(silence, async {
            tokio::time::sleep(secs(5)).await;
            activity.begins();
            activity.ended();
        });
        assert_eq!(began.elapsed(), secs(65), "also one that is over at once");
    }
}
