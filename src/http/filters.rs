//! A route's filter as it is for one client: bound to what the query of its request says, and what its credential does, once,
//! when its stream is opened.

use std::sync::Arc;

use serde_json::Value;

use super::problem::Problem;
use super::router::Route;
use crate::auth::{Grant, in_query};
use crate::config::Brought;
use crate::hub::{Opens, Withheld};
use crate::shape::{ClientFilter, Fact, Member, NeverHolds};

/// The filter of a feed of `route` for a client with this query and this grant; nothing where all events of it are for that
/// client.
///
/// # Errors
/// No event would ever pass, since what the client brings is not what the filter takes. The log says why.
pub(super) fn bind(
    route: &Route,
    feed: &Opens,
    query: &str,
    grant: Option<&Grant>,
) -> Result<Option<Arc<ClientFilter>>, Problem> {
    let Some(filter) = feed.feed.shape.filter.as_ref().filter(|filter| !filter.client().is_empty()) else {
        return Ok(None);
    };
    let said = |member: &Member| {
        let is_said = is_in(member, Brought::Query);
        is_said.then(|| in_query(query, &member.name)).flatten()
    };
    let length: usize = filter.client().iter().filter_map(said).map(|text| text.len()).sum();
    if length > LONGEST {
        return Err(Problem::BadQuery);
    }
    let brought = |member: &Member| match is_in(member, Brought::Claims) {
        true => grant.and_then(|grant| grant.claims.get(&*member.name)).map(Fact::from),
        false => said(member).map(|text| Fact::text(&text)),
    };
    ClientFilter::bind(filter, brought).map_err(|NeverHolds(why)| {
        let names_claims = filter.client().iter().any(|member| is_in(member, Brought::Claims));
        // What the credential lacks no other query makes up for.
        let mends = !names_claims || filter.can_hold(brought, |member| is_in(member, Brought::Query));
        let problem = if mends { Problem::BadQuery } else { Problem::Forbidden };
        if let Some(unsaid) = route.kept.said.again() {
            tracing::warn!(route = route.name, why = %why, unsaid, "a client brings what no event can pass the filter with");
        }
        problem
    })
}

fn is_in(member: &Member, brought: Brought) -> bool {
    member.mapping == brought as usize
}

impl Route {
    /// Counts events that a client's filter has withheld. That it cannot tell is told once for each stream or page, however often
    /// that is: it depends on what the client brings.
    pub(super) fn withheld(&self, withheld: &Withheld) {
        self.metrics.withheld.inc_by(withheld.events);
        let Some(why) = withheld.why else { return };
        self.metrics.undecided.inc();
        if let Some(unsaid) = self.kept.said.again() {
            let feed = withheld.feed.as_deref();
            tracing::warn!(route = self.name, feed, why = %why, unsaid, "a filter cannot tell of an event for a client");
        }
    }

    /// Whether its filter is another one for a client with these claims than with those.
    pub(super) fn filters_otherwise(&self, before: &Value, now: &Value) -> bool {
        let named = self.config.filter.iter().flat_map(|filter| filter.client());
        let mut claims = named.filter(|member| is_in(member, Brought::Claims));
        claims.any(|member| before.get(&*member.name) != now.get(&*member.name))
    }
}

