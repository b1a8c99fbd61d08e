//! The query of a request that lists things: a few known parameters, each at most once, and cursors, which say where a page
//! begins.

use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::http::Problem;

/// What one list takes.
pub(super) struct Takes {
    /// The names of its parameters.
    pub names: &'static [&'static str],
    /// The same in a sentence, for who got them wrong.
    pub told: &'static str,
}

/// The parameters of one request.
pub(super) struct Query {
    takes: &'static Takes,
    given: Vec<(String, String)>,
}

impl Query {
    /// Reads a query, in which nothing may stand that the list does not take: a filter that is misspelt would show all.
    pub fn read(query: Option<&str>, takes: &'static Takes) -> Result<Self, Problem> {
        let given: Vec<_> =
            form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect();
        let query = Self { takes, given };
        let names = || query.given.iter().map(|(name, _)| name.as_str());
        let is_sound =
            |name: &str| takes.names.contains(&name) && names().filter(|other| *other == name).count() == 1;
        if names().all(is_sound) { Ok(query) } else { Err(query.refused()) }
    }

    /// A parameter as it stands.
    pub fn text(&self, name: &str) -> Option<&str> {
        debug_assert!(self.takes.names.contains(&name), "`{name}` is none of the parameters");
        self.given.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// A parameter as what it must be.
    pub fn parsed<T: FromStr>(&self, name: &str) -> Result<Option<T>, Problem> {
        self.text(name).map(str::parse).transpose().map_err(|_| self.refused())
    }

    /// `limit`: how many a page has at most.
    pub fn limit(&self) -> Result<usize, Problem> {
        let limit = self.parsed("limit")?.unwrap_or(PAGE);
        (1..=MOST).contains(&limit).then_some(limit).ok_or_else(|| self.refused())
    }

    /// `after`: where the page before ended, as [`cursor`] wrote it.
    pub fn after<T: DeserializeOwned>(&self) -> Result<Option<T>, Problem> {
        let read = |text: &str| {
            let text = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
            serde_json::from_slice(&text).ok()
        };
        self.text("after").map(|text| read(text).ok_or_else(|| self.refused())).transpose()
    }

    /// The answer to what is not as it must be.
    pub fn refused(&self) -> Problem {
        Problem::BadRequest(self.takes.told)
    }
}

/// What `after` says for the page that follows `last`.
pub(super) fn cursor(last: impl Serialize) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&last).expect("numbers and text are JSON"))
}

/// Cuts a list that has one more than a page to a page; whether there is another one.
pub(super) fn cut<T>(list: &mut Vec<T>, limit: usize) -> bool {
    let more = list.len() > limit;
    list.truncate(limit);
    more
}

/// How many a page has where nothing is said, and how many it may have.
const PAGE: usize = 100;
const MOST: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    static TAKES: Takes = Takes { names: &["route", "limit", "after"], told: "It takes `route`." };

    fn read(query: &str) -> Result<Query, Problem> {
        Query::read(Some(query), &TAKES)
    }

    #[test]
    fn what_is_not_known_or_given_twice_is_refused() {
        assert_eq!(read("route=%2Fa%20b&limit=5").unwrap().text("route"), Some("/a b"));
        for bad in ["rout=/a", "route=/a&route=/b", "=x", "limit"] {
            let refused = read(bad).and_then(|query| query.limit().map(drop));
            assert_eq!(refused, Err(Problem::BadRequest("It takes `route`.")), "{bad}");
        }
    }

    #[test]
    fn limits_have_bounds() {
        assert_eq!(Query::read(None, &TAKES).unwrap().limit(), Ok(PAGE));
        assert_eq!(read("limit=1000").unwrap().limit(), Ok(1_000));
        for bad in ["0", "1001", "-1", "", "x", "99999999999999999999"] {
            assert!(read(&format!("limit={bad}")).unwrap().limit().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_cursor_is_read_as_what_it_was_written_as() {
        let text = cursor(("cache", "a/ü", u64::MAX));
        let query = read(&format!("after={text}")).unwrap();
        let expected = ("cache".to_owned(), "a/ü".to_owned(), u64::MAX);
        assert_eq!(query.after::<(String, String, u64)>(), Ok(Some(expected)));
        assert!(query.after::<(u64, u64)>().is_err(), "of another sort");
        for bad in ["", "x", "bnVsbA", "%00"] {
            assert!(read(&format!("after={bad}")).unwrap().after::<(u64, u64)>().is_err(), "{bad}");
        }
    }
}
