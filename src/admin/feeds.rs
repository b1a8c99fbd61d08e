//! `GET /status/feeds` and `GET /status/routes`: what is served, page by page. There may be a hundred thousand feeds, so
//! that of all of them no more is kept than a page while it is chosen.

use std::collections::BinaryHeap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Admin;
use super::query::{Query, Takes, cursor, cut};
use super::status::{self, pretty};
use crate::http::{Problem, Route};
use crate::hub::{Feed, FeedKey, Quota};

static FEEDS: Takes = Takes {
    names: &["route", "upstream", "sort", "limit", "after"],
    told: "It takes `route` and `upstream` (a name, as in /status), `sort` (subscribers or source), `limit` (1 to 1000, \
           by default 100) and `after` (`next` of the page before, with the same `sort`).",
};

static ROUTES: Takes = Takes {
    names: &["upstream", "limit", "after"],
    told: "It takes `upstream` (a name, as in /status), `limit` (1 to 1000, by default 100) and `after` (`next` of the \
           page before).",
};

/// One page of feeds.
pub(super) fn text(admin: &Admin, query: Option<&str>) -> Result<String, Problem> {
    let query = Query::read(query, &FEEDS)?;
    let limit = query.limit()?;
    let of_route = query.text("route").map(|route| OfRoute::find(admin, route)).transpose()?;
    let upstream = query.text("upstream");
    let mut feeds = admin.edge.hub.feeds();
    feeds.retain(|feed| {
        upstream.is_none_or(|upstream| &*feed.key.upstream == upstream)
            && of_route.as_ref().is_none_or(|route| route.has(feed))
    });
    let matching = feeds.len();
    let begin: Option<(String, String, u64)>;
    let (page, next) = match query.text("sort") {
        None | Some("subscribers") => {
            let after = query.after()?.map(|(readers, number): (usize, u64)| (usize::MAX - readers, number));
            let (page, last) = page(&feeds, by_subscribers, after, limit);
            (page, last.map(|(rank, number)| cursor((usize::MAX - rank, number))))
        }
        Some("source") => {
            begin = query.after()?;
            let after = begin.as_ref().map(|(upstream, source, number)| (&**upstream, &**source, *number));
            let (page, last) = page(&feeds, by_source, after, limit);
            (page, last.map(cursor))
        }
        Some(_) => return Err(query.refused()),
    };
    let page: Vec<_> = page.into_iter().map(|feed| status::feed(feed)).collect();
    Ok(pretty(&json!({ "matching": matching, "feeds": page, "next": next })))
}

/// The feeds with the most subscribers.
pub(super) fn top(feeds: &[Arc<Feed>], most: usize) -> Vec<Value> {
    let (top, _) = page(feeds, by_subscribers, None, most);
    top.into_iter().map(|feed| status::feed(feed)).collect()
}

/// One page of routes, in the order of the file.
pub(super) fn routes(admin: &Admin, query: Option<&str>) -> Result<String, Problem> {
    let query = Query::read(query, &ROUTES)?;
    let (limit, after) = (query.limit()?, query.after::<usize>()?);
    let upstream = query.text("upstream");
    let site = admin.edge.site();
    let chosen = site
        .router
        .routes()
        .iter()
        .enumerate()
        .filter(|(_, route)| upstream.is_none_or(|upstream| reads_of(route, upstream)))
        .skip_while(|(at, _)| after.is_some_and(|after| *at <= after));
    let mut page: Vec<_> = chosen.take(limit + 1).collect();
    let more = cut(&mut page, limit);
    let next = page.last().filter(|_| more).map(|(at, _)| cursor(at));
    let page: Vec<_> = page.into_iter().map(|(_, route)| status::route(route)).collect();
    Ok(pretty(&json!({ "routes": page, "next": next })))
}

