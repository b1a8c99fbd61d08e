//! What operators watch: metrics in both formats, how late and how far behind things are, and that the dashboard, the
//! alerts and their chapter fit each other and the binary.

mod exposition;
mod expression;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use http::Method;
use serde_json::Value;

use self::exposition::Exposition;
use self::expression::Expression;
use crate::support::eventsource::{EventSource, Options};
use crate::support::http::{Connect, request};
use crate::support::kafka::{Kafka, Record, unique};
use crate::support::redis::Redis;
use crate::support::ssegate::{Metrics, Ssegate};
use crate::support::wait::eventually;

/// One of everything that has metrics of its own. Nothing of it is there, which is when metrics are wanted.
const EVERYTHING: &str = r#"
traces: { endpoint: "http://127.0.0.1:1", sample: 0 }
upstreams:
  lobby: { push: {} }
  cache: { redis: { url: "redis://127.0.0.1:1" } }
  bus: { kafka: { brokers: ["127.0.0.1:1"] } }
auth:
  users: { jwt: { jwks: "http://127.0.0.1:1/jwks", audience: events } }
  asked: { forward: { url: "http://127.0.0.1:1/auth" } }
routes:
  - { path: "/rooms/{room}", from: { upstream: lobby, channel: "{room}" } }
  - { path: /news, from: { upstream: cache, channel: news } }
  - { path: /audit, from: { upstream: cache, stream: audit } }
  - { path: /orders, from: { upstream: bus, topic: orders }, auth: [users, asked] }
  - { path: "/app/{*rest}", proxy: "http://127.0.0.1:1" }
"#;

