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
    limits: RouteLimits,
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
        Arc::new(Self { limits, open: AtomicUsize::new(0), of: Mutex::default() })
    }

    /// A place for a stream of `client`; `None` where nothing is limited.
    ///
    /// # Errors
    /// Why there is none.
    pub fn take(self: &Arc<Self>, client: Prefix) -> Result<Option<Place>, Why> {
        let RouteLimits { streams, streams_per_client, .. } = self.limits;
        if streams.is_none() && streams_per_client.is_none() {
            return Ok(None);
        }
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
        Ok(Some(Place { places: Arc::clone(self), client: counted.map(|()| client) }))
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
        let mut taken: Vec<_> = [a, a, b].map(|client| places.take(client).ok().flatten().unwrap()).into();
        assert_eq!(places.take(b).err(), Some(Why::Streams));
        assert_eq!(places.take(a).err(), Some(Why::ClientStreams));
        taken.pop();
        taken.push(places.take(b).ok().flatten().unwrap());
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
    fn nothing_is_counted_without_a_limit() {
        let places = Places::new(RouteLimits::default());
        assert!(places.take(Prefix::V4(1)).ok().unwrap().is_none());
    }
}
