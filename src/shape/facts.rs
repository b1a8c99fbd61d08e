//! Filters that name what clients bring: what is known of an event for them, which is kept with it, and such a filter as it is
//! asked for one client.

use std::fmt;
use std::sync::Arc;

use super::Fault;
use crate::expression::{Expression, Fact, Known, Member, Work};

/// What is known of an event for the filters of clients. Nothing of one that is for all: a gap of the source, or any event of a
/// feed whose clients have no filters.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts(Option<Arc<[Known]>>);

impl Facts {
    /// That of an event of which this is known.
    pub(super) fn of(known: Vec<Known>) -> Self {
        Self(Some(known.into()))
    }

    /// Whether the event is for all clients.
    pub fn are_for_all(&self) -> bool {
        self.0.is_none()
    }

    /// Bytes that they take beside themselves.
    pub fn size(&self) -> usize {
        let of = |known: &Known| known.as_ref().map_or(size_of::<Known>(), Fact::size);
        self.0.as_deref().map_or(0, |known| ALLOCATED + known.iter().map(of).sum::<usize>())
    }
}

/// Those of an event that is for all.
pub static FOR_ALL: Facts = Facts(None);

/// What an allocation with a count of its owners takes beside its bytes.
const ALLOCATED: usize = 32;

/// The filter of a route as it is asked for one client.
pub struct ClientFilter {
    filter: Expression,
    terms: Box<[Known]>,
}

/// No event can pass a client's filter, since it fails with what the client brings: why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeverHolds(pub Fault);

impl ClientFilter {
    /// Of a client that brings these values; nothing where all events pass.
    ///
    /// # Errors
    /// The filter fails for it, whatever the event.
    pub fn bind(
        filter: &Expression,
        brought: impl Fn(&Member) -> Option<Fact>,
    ) -> Result<Option<Arc<Self>>, NeverHolds> {
        let (terms, outcomes) = filter.terms(brought);
        if outcomes.always_fails() {
            let why = terms.iter().find_map(|term| term.as_ref().err().copied());
            return Err(NeverHolds(why.unwrap_or(Fault::Type)));
        }
        let filter = Self { filter: filter.clone(), terms: terms.into() };
        Ok((!outcomes.always_holds()).then(|| Arc::new(filter)))
    }

    /// Whether an event passes. Adds to `spent` what asking was, in units of [`Work`].
    ///
    /// # Errors
    /// Why that cannot be told.
    pub fn passes(&self, facts: &Facts, spent: &mut usize) -> Result<bool, Fault> {
        let Some(facts) = &facts.0 else { return Ok(true) };
        let mut work = Work::for_client();
        let passes = self.filter.holds_for(facts, &self.terms, &mut work);
        *spent += work.spent();
        passes
    }
}

/// What the client brings is its own business.
impl fmt::Debug for ClientFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.filter.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::of_route;
    use super::super::{Record, Shape, Shaped};
    use super::*;

    struct Message(&'static str);

    impl Record for Message {
        fn payload(&self) -> Option<&[u8]> {
            Some(self.0.as_bytes())
        }

        fn name(&self) -> &str {
            "news"
        }
    }

    /// Whether an event passes for a client with this symbol, and what is known of it.
    fn passes(shape: &Shape, payload: &'static str, symbol: Option<&str>) -> (Result<bool, Fault>, Facts) {
        let (shaped, _, facts) = shape.encode(&Message(payload), &String::new, &mut Vec::new());
        assert_eq!(shaped, Shaped::Event);
        let filter = shape.filter.as_ref().unwrap();
        let bound = ClientFilter::bind(filter, |_| symbol.map(Fact::text)).unwrap().unwrap();
        let mut spent = 0;
        let passes = bound.passes(&facts, &mut spent);
        assert!(spent > 0, "it is work");
        (passes, facts)
    }

    #[test]
    fn what_is_known_of_an_event_is_kept_and_asked_for_each_client() {
        let shape = of_route("filter: 'event.n > 1 && (!has(query.s) || event.s == query.s)'");
        assert!(shape.sifts());
        let (answer, facts) = passes(&shape, r#"{"n":2,"s":"a"}"#, Some("a"));
        assert_eq!((answer, facts.are_for_all()), (Ok(true), false));
        assert!(facts.size() > "a".len());
        assert_eq!(passes(&shape, r#"{"n":2,"s":"b"}"#, Some("a")).0, Ok(false));
        assert_eq!(passes(&shape, r#"{"n":2}"#, Some("a")).0, Err(Fault::Absent));
        let all = ClientFilter::bind(shape.filter.as_ref().unwrap(), |_| None);
        assert!(all.is_ok_and(|filter| filter.is_none()), "who names none is given all");
        let (shaped, _, facts) = shape.encode(&Message(r#"{"n":1}"#), &String::new, &mut Vec::new());
        assert_eq!((shaped, facts.are_for_all()), (Shaped::FilteredOut, true), "what is left out for all");
        assert!(!of_route("filter: event.n > 1").sifts());
        let strict = of_route("filter: event.s == query.s");
        let never = ClientFilter::bind(strict.filter.as_ref().unwrap(), |_| None);
        assert_eq!(never.err(), Some(NeverHolds(Fault::Absent)));
        let bound = ClientFilter::bind(strict.filter.as_ref().unwrap(), |_| Some(Fact::text("secret")));
        assert!(!format!("{bound:?}").contains("secret"));
    }
}