#[tokio::test]
async fn metrics_come_in_both_formats_and_as_prometheus_wants_them() {
    let ssegate = Ssegate::start(EVERYTHING).await;
    let classic = ssegate.admin_get("/metrics").await;
    assert_eq!(classic.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let exposition = Exposition::parse(&classic.text());
    assert_eq!(exposition.problems(), Vec::<String>::new());
    assert!(exposition.families.len() > 40, "{}", exposition.families.len());
    if let Some(said) = promtool(&["check", "metrics"], &classic.text()) {
        assert_eq!(said, "", "promtool check metrics");
    }

    let accept = [("accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")];
    let url = format!("http://{}/metrics", ssegate.addrs("admin")[0]);
    let open = request(Method::GET, &url, &accept, "", &Connect::http1()).await;
    assert!(open.header("content-type").starts_with("application/openmetrics-text; version=1.0.0"));
    let text = open.text();
    assert!(text.ends_with("\n# EOF\n") && text.matches("# EOF").count() == 1);
    assert!(text.contains("# TYPE ssegate_events_in counter\nssegate_events_in_total{"), "{text}");
    let names = |text: &str| -> BTreeSet<String> {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples.map(|line| line.split(['{', ' ']).next().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&text), names(&classic.text()));
}

#[tokio::test]
async fn the_dashboard_and_the_alerts_name_nothing_that_the_binary_does_not_export() {
    let ssegate = Ssegate::start(EVERYTHING).await;
    let exposition = Exposition::parse(&ssegate.metrics().await.text);
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for (place, expression, shown) in dashboard().into_iter().chain(rules()) {
        let expression = Expression::parse(&expression);
        used.extend(expression.metrics.iter().map(|(name, _)| name.clone()));
        wrong.extend(expression.problems(&shown, &exposition).map(|problem| format!("{place}: {problem}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(used.len() > 40, "only {} metrics were found: {used:?}", used.len());
    // What is exported and shown nowhere is exported in vain.
    let shown = |name: &&String| !used.iter().any(|used| used.starts_with(name.as_str()));
    let unused: Vec<_> = exposition.families.keys().filter(shown).collect();
    assert_eq!(unused, Vec::<&String>::new(), "no panel shows these");
}

#[test]
fn alerts_lead_to_a_chapter_and_say_how_bad_it_is() {
    let chapter = read("docs/OPERATIONS.md");
    let anchors: BTreeSet<_> = chapter.lines().filter_map(anchor).collect();
    let mut named = BTreeSet::new();
    for rule in alerts() {
        let name = rule["alert"].as_str().unwrap().to_owned();
        let url = rule["annotations"]["runbook_url"].as_str().unwrap_or_default();
        let found = url.strip_prefix("docs/OPERATIONS.md#").is_some_and(|anchor| anchors.contains(anchor));
        assert!(found, "{name} leads to `{url}`, which is no heading");
        assert!(chapter.contains(&format!("`{name}`")), "the chapter does not tell how {name} is seen");
        assert!(
            ["critical", "warning"].contains(&rule["labels"]["severity"].as_str().unwrap_or_default()),
            "{name}"
        );
        for annotation in ["summary", "description"] {
            assert!(!rule["annotations"][annotation].as_str().unwrap_or_default().is_empty(), "{name}");
        }
        assert!(named.insert(name.clone()), "{name} comes twice");
    }
    let told = chapter.split('`').filter(|word| word.starts_with("Ssegate"));
    assert_eq!(named, told.map(str::to_owned).collect(), "the chapter and the rules name the same alerts");
    // Links within the chapter lead somewhere as well.
    for link in chapter.split("](#").skip(1) {
        let link = link.split(')').next().unwrap();
        assert!(anchors.contains(link), "#{link} is no heading");
    }
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join(RULES);
    if let Some(said) = promtool(&["check", "rules", rules.to_str().unwrap()], "") {
        assert!(said.contains("SUCCESS"), "{said}");
    }
}

#[tokio::test]
async fn how_late_events_are_is_measured_and_history_is_not() {
    let ssegate = Ssegate::start(EVERYTHING).await;
    let route = [("route", "/rooms/{room}")];
    let measured = async || ssegate.metrics().await.sum("ssegate_delivery_delay_seconds_count", &route);
    let mut stream = EventSource::connect(ssegate.url("/rooms/a"), Options::http1()).await;
    let start = stream.next_named("stream.position").await.id;
    assert_eq!(measured().await, 0.0);
    ssegate.publish("a", "one").await;
    stream.next_message().await;
    ssegate.publish("a", "two").await;
    stream.next_message().await;
    assert_eq!(measured().await, 2.0);

    for options in [Options::http1(), Options::http2()] {
        let mut late = EventSource::connect(ssegate.url("/rooms/a"), options.resume(&start)).await;
        late.next_named("stream.position").await;
        assert_eq!(late.next_data(2).await, ["one", "two"]);
        assert_eq!(measured().await, 2.0, "what was there before it came is late by intent");
        late.close();
    }
    assert!(ssegate.metrics().await.sum("ssegate_delivery_delay_seconds_sum", &route) > 0.0);
}

#[tokio::test]
async fn the_delay_begins_with_the_brokers_timestamp() {
    let (kafka, topic) = (Kafka::shared().await, unique("delay"));
    kafka.create_topic(&topic, 1).await;
    let ssegate = Ssegate::start(kafka_config(&kafka.bootstrap(), &topic)).await;
    for (path, key) in [("/t", ""), ("/keys/k", "k")] {
        let mut stream = EventSource::connect(ssegate.url(path), Options::http1()).await;
        stream.next_named("stream.position").await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
        kafka.produce(Record::to(&topic).key(key).payload("x").timestamp(now - 20_000)).await;
        stream.next_message().await;
        let route = if key.is_empty() { "/t" } else { "/keys/{id}" };
        let metrics = ssegate.metrics().await;
        let up_to =
            |bound| metrics.sum("ssegate_delivery_delay_seconds_bucket", &[("route", route), ("le", bound)]);
        assert_eq!((up_to("10.0"), up_to("+Inf")), (0.0, 1.0), "{path}");
        stream.close();
    }
}

#[tokio::test]
async fn how_far_reading_is_behind_is_told_in_records_and_in_time() {
    let kafka = Kafka::start().await;
    if kafka.is_mock() {
        return eprintln!("skipped on the mock cluster: it cannot advertise a proxy");
    }
    let (link, topic) = (kafka.link().await, unique("lag"));
    kafka.create_topic(&topic, 2).await;
    let ssegate = Ssegate::start(kafka_config(&kafka.link_bootstrap(), &topic)).await;
    let mut stream = EventSource::connect(ssegate.url("/t"), Options::http1()).await;
    stream.next_named("stream.position").await;
    let until = async |what: &str, reached: fn(f64, f64) -> bool| {
        eventually(what, async || {
            let metrics = ssegate.metrics().await;
            let (records, seconds) = lag(&metrics);
            if reached(records, seconds) { Ok(()) } else { Err(format!("{records} records, {seconds} s")) }
        })
        .await;
    };
    until("nothing to be behind of", |records, seconds| (records, seconds) == (0.0, 0.0)).await;

    link.pause();
    // More than one answer of the broker carries, of 1 MiB a partition: what is behind is known for as long as the next takes.
    let filling = "x".repeat(500);
    let records = (0..8_000).map(|n| Record::to(&topic).partition(n % 2).payload(format!("{n} {filling}")));
    kafka.produce_all(records).await;
    // Nobody can know of the records yet, but that nothing is heard.
    until("a silence that is noticed", |_, seconds| seconds > 10.0).await;
    assert!(ssegate.metrics().await.sum("ssegate_upstream_up", &[("upstream", "bus")]) > 0.0);
    link.limit_rate(100_000);
    link.resume();
    until("records to be behind of", |records, seconds| records > 100.0 && seconds > 0.0).await;
    let shown = &ssegate.status().await["upstreams"][0]["lag"];
    assert_eq!(shown["source"], topic.as_str());
    assert!(shown["records"].as_u64().unwrap() > 0 && shown["seconds"].as_f64().unwrap() > 0.0, "{shown}");
    link.limit_rate(0);
    stream.next_data(8_000).await;
    until("all to be read", |records, seconds| (records, seconds) == (0.0, 0.0)).await;
}

#[tokio::test]
async fn the_mark_of_a_transaction_is_nothing_to_be_behind_of() {
    let (kafka, topic) = (Kafka::shared().await, unique("marks"));
    if kafka.is_mock() {
        return eprintln!("skipped on the mock cluster: its transactions leave no marks");
    }
    kafka.create_topic(&topic, 1).await;
    let ssegate = Ssegate::start(kafka_config(&kafka.bootstrap(), &topic)).await;
    let mut stream = EventSource::connect(ssegate.url("/t"), Options::http1()).await;
    stream.next_named("stream.position").await;
    let producer = kafka.transactional(&unique("tx")).await;
    producer.begin().await;
    producer.send(Record::to(&topic).payload("x")).await;
    producer.commit().await;
    stream.next_message().await;
    eventually("no lag", async || match lag(&ssegate.metrics().await) {
        (0.0, 0.0) => Ok(()),
        lag => Err(format!("{lag:?}")),
    })
    .await;
}

#[tokio::test]
async fn reads_of_history_are_counted_and_streams_that_do() {
    let (kafka, topic) = (Kafka::shared().await, unique("reads"));
    if kafka.is_mock() {
        return eprintln!("skipped on the mock cluster: it tells no offsets by time");
    }
    kafka.create_topic(&topic, 1).await;
    let filling = "x".repeat(500);
    kafka.produce_all((0..3_000).map(|n| Record::to(&topic).payload(format!("{n} {filling}")))).await;
    let config =
        kafka_config(&kafka.bootstrap(), &topic).replace("path: /t,", "path: /t, history: { events: 3 },");
    let ssegate = Ssegate::start(config).await;
    let mut stream = EventSource::connect(ssegate.url("/t?since=1h"), Options::http1()).await;
    stream.next_data(3_000).await;
    let metrics = ssegate.metrics().await;
    assert!(metrics.sum("ssegate_history_reads_total", &[("outcome", "read")]) > 0.0);
    assert_eq!(metrics.sum("ssegate_history_reads_total", &[("outcome", "failed")]), 0.0);
    assert!(metrics.sum("ssegate_memory_used_bytes", &[("part", "history")]) > 0.0);
    eventually("all reads and replays to end", async || {
        let metrics = ssegate.metrics().await;
        let names =
            ["ssegate_history_reads_running", "ssegate_history_reads_queued", "ssegate_streams_replaying"];
        let left: Vec<_> = names.iter().filter(|name| metrics.sum(name, &[]) != 0.0).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_feed_ages_until_an_event_comes_in_and_a_stream_of_redis_tells_its_lag() {
    let redis = Redis::start().await;
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "{}" }} }} }}
routes:
  - {{ path: /news, from: {{ upstream: cache, channel: news }} }}
  - {{ path: /audit, from: {{ upstream: cache, stream: audit }} }}
  - {{ path: "/rooms/{{room}}", from: {{ upstream: cache, channel: "{{room}}" }} }}
"#,
        redis.url()
    ))
    .await;
    let age =
        async |route: &str| ssegate.metrics().await.sum("ssegate_feed_age_seconds", &[("route", route)]);
    let mut news = EventSource::connect(ssegate.url("/news"), Options::http1()).await;
    news.next_named("stream.position").await;
    eventually("some age", async || if age("/news").await > 0.5 { Ok(()) } else { Err("younger") }).await;
    let (before, at) = (age("/news").await, std::time::Instant::now());
    redis.publish("news", "x").await;
    news.next_message().await;
    let after = age("/news").await;
    assert!(after < before + at.elapsed().as_secs_f64() - 0.4, "{before} and then {after}");
    let metrics = ssegate.metrics().await;
    assert!(!metrics.has("ssegate_feed_age_seconds", &[("route", "/rooms/{room}")]));

    let mut audit = EventSource::connect(ssegate.url("/audit"), Options::http1()).await;
    audit.next_named("stream.position").await;
    let _: String = redis.command(::redis::cmd("XADD").arg(&["audit", "*", "a", "b"])).await;
    audit.next_message().await;
    assert_eq!(lag(&ssegate.metrics().await), (0.0, 0.0));
    assert!(ssegate.metrics().await.has("ssegate_upstream_lag_records", &[("upstream", "cache")]));
}

