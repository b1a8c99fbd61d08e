//! How many streams a route may have open, in all and for each client.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::clients::Prefix;
use crate::config::RouteLimits;
use crate::http::shed::Why;

/// The streams of one route.
pub struct Places {
    limits: Mutex<RouteLimits>,
    open: AtomicUsize,
    /// Counted only where there is a limit for each; no more than streams are open.
    of: Mutex<HashMap<Prefix, usize>>,
}

/// The right of one stream to be open, which ends with it.
pub struct Place {
    places: Arc<Places>,
    client: Option<Prefix>,
}

impl Places {
    /// As the route's limits say.
    pub fn new(limits: RouteLimits) -> Arc<Self> {
        Arc::new(Self { limits: Mutex::new(limits), open: AtomicUsize::new(0), of: Mutex::default() })
    }

    /// From now on these limits hold, for streams to come. Those for each client count from now on where there were none.
    pub fn limit(&self, limits: RouteLimits) {
        *self.limits.lock() = limits;
    }

    /// A place for a stream of `client`.
    ///
    /// # Errors
    /// Why there is none.
    pub fn take(self: &Arc<Self>, client: Prefix) -> Result<Place, Why> {
        let RouteLimits { streams, streams_per_client, .. } = *self.limits.lock();
        // Whoever has no place of its own takes none of those that are for all, not even for a moment.
        let mut of = streams_per_client.map(|most| (most, self.of.lock()));
        if let Some((most, of)) = &of
            && of.get(&client).is_some_and(|open| open >= most)
        {
            return Err(Why::ClientStreams);
        }
        let most = streams.unwrap_or(usize::MAX);
        let take = |open| (open < most).then_some(open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).map_err(|_| Why::Streams)?;
        let counted = of.as_mut().map(|(_, of)| *of.entry(client).or_default() += 1);
        Ok(Place { places: Arc::clone(self), client: counted.map(|()| client) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.open.fetch_sub(1, Ordering::Relaxed);
        let Some(client) = self.client else { return };
        let mut of = self.places.of.lock();
        if let Some(open) = of.get_mut(&client) {
            *open -= 1;
            if *open == 0 {
                of.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_all_and_for_each_client() {
        let limits = RouteLimits { streams: Some(3), streams_per_client: Some(2), ..RouteLimits::default() };
        let places = Places::new(limits);
        let (a, b) = (Prefix::V4(1), Prefix::V4(2));
        let mut taken: Vec<_> = [a, a, b].map(|client| places.take(client).ok().unwrap()).into();
        assert_eq!(places.take(b).err(), Some(Why::Streams));
        assert_eq!(places.take(a).err(), Some(Why::ClientStreams));
        taken.pop();
        taken.push(places.take(b).ok().unwrap());
        taken.clear();
        assert_eq!((places.open.load(Ordering::Relaxed), places.of.lock().len()), (0, 0));
    }

    /// One who is refused again and again takes nobody's place meanwhile.
    #[test]
    fn who_is_refused_is_in_nobodys_way() {
        let limits = RouteLimits { streams: Some(2), streams_per_client: Some(1), ..RouteLimits::default() };
        let places = Places::new(limits);
        let [greedy, other] = [1, 2].map(Prefix::V4);
        let _place = places.take(greedy).ok().unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(places.take(greedy).err(), Some(Why::ClientStreams));
                }
            });
            let refused = (0..200_000).filter(|_| places.take(other).is_err()).count();
            stop.store(true, Ordering::Relaxed);
            assert_eq!(refused, 0);
        });
    }

    #[test]
    fn a_limit_that_comes_later_counts_those_who_are_there() {
        let places = Places::new(RouteLimits::default());
        let [first, second] = [1, 1].map(|client| places.take(Prefix::V4(client)).ok().unwrap());
        assert!(places.of.lock().is_empty(), "nothing is counted by client without need");
        places.limit(RouteLimits { streams: Some(2), ..RouteLimits::default() });
        assert_eq!(places.take(Prefix::V4(2)).err(), Some(Why::Streams));
        drop(first);
        let limits = RouteLimits { streams: Some(3), streams_per_client: Some(1), ..RouteLimits::default() };
        places.limit(limits);
        let _third = places.take(Prefix::V4(1)).ok().unwrap();
        assert_eq!(places.take(Prefix::V4(1)).err(), Some(Why::ClientStreams));
        drop(second);
        assert_eq!(places.open.load(Ordering::Relaxed), 1);
    }
}