/// The routes with the most subscribers, in the order of the file.
pub(super) fn busiest_routes(routes: &[Arc<Route>], most: usize) -> Vec<&Arc<Route>> {
    let all: Vec<_> = routes.iter().map(|route| -route.metrics.subscribers.get()).enumerate().collect();
    let (mut busiest, _) = page(&all, |(at, subscribers)| (*subscribers, *at), None, most);
    busiest.sort_unstable();
    busiest.into_iter().map(|(at, _)| &routes[*at]).collect()
}

fn reads_of(route: &Route, upstream: &str) -> bool {
    route.config.sources().any(|source| &**source.upstream == upstream)
}

/// Which feeds count for a route: those without parameters, and those in its limit. One that two routes share counts for
/// that by which it was opened.
struct OfRoute {
    held: Vec<FeedKey>,
    quota: Arc<Quota>,
}

impl OfRoute {
    fn find(admin: &Admin, name: &str) -> Result<Self, Problem> {
        let site = admin.edge.site();
        let route = site.router.routes().iter().find(|route| route.name == name);
        let unknown = Problem::BadRequest("There is no route of this name; /status/routes has them all.");
        route
            .map(|route| Self { held: route.held_feeds(), quota: Arc::clone(&route.kept.quota) })
            .ok_or(unknown)
    }

    fn has(&self, feed: &Feed) -> bool {
        feed.counts_in(&self.quota) || self.held.contains(&feed.key)
    }
}

/// The most subscribers first.
fn by_subscribers(feed: &Arc<Feed>) -> (usize, u64) {
    (usize::MAX - feed.log.readers(), feed.number())
}

fn by_source(feed: &Arc<Feed>) -> (&str, &str, u64) {
    (&feed.key.upstream, feed.key.source.name(), feed.number())
}

/// The first of `all`, by `key`, of those that follow `after`, and the key of the last of them if there are more. Each
/// key is looked at once, as it may change meanwhile.
fn page<'a, T, K: Ord + Copy>(
    all: &'a [T],
    key: impl Fn(&'a T) -> K,
    after: Option<K>,
    limit: usize,
) -> (Vec<&'a T>, Option<K>) {
    let mut first = BinaryHeap::with_capacity(limit + 2);
    for (at, one) in all.iter().enumerate() {
        let key = key(one);
        let follows = after.is_none_or(|after| after < key);
        if follows && (first.len() <= limit || first.peek().is_some_and(|(last, _)| key < *last)) {
            first.push((key, at));
            if first.len() > limit + 1 {
                first.pop();
            }
        }
    }
    let mut first = first.into_sorted_vec();
    let more = cut(&mut first, limit);
    let last = first.last().filter(|_| more).map(|(key, _)| *key);
    (first.into_iter().map(|(_, at)| &all[at]).collect(), last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_show_each_once_while_others_come_and_go() {
        let mut names: Vec<String> = (0..57).rev().map(|n| format!("room-{n:03}")).collect();
        let (mut seen, mut after) = (Vec::new(), None::<String>);
        loop {
            let (found, last) = page(&names, String::as_str, after.as_deref(), 10);
            assert!(found.len() <= 10);
            seen.extend(found.into_iter().cloned());
            after = last.map(str::to_owned);
            if after.is_none() {
                break;
            }
            names.insert(0, format!("came-{}", names.len()));
        }
        names.retain(|name| name.starts_with("room"));
        names.reverse();
        assert_eq!(seen, names, "those that came stand before what was shown");
    }

    #[test]
    fn a_page_that_is_full_exactly_is_the_last_one() {
        let numbers = [3, 1, 2];
        let sorted = |after, limit| page(&numbers, |n| *n, after, limit);
        assert_eq!(sorted(None, 3), (vec![&1, &2, &3], None));
        assert_eq!(sorted(None, 2), (vec![&1, &2], Some(2)));
        assert_eq!(sorted(Some(2), 2), (vec![&3], None));
        assert_eq!(sorted(Some(3), 2), (vec![], None));
    }
}
