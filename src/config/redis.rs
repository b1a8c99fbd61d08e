//! `redis:`: one Redis server, one that sentinels name, or a cluster.

use std::time::Duration;

use super::client_tls;
use super::endpoint::{Endpoint, Names};
use super::fields::{Bounds, Fields};
use super::keys;
use super::model::{Deployment, Redis};
use super::tree::{Node, Value};
use super::walk::Walk;

pub(super) const TIME: Bounds<Duration> =
    Bounds { default: Duration::from_secs(5), min: Duration::from_millis(100), max: Duration::from_mins(5) };

/// Reads the settings of one Redis upstream.
pub(super) fn read(walk: &Walk<'_>, node: &Node) -> Option<Redis> {
    let fields = Fields::open(walk, node, keys::REDIS)?;
    let ping_interval = fields.duration("ping_interval", &TIME).unwrap_or(TIME.default);
    let timeout = fields.duration("timeout", &TIME).unwrap_or(TIME.default);
    let tls = fields.node("tls").and_then(|node| client_tls::read(walk, node));
    let deployment = read_deployment(walk, &fields)?;
    if let Some(entry) = fields.entry("tls")
        && !deployment.endpoints().any(|endpoint| endpoint.tls)
    {
        let text =
            "`tls` is for `rediss://`, and no URL here says so; change the URL's scheme, or remove `tls`";
        walk.problem(entry.key.span, text);
    }
    Some(Redis { deployment, tls, ping_interval, timeout })
}

fn read_deployment(walk: &Walk<'_>, fields: &Fields<'_>) -> Option<Deployment> {
    let url = fields.required("url", "write it as `redis://HOST:PORT/DB` or, with TLS, `rediss://…`");
    let cluster = fields.flag("cluster").unwrap_or(false);
    let sentinels = fields.node("sentinels").map(|node| read_list(walk, node, Names::Sentinel));
    let Some(sentinels) = sentinels else {
        return if cluster {
            read_cluster(walk, url?)
        } else {
            read_one(walk, url?, Names::Server).map(Deployment::Single)
        };
    };
    if cluster && let (Some(cluster), Some(sentinels)) = (fields.entry("cluster"), fields.entry("sentinels"))
    {
        let text = "a cluster fails over by itself and has no sentinels; keep one of the two";
        walk.conflict(cluster.key.span, text, sentinels.key.span, "the sentinels");
        return None;
    }
    let master = read_one(walk, url?, Names::Master)?;
    Some(Deployment::Sentinel { master, sentinels: sentinels? })
}

const URL: &str = "the URL of a Redis server";

fn read_one(walk: &Walk<'_>, node: &Node, names: Names) -> Option<Endpoint> {
    if let Value::List(_) = &node.value {
        let text = format!("expected {URL}, found a list; only a cluster has several, with `cluster: true`");
        walk.problem(node.span, text);
        return None;
    }
    let url = walk.scalar(node, URL)?;
    Endpoint::parse(&url.text, names).map_err(|what| walk.problem(url.span(), what)).ok()
}

/// All of them, or none where one has a problem.
fn read_list(walk: &Walk<'_>, node: &Node, names: Names) -> Option<Vec<Endpoint>> {
    let nodes = walk.one_or_more(node, URL)?;
    let read: Vec<_> = nodes.iter().map(|node| read_one(walk, node, names)).collect();
    read.into_iter().collect()
}

