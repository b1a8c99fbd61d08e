//! What a look at a stream shows, and what it says of the node that was asked. Pure.

/// One look at a stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// The first offset that the node has, if it has one.
    pub first: Option<u64>,
    /// Where the stream ends at that node.
    pub end: u64,
    /// How many offsets the node counts that leads the stream; less where it has not counted lately.
    pub counted: u64,
}

impl Look {
    /// Whether the node has less of the stream than the one that leads it. A stream that was made anew it has in whole, or soon
    /// will.
    pub(super) fn is_behind(&self) -> bool {
        self.counted > self.end.saturating_sub(self.first.unwrap_or(self.end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_behind_is_told_from_a_stream_made_anew() {
        // 1,000 messages have been read.
        for (first, end, counted, expected) in [
            (Some(0), 990, 1_000, true),
            (Some(400), 990, 600, true),
            (None, 0, 1_000, true),
            (Some(0), 20, 20, false),
            // The node that leads has not counted since.
            (Some(0), 20, 0, false),
            (Some(0), 20, 15, false),
            (None, 0, 0, false),
        ] {
            let look = Look { first, end, counted };
            assert_eq!(look.is_behind(), expected, "{look:?}");
        }
    }
}
