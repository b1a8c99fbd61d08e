//! The configuration as a whole: many problems at once, secrets, the example, and texts at random.

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;

use super::keys::join;
use super::mask::Masks;
use super::place::{Span, Text};
use super::testing::{HEAD, TAIL, env, expect, problems, sound};
use super::tree::{self, Node, Value};
use super::walk::Walk;
use super::{Config, Tls, UpstreamKind, example, keys, load, parse, summary};

const EXAMPLE: &str = example::TEXT;

#[test]
fn every_problem_in_one_run() {
    let text = "\
server:
  lisen: 0.0.0.0:80
  tls: maybe
  drain: 10
limits: { memory: 1KiB }
limits: {}
upstreams:
  cache: { redis: { url: redis://:hunter2@h:99999 } }
  bus: { kafka: { brokers: [a], properties: { sasl.password: hunter2, enable.auto.commit: true } } }
defaults:
  on_lag: explode
routes:
  - path: /a/{b}
    from: { upstream: cach, chanel: x }
  - path: /a/{c}
    from: { upstream: cache, topic: 'x{d}' }
    event: stream.x
    params: { c: 'a(b', z: x }
    cors: { origins: '*', credentials: yes }
  - path: events
    host: 'a:80'
    from: { upstream: bus, topic: 'x${NOPE}' }
  - &last [not, a, route]
  - *last
";
    expect(
        text,
        &[
            (2, 3, "unknown key `lisen` in `server`; did you mean `listen`?"),
            (3, 8, "`tls` cannot be `maybe`"),
            (4, 10, "`10` has no unit"),
            (5, 19, "`1KiB` is out of bounds"),
            (6, 1, "the key `limits` is written twice"),
            (8, 26, "the port of this Redis URL"),
            (9, 29, "`a` is not a broker"),
            (9, 71, "`enable.auto.commit` cannot be set"),
            (11, 11, "`on_lag` cannot be `explode`"),
            (14, 23, "no upstream is called `cach`; did you mean `cache`?"),
            (14, 29, "unknown key `chanel` in `from`; did you mean `channel`?"),
            (15, 11, "could match this path and that of another route equally"),
            (16, 30, "a `redis` upstream has no `topic`"),
            (16, 39, "the path has no parameter `d`; it has `c`"),
            (17, 12, "names that start with `stream.`"),
            (18, 18, "`a(b` is not a regular expression"),
            (18, 25, "the path has no parameter `z`"),
            (19, 40, "`yes` is neither `true` nor `false`"),
            (20, 11, "`events` is not a path"),
            (21, 11, "leave out the port"),
            (22, 37, "the environment has no variable `NOPE`"),
            (23, 11, "expected a mapping, found a list"),
            (24, 5, "expected a mapping, found a list"),
        ],
    );
}

#[test]
fn a_problem_as_it_is_printed() {
    let text = format!("{HEAD}  - path: /x\n    path: /y\n    from: {{ upstream: t }}\n");
    let drawn = parse("conf/c.yaml", &text, &env).unwrap_err();
    let expected = "\
error: the key `path` is written twice; keep one of them
 --> conf/c.yaml:9:5
  |
9 |     path: /y
  |     ^^^^
 ::: conf/c.yaml:8:5
  |
8 |   - path: /x
  |     ^^^^ first written here

1 problem in conf/c.yaml";
    assert_eq!(drawn.to_string(), expected);
    assert_eq!(format!("{drawn:?}"), expected);
}

#[test]
fn files_that_are_no_configuration() {
    for text in ["", "# nothing\n", "---\n", "~\n"] {
        expect(
            text,
            &[(0, 0, "the configuration is empty; it needs at least `server`, `upstreams` and `routes`")],
        );
    }
    expect("just text\n", &[(1, 1, "expected a mapping, found `just text`")]);
    expect("- a\n", &[(1, 3, "expected a mapping, found a list")]);
    expect("a: b: c\n", &[(1, 5, "this is not valid YAML")]);
    expect(
        &format!("{HEAD}  - {{ path: /x, from: {{ upstream: t }} }}\n---\na: b\n"),
        &[(9, 1, "a second YAML document")],
    );
    expect(&"[".repeat(100_000), &[(1, 33, "nested deeper than 32 levels")]);
    expect(&format!("#{}\n", "x".repeat(1 << 20)), &[(0, 0, "larger than 1 MiB")]);
    expect(
        "{}",
        &[
            (1, 1, "`server.tls` is missing"),
            (1, 1, "the file lacks `routes`"),
            (1, 1, "the file lacks `upstreams`"),
        ],
    );
}

#[test]
fn loading() {
    let folder = std::env::temp_dir().join(format!("ssegate-load-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("c.yaml");
    let drawn = load(&file).unwrap_err().to_string();
    assert!(
        drawn.contains("cannot read the configuration file: No such file") && drawn.ends_with("c.yaml"),
        "{drawn}"
    );
    std::fs::write(&file, b"a: b\nc: \xff\n").unwrap();
    let drawn = load(&file).unwrap_err().to_string();
    assert!(drawn.contains("c.yaml:2\n") && drawn.contains("not UTF-8"), "{drawn}");
    // A value is read from a file beside the configuration.
    std::fs::write(folder.join("data"), "from a file\n").unwrap();
    let text = format!("server: {{ tls: none }}\n{}", TAIL.replace("{}", "{ data: 'file:data' }"));
    std::fs::write(&file, &text).unwrap();
    let config = load(&file).unwrap();
    assert!(
        matches!(&config.upstreams[0].kind, UpstreamKind::Ticker(ticker) if &*ticker.data == "from a file")
    );
    std::fs::write(&file, text.replace("file:data", "file:nothing")).unwrap();
    let drawn = load(&file).unwrap_err().to_string();
    assert!(drawn.contains("nothing`: No such file") && drawn.contains("c.yaml:2:"), "{drawn}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn secrets_do_not_show() {
    let config = sound(EXAMPLE);
    assert!(!format!("{config:?}").contains("hunter2") && !summary(&config).contains("hunter2"));
    // `problems` looks for them itself; each text has one on the line of a problem.
    for text in [
        "upstreams: { r: { redis: { url: redis://:hunter2@h, x: y } } }",
        "upstreams: { r: { redis: { url: 'redis://:${HIDDEN}@h', x: y } } }",
        "upstreams: { k: { kafka: { x: y, properties: { ssl.key.password: hunter2 } } } }",
        "upstreams: { k: { kafka: { x: y, properties: { ssl.key.pem: 'file:/hunter3' } } } }",
        "upstreams: { k: { kafka: { x: y, properties: { sasl.password:hunter2 } } } }",
        "upstreams: { k: { kafka: { properties: { sasl.password: hunter2 } } }",
        "upstreams: { k: { kafka: sasl.password:hunter2 } }",
        "sasl.password: hunter2 hunter2 # hunter2",
        "upstreams: hunter3 # redis://:hunter2@h",
        "redis://:hunter2@h",
        "redis://:hunter2@h: x",
        "upstreams: { k: { kafka: { properties: { sasl.password: *hunter2 } } } }",
        "upstreams: { k: { kafka: { properties: { sasl.password: !hunter2 x } } } }",
        "upstreams: { r: { redis: { url: *hunter2 } } }",
        "upstreams: { r: { redis: { url: [redis://hunter2] } } }",
        "upstreams: { r: { redis: 'redis:/:hunter2@h' } }",
        "upstreams: { k: { kafka: { brokers: 'u:hunter2@h:x' } } }",
        "log: { level: '${HIDDEN}', format: '${HIDDEN}' }",
        "upstreams: { k: { kafka: {} }, sasl.password: hunter2 }",
        "auth:\n  password: hunter2",
        "upstreams: { r: { redis: { url: 'file:redis://:hunter2@h' } } }",
        "routes: [ { path: /x, allow: 'x sasl.password: hunter2' } ]",
        "routes: [ { path: /x, allow: 'a == \"redis://:hunter2@h' } ]",
        "routes:\n  - { path: /x, params: { token: 'hunter2(' } }",
    ] {
        problems(&format!("{text}\n"));
    }
}

#[test]
fn the_example_is_sound() {
    let config = sound(EXAMPLE);
    assert!(matches!(config.server.tls, Tls::SelfSigned));
    let shown = summary(&config);
    assert!(shown.contains("shop.example.com/events/orders  <-  kafka bus topic orders"), "{shown}");
}

#[test]
fn the_example_with_its_alternatives_is_sound() {
    let folder = std::env::temp_dir().join(format!("ssegate-example-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    for name in [
        "fullchain.pem",
        "other.pem",
        "acme-ca.pem",
        "clients-ca.pem",
        "redis-ca.pem",
        "postgres-ca.pem",
        "rabbitmq-ca.pem",
        "redis.pem",
        "app-ca.pem",
        "app.pem",
        "nats-ca.pem",
        "nats.pem",
        "mqtt-ca.pem",
        "mqtt.pem",
        "registry-ca.pem",
        "registry.pem",
    ] {
        std::fs::write(folder.join(name), made.cert.pem()).unwrap();
    }
    std::fs::write(folder.join("issuer.pem"), made.signing_key.public_key_pem()).unwrap();
    std::fs::write(folder.join("deny"), "sub:mallory\n").unwrap();
    for name in ["privkey.pem", "other.key", "redis.key", "app.key", "nats.key", "mqtt.key", "registry.key"] {
        std::fs::write(folder.join(name), made.signing_key.serialize_pem()).unwrap();
    }
    std::fs::write(folder.join("ticket-keys"), "ab".repeat(32)).unwrap();
    let credentials = format!(
        "-----BEGIN NATS USER JWT-----\ne30\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        env("NATS_NKEY").unwrap()
    );
    std::fs::write(folder.join("nats.creds"), credentials).unwrap();
    let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/schemas");
    for name in ["order.avsc", "order.proto", "item.proto"] {
        std::fs::copy(schemas.join(name), folder.join(name)).unwrap();
    }
    let text = with_alternatives().replace("/etc/ssegate/tls", &folder.display().to_string());
    let text = text.replace("/etc/ssegate/schemas", &folder.display().to_string());
    let Tls::Certificates(tls) = sound(&text).server.tls else { panic!("the alternative") };
    assert!(tls.acme.is_some() && tls.client.is_some() && tls.tickets.is_some());
    std::fs::remove_dir_all(&folder).unwrap();
}

/// The example with each line that stands as `#key: value` in place of the one above it, and those that follow and stand
/// further in below it.
fn with_alternatives() -> String {
    let mut lines: Vec<String> = Vec::new();
    // How far in the first of several lines stands.
    let mut head = None;
    for line in EXAMPLE.lines() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        let within = head.is_some_and(|head| indent > head);
        match trimmed.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase())) {
            Some(rest) if within => lines.push(line.replacen(trimmed, rest, 1)),
            Some(rest) => {
                *lines.last_mut().unwrap() = line.replacen(trimmed, rest, 1);
                head = Some(indent);
            }
            None => {
                head = head.filter(|_| within && trimmed.starts_with('#'));
                lines.push(line.to_owned());
            }
        }
    }
    lines.join("\n") + "\n"
}

#[test]
fn the_example_shows_every_key() {
    let text = with_alternatives();
    let mut shown = BTreeSet::new();
    collect(&tree(&text), "", &mut |path, _| {
        shown.insert(path);
    });
    let missing: Vec<String> = all_keys().into_iter().filter(|key| !shown.contains(key)).collect();
    assert!(missing.is_empty(), "config.example.yaml lacks {missing:?}");
}

/// A key that is in the table and that nothing reads would be accepted and ignored.
#[test]
fn every_key_is_read() {
    let source = with_alternatives();
    let text = Text::new(&source);
    for key in all_keys() {
        let mut root = tree(&source);
        let span = spoil(&mut root, "", &key).unwrap();
        let masks = Masks::default();
        let walk = Walk::new(&text, &masks, &env, Path::new(""));
        super::read(&walk, &root);
        let found = walk.into_problems();
        assert!(found.iter().any(|problem| problem.at == Some(span)), "{key} is not read: {found:?}");
    }
}

/// Puts a list of lists, which is no value of any key, where `key` first stands.
fn spoil(node: &mut Node, path: &str, key: &str) -> Option<Span> {
    if path == key {
        let list = |items| Node { span: node.span, value: Value::List(items) };
        *node = list(vec![list(vec![list(vec![])])]);
        return Some(node.span);
    }
    match &mut node.value {
        Value::Map(entries) => entries.iter_mut().find_map(|entry| {
            let name = if matches!(path, "upstreams" | "auth" | "schema_registries") {
                "*"
            } else {
                &entry.key.text
            };
            spoil(&mut entry.value, &join(path, name), key)
        }),
        Value::List(items) => items.iter_mut().find_map(|item| spoil(item, &join(path, "[]"), key)),
        _ => None,
    }
}

/// `section.key` for every key that the code knows.
fn all_keys() -> Vec<String> {
    keys::all().into_iter().map(|(path, _)| path).collect()
}

fn tree(text: &str) -> Node {
    tree::parse(text, &mut |problem| panic!("{problem:?}")).unwrap()
}

/// Every value with its path, names of upstreams, providers and registries as `*`.
fn collect<'n>(node: &'n Node, path: &str, take: &mut dyn FnMut(String, &'n Node)) {
    match &node.value {
        Value::Map(entries) => {
            for entry in entries {
                let name = if matches!(path, "upstreams" | "auth" | "schema_registries") {
                    "*"
                } else {
                    &entry.key.text
                };
                take(join(path, name), &entry.value);
                collect(&entry.value, &join(path, name), take);
            }
        }
        Value::List(items) => items.iter().for_each(|item| collect(item, &join(path, "[]"), take)),
        _ => {}
    }
}

/// Whatever the text, there is an answer, and a problem has a place.
fn survives(text: &str) {
    let result: Result<Config, _> = parse("c.yaml", text, &env);
    match result {
        Ok(config) => assert!(!summary(&config).is_empty()),
        Err(problems) => assert!(problems.to_string().ends_with("in c.yaml")),
    }
}

proptest! {
    #[test]
    fn random_text_never_panics(text in "\\PC{0,200}|[\\[\\]{}:, \n\t&*!|>'\"#%@$a-c0-9-]{0,200}") {
        survives(&text);
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        survives(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_changed_example_never_panics(changes in proptest::collection::vec((any::<prop::sample::Index>(), 0_usize..30, "[\\[\\]{}:, \n&*!|>'\"#$a-c0-9/é-]{0,4}"), 1..6)) {
        let mut text = EXAMPLE.to_owned();
        for (at, cut, with) in changes {
            let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            let start = *at.get(&starts);
            let end = text.char_indices().map(|(at, _)| at).find(|at| *at >= start + cut).unwrap_or(text.len());
            text.replace_range(start..end, &with);
        }
        survives(&text);
    }

    #[test]
    fn a_value_of_any_text_never_panics(value in "\\PC{0,40}") {
        let quoted = format!("'{}'", value.replace('\'', "''"));
        for place in ["from: { upstream: t }, path", "path: '/{p}', from: { upstream: r, channel: x }, event", "path: /x, from: { upstream: t }, cors", "path: /x, from: { upstream: t }, allow"] {
            survives(&format!("{HEAD}  - {{ {place}: {quoted} }}\n"));
        }
        survives(&HEAD.replace("redis://localhost", &quoted));
    }
}

#[test]
fn paths_are_taken_from_the_folder_of_the_file() {
    let drawn =
        parse("/nowhere/conf/c.yaml", &format!("server: {{ tls: {{ cert: a, key: /b }} }}\n{TAIL}"), &env);
    let drawn = drawn.unwrap_err().to_string();
    assert!(drawn.contains("cannot read `/nowhere/conf/a`") && drawn.contains("cannot read `/b`"), "{drawn}");
}