/// Bytes of all parameters together that a filter looks at: it may have to look at them for each event.
const LONGEST: usize = 4096;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Found, Router};
    use super::*;
    use crate::config::parse;
    use crate::metrics::Metrics;

    fn router(filter: &str) -> Router {
        let text = format!(
            "\
server: {{ tls: none }}
auth: {{ users: {{ jwt: {{ secret: 'a secret of 32 bytes or more than that', query: token }} }} }}
upstreams: {{ t: {{ push: {{}} }} }}
routes: [{{ path: '/r/{{room}}', from: {{ upstream: t, channel: c }}, auth: users, filter: \"{filter}\" }}]
"
        );
        let config = parse("c.yaml", &text, &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
        Router::new(&config, &Metrics::new(), 0)
    }

    /// What the filter comes to: whether there is one, or why there is no stream.
    fn bound(filter: &str, query: &str, claims: Value) -> Result<bool, Problem> {
        let router = router(filter);
        let Some(Found::Route(route, Ok(feed))) = router.find("h", "/r/a") else {
            panic!("there is a route")
        };
        let grant = Grant::new(&"users".into(), "alice", claims);
        bind(route, &feed, query, Some(&grant)).map(|filter| filter.is_some())
    }

    #[test]
    fn who_brings_what_the_filter_does_not_take_is_told_so() {
        let by_symbol = "event.s == query.s";
        let by_price = "!has(query.min) || event.p > double(query.min)";
        let by_region = "event.r in claims.regions";
        let by_both = "event.s == query.s && event.r in claims.regions";
        let by_level = "event.s == query.s && event.level > double(claims.level)";
        for (filter, query, claims, expected) in [
            (by_symbol, "s=a&s=b", json!({}), Ok(true)),
            (by_symbol, "", json!({}), Err(Problem::BadQuery)),
            (by_symbol, &*format!("s={}", "x".repeat(LONGEST)), json!({}), Ok(true)),
            (by_symbol, &*format!("s={}", "x".repeat(LONGEST + 1)), json!({}), Err(Problem::BadQuery)),
            (by_symbol, &*format!("s=a&t={}", "x".repeat(60_000)), json!({}), Ok(true)),
            (by_price, "", json!({}), Ok(false)),
            (by_price, "min=%31%2E5", json!({}), Ok(true)),
            (by_price, "min=a+lot", json!({}), Err(Problem::BadQuery)),
            (by_price, "min=NaN", json!({}), Err(Problem::BadQuery)),
            (by_price, "min=1e999", json!({}), Err(Problem::BadQuery)),
            (by_region, "", json!({ "regions": ["eu"] }), Ok(true)),
            (by_region, "", json!({}), Err(Problem::Forbidden)),
            (by_both, "s=a", json!({ "regions": ["eu"] }), Ok(true)),
            (by_both, "s=a", json!({}), Err(Problem::Forbidden)),
            (by_both, "", json!({}), Err(Problem::Forbidden)),
            (by_both, "", json!({ "regions": ["eu"] }), Err(Problem::BadQuery)),
            ("query.r in claims.regions", "r=eu", json!({}), Err(Problem::Forbidden)),
            ("query.r in claims.regions", "", json!({ "regions": ["eu"] }), Err(Problem::BadQuery)),
            (by_level, "s=a", json!({ "level": "none" }), Err(Problem::Forbidden)),
            (by_level, "", json!({ "level": "1.5" }), Err(Problem::BadQuery)),
            ("has(query.all) || event.r in claims.regions", "", json!({}), Err(Problem::BadQuery)),
            ("'x' == params.room || claims.all == true", "", json!({ "all": true }), Ok(false)),
        ] {
            assert_eq!(bound(filter, query, claims.clone()), expected, "{filter} {query:.20} {claims}");
        }
        let many = format!("{}s=a", "p=1&".repeat(10_000));
        assert_eq!(
            bound(by_symbol, &many, json!({})),
            Ok(true),
            "thousands of others are none of its business"
        );
        let odd = "event.s == query['a b%&=\u{e9}']";
        assert_eq!(bound(odd, "a+b%25%26%3D%C3%A9=%00", json!({})), Ok(true));
    }

    #[test]
    fn claims_that_the_filter_does_not_name_make_no_difference() {
        let router = router("event.r in claims.regions && has(query.x)");
        let route = &router.routes()[0];
        assert!(route.reads.query, "it is kept of a stream that is held");
        let before = json!({ "exp": 1, "regions": ["eu"] });
        assert!(!route.filters_otherwise(&before, &json!({ "exp": 2, "regions": ["eu"], "more": 1 })));
        assert!(route.filters_otherwise(&before, &json!({ "exp": 1, "regions": ["eu", "us"] })));
        assert!(route.filters_otherwise(&before, &json!({ "exp": 1 })));
    }
}