fn kafka_config(bootstrap: &str, topic: &str) -> String {
    let properties = "topic.metadata.refresh.interval.ms: 1000, statistics.interval.ms: 200, fetch.message.max.bytes: 20000";
    format!(
        r#"
upstreams: {{ bus: {{ kafka: {{ brokers: ["{bootstrap}"], properties: {{ {properties} }} }} }} }}
routes:
  - {{ path: /t, from: {{ upstream: bus, topic: {topic} }} }}
  - {{ path: "/keys/{{id}}", from: {{ upstream: bus, topic: {topic}, key: "{{id}}" }} }}
"#
    )
}

/// How far the only upstream is behind: records, seconds.
fn lag(metrics: &Metrics) -> (f64, f64) {
    (metrics.sum("ssegate_upstream_lag_records", &[]), metrics.sum("ssegate_upstream_lag_seconds", &[]))
}

/// Each expression of the dashboard with where it stands and the labels that are shown of it.
fn dashboard() -> Vec<(String, String, String)> {
    let dashboard: Value = serde_json::from_str(&read("contrib/grafana/ssegate.json")).unwrap();
    let mut all = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let text = |name: &str| target[name].as_str().unwrap().to_owned();
            all.push((format!("panel {}", panel["title"]), text("expr"), text("legendFormat")));
        }
    }
    let lists = [&dashboard["templating"]["list"], &dashboard["annotations"]["list"]];
    for variable in lists.into_iter().flat_map(|list| list.as_array().unwrap()) {
        let expression = variable["definition"].as_str().or(variable["expr"].as_str());
        all.extend(
            expression.map(|expression| (format!("{}", variable["name"]), expression.into(), String::new())),
        );
    }
    all
}

/// The same of the alerts.
fn rules() -> Vec<(String, String, String)> {
    let all = alerts().into_iter().map(|rule| {
        let (expression, told) = (rule["expr"].as_str().unwrap(), rule["annotations"].to_string());
        (rule["alert"].to_string(), expression.to_owned(), told.replace("$labels.", ""))
    });
    all.collect()
}

fn alerts() -> Vec<Value> {
    let rules: Value = serde_yaml::from_str(&read(RULES)).unwrap();
    let groups = rules["groups"].as_array().unwrap().clone();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

/// What a heading is called in links.
fn anchor(line: &str) -> Option<String> {
    let heading = line.strip_prefix('#')?.trim_start_matches('#').strip_prefix(' ')?;
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-'].contains(c));
    Some(kept.collect::<String>().to_lowercase().replace(' ', "-"))
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// What Prometheus's own tool says, if it is there: it comes with the server, which is much to install for a test.
fn promtool(args: &[&str], input: &str) -> Option<String> {
    let mut command = Command::new("promtool");
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        eprintln!("promtool is not there: only this test's own rules are checked");
        return None;
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "promtool {args:?}: {said}");
    Some(said)
}

const RULES: &str = "contrib/prometheus/ssegate.rules.yaml";
