//! Reading that leaves others of its task their turn. What has come in counts first, but where there is always something to read,
//! those who write, ping or subscribe beside it would never be polled; and when tokio has the task wait, after a number of
//! reads, then all of its sockets and timers at once.

/// Reads in a row.
#[derive(Debug, Default)]
pub(super) struct Turns(u32);

impl Turns {
    /// There was one more.
    pub(super) fn count(&mut self) {
        self.0 += 1;
    }

    /// Whether it is the others' turn.
    pub(super) fn are_over(&self) -> bool {
        self.0 >= IN_A_ROW
    }

    /// The others have had their turn.
    pub(super) fn begin(&mut self) {
        self.0 = 0;
    }

    /// Has the others polled if it is their turn.
    pub(super) async fn pass(&mut self) {
        if self.are_over() {
            self.begin();
            tokio::task::yield_now().await;
        }
    }
}

/// A mebibyte at most, where one brings 64 KiB; and well below the number after which tokio has a task wait.
const IN_A_ROW: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_has_always_something_to_do_leaves_others_their_turn() {
        let mut turns = Turns::default();
        let always = async {
            for _ in 0..10 * IN_A_ROW {
                turns.count();
                turns.pass().await;
            }
            false
        };
        let mut polled = 0;
        let other = std::future::poll_fn(|cx| {
            polled += 1;
            cx.waker().wake_by_ref();
            if polled == 5 { std::task::Poll::Ready(true) } else { std::task::Poll::Pending }
        });
        let other_ends = tokio::select! {
            biased;
            ended = always => ended,
            ended = other => ended,
        };
        assert!(other_ends);
    }
}