fn read_cluster(walk: &Walk<'_>, node: &Node) -> Option<Deployment> {
    let nodes = read_list(walk, node, Names::Server)?;
    let first = &nodes[0];
    let place = |at: usize| match &node.value {
        Value::List(items) => items[at].span,
        _ => node.span,
    };
    for (at, endpoint) in nodes.iter().enumerate() {
        if endpoint.database != 0 {
            walk.problem(place(at), "a cluster has no database but 0; leave it out of this Redis URL");
        }
        if *endpoint != (Endpoint { database: endpoint.database, ..first.at(&endpoint.host, endpoint.port) })
        {
            let text = "the scheme, user or password of this Redis URL differs from the first one's, which holds for \
                        every node of the cluster; write the same";
            walk.problem(place(at), text);
        }
    }
    Some(Deployment::Cluster(nodes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UpstreamKind;
    use crate::config::testing::{expect, sound};

    fn with(keys: &str) -> String {
        format!(
            "server: {{ tls: none }}\nupstreams:\n  r:\n    redis: {{ {keys} }}\nroutes: [{{ path: /r, from: {{ upstream: r, channel: c }} }}]\n"
        )
    }

    fn redis(keys: &str) -> Redis {
        match sound(&with(keys)).upstreams.remove(0).kind {
            UpstreamKind::Redis(redis) => redis,
            other => panic!("{other:?}"),
        }
    }

    fn shown(keys: &str) -> Vec<String> {
        redis(keys).deployment.endpoints().map(ToString::to_string).collect()
    }

    #[test]
    fn settings() {
        let plain = redis("url: redis://h");
        assert_eq!((plain.ping_interval.as_secs(), plain.timeout.as_secs()), (5, 5));
        let full = redis("url: 'rediss://:${REDIS_PASSWORD}@h:1/2', ping_interval: 100ms, timeout: 5m");
        let Deployment::Single(endpoint) = &full.deployment else { panic!("{full:?}") };
        assert_eq!(endpoint.password.as_ref().unwrap().expose(), "hunter2");
        assert_eq!((full.ping_interval.as_millis(), full.timeout.as_secs()), (100, 300));
        assert!(!format!("{full:?}").contains("hunter2"));
    }

    #[test]
    fn deployments() {
        assert_eq!(shown("url: redis://h, cluster: false"), ["redis://h:6379/0"]);
        assert_eq!(shown("url: redis://h:1, cluster: true"), ["redis://h:1/0"]);
        assert_eq!(
            shown("url: [rediss://u:p@a:1, rediss://u:p@b:2], cluster: true"),
            ["rediss://a:1/0", "rediss://b:2/0"]
        );
        assert_eq!(
            shown("url: redis://u:p@main/2, sentinels: ['redis://s1', 'redis://:x@s2:1']"),
            ["redis://main/2", "redis://s1:26379/0", "redis://s2:1/0"]
        );
        assert_eq!(
            shown("url: redis://main, sentinels: redis://s1"),
            ["redis://main/0", "redis://s1:26379/0"]
        );
    }

    #[test]
    fn problems() {
        expect(&with(""), &[(4, 12, "`redis` lacks `url`; write it as `redis://HOST:PORT/DB`")]);
        expect(&with("url: redis://h, ping_interval: 99ms"), &[(4, 45, "it must be from 100ms to 5m")]);
        expect(&with("url: redis://h, timeout: 6m"), &[(4, 39, "it must be from 100ms to 5m")]);
        expect(
            &with("url: [a]"),
            &[(4, 19, "expected the URL of a Redis server, found a list; only a cluster")],
        );
        expect(
            &with("uri: redis://h"),
            &[(4, 12, "lacks `url`"), (4, 14, "unknown key `uri` in `redis`; did you mean `url`?")],
        );
    }

    #[test]
    fn problems_of_deployments() {
        for (keys, column, text) in [
            ("url: redis://h:1, sentinels: redis://s", 19, "the name of a master, which has no port"),
            ("url: redis://h, sentinels: [redis://s, x]", 53, "a Redis URL begins with"),
            ("url: redis://h, sentinels: []", 41, "this list is empty; it needs the URL of a Redis server"),
            ("url: redis://h, sentinels: redis://s/1", 41, "a sentinel has no databases"),
            ("url: redis://h, cluster: yes", 39, "`yes` is neither `true` nor `false`"),
            ("url: redis://h/1, cluster: true", 19, "a cluster has no database but 0"),
            ("url: [redis://h/0, redis://h/1], cluster: true", 33, "a cluster has no database but 0"),
            ("url: [redis://h, rediss://h], cluster: true", 31, "differs from the first one's"),
            ("url: [redis://h, 'redis://:hunter2@h'], cluster: true", 31, "differs from the first one's"),
            ("url: redis://h, cluster: true, sentinels: redis://s", 30, "a cluster fails over by itself"),
        ] {
            expect(&with(keys), &[(4, column, text)]);
        }
    }

    #[test]
    fn passwords_do_not_show() {
        for url in [
            "redis://:hunter2@h:x",
            "redis://h:hunter2",
            "redis:hunter2@h",
            "'redis://:${HIDDEN}@h:x'",
            "redis://:hunter2/x@h",
        ] {
            expect(&with(&format!("url: {url}")), &[(4, 19, "Redis URL")]);
        }
    }
}
