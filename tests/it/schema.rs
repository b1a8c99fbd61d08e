//! `config.schema.json`, `ssegate explain`, completions and the manual page: what is made of the program itself.

use std::path::Path;

use boon::{Compiler, Draft, Schemas};
use serde_json::{Value, json};

use crate::support::command::run;
use crate::support::scratch;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

#[tokio::test]
async fn the_schema_in_the_repository_is_the_programs() {
    let printed = run(&["schema"]).await.stdout.join("\n") + "\n";
    let renew = "renew it: cargo run -- schema > config.schema.json";
    assert!(
        printed == read("config.schema.json"),
        "config.schema.json is not what `ssegate schema` prints; {renew}"
    );
    assert!(read("config.example.yaml").starts_with("# yaml-language-server: $schema=config.schema.json\n"));
}

/// Why a configuration does not go by the schema.
struct Validator(Schemas, boon::SchemaIndex);

impl Validator {
    fn new() -> Self {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.set_default_draft(Draft::V2020_12);
        let schema: Value = serde_json::from_str(&read("config.schema.json")).unwrap();
        compiler.add_resource("config.schema.json", schema).unwrap();
        // It is itself held against the schema of schemas.
        let index = compiler.compile("config.schema.json", &mut schemas).unwrap();
        Self(schemas, index)
    }

    fn judge(&self, value: &Value) -> Result<(), String> {
        self.0.validate(value, self.1).map_err(|error| format!("{error:#}"))
    }
}

fn parsed(yaml: &str) -> Value {
    serde_yaml::from_str(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}

/// A part of a configuration, with what it must have besides.
fn completed(yaml: &str) -> Value {
    let mut value = parsed(yaml);
    for (key, missing) in [
        ("server", json!({})),
        ("upstreams", json!({ "t": { "ticker": {} } })),
        ("routes", json!([{ "path": "/t", "from": { "upstream": "t" } }])),
    ] {
        value.as_object_mut().unwrap().entry(key).or_insert(missing);
    }
    value["server"].as_object_mut().unwrap().entry("tls").or_insert("none".into());
    value
}

#[test]
fn what_is_documented_goes_by_the_schema() {
    let validator = Validator::new();
    validator.judge(&parsed(&read("config.example.yaml"))).unwrap();
    let readme = read("README.md");
    let blocks = readme.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut seen = 0;
    // Some show routes or settings alone.
    for block in blocks.filter(|block| block.starts_with(|c: char| c.is_ascii_lowercase())) {
        validator.judge(&completed(block)).unwrap_or_else(|why| panic!("{why}\n{block}"));
        seen += 1;
    }
    assert!(seen >= 3, "{seen} configurations in README.md");
}

#[test]
fn mistakes_do_not_go_by_the_schema() {
    let validator = Validator::new();
    let sound = "server: { tls: none }\nupstreams: { t: { ticker: } }\nroutes: [ { path: /t, from: { upstream: t } } ]\n";
    validator.judge(&parsed(sound)).unwrap();
    for (was, is) in [
        ("tls: none", "tls: maybe"),
        ("tls: none", "listen: \"0.0.0.0:1\""),
        ("tls: none", "tls: none, drian: 5s"),
        ("tls: none", "tls: none, drain: 5"),
        ("tls: none", "tls: none, drain: 5 s"),
        ("ticker:", "tikker:"),
        ("ticker: }", "ticker: {}, push: {} }"),
        ("ticker:", "redis:"),
        ("from: { upstream: t }", "keepalive: 1s"),
        ("from: { upstream: t }", "from: { upstream: t }, proxy: http://127.0.0.1:1"),
        ("from: { upstream: t }", "from: { upstream: t }, history: { events: 10000001 }"),
        ("from: { upstream: t }", "from: { upstream: t }, buffer: 1 MiB"),
        ("from: { upstream: t }", "from: { upstream: t }, replay: { concurrency: 4 }"),
    ] {
        let bad = sound.replace(was, is);
        assert!(validator.judge(&parsed(&bad)).is_err(), "{bad}");
    }
    for (was, is) in [
        ("tls: none", "tls: none, drain: 0"),
        ("tls: none", "tls: none, drain: \"${DRAIN}\""),
        (
            "from: { upstream: t }",
            "from: { upstream: t }, limits: { streams: none, feeds: \"${FEEDS}\" }, buffer: 65536",
        ),
        (
            "from: { upstream: t }",
            "from: { upstream: t }, max_age: 1h30m, compress: [zstd], cors: { origins: [a, { regex: b }] }",
        ),
        ("from: { upstream: t }", "proxy: { to: http://127.0.0.1:1 }"),
    ] {
        let good = sound.replace(was, is);
        validator.judge(&parsed(&good)).unwrap_or_else(|why| panic!("{why}\n{good}"));
    }
}

#[tokio::test]
async fn keys_are_explained() {
    let key = run(&["explain", "routes.replay.max_events"]).await;
    let text = key.stdout.join("\n");
    assert!(key.status.success() && text.contains("routes[].replay.max_events"), "{text}");
    assert!(text.contains("Bounds   0 to 1000000000"), "{text}");
    let sections = run(&["explain"]).await.stdout.join("\n");
    assert!(sections.contains("  upstreams  "), "{sections}");
    let typo = run(&["explain", "routes.keepalvie"]).await;
    assert_eq!(typo.status.code(), Some(1));
    assert!(typo.stderr[0].contains("did you mean `keepalive`?"), "{typo:?}");
}

#[tokio::test]
async fn completions_and_manual_pages_know_every_command() {
    let commands = [
        "serve",
        "check",
        "demo",
        "tail",
        "status",
        "top",
        "upgrade",
        "explain",
        "schema",
        "completions",
        "man",
    ];
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]).await;
        let text = script.stdout.join("\n");
        assert!(script.status.success() && commands.iter().all(|command| text.contains(command)), "{shell}");
    }
    let page = run(&["man"]).await.stdout.join("\n");
    assert!(
        page.contains(".TH ssegate 1") && commands.iter().all(|command| page.contains(command)),
        "{page}"
    );
    let folder = scratch::dir("man");
    let written = run(&["man", &folder.path().join("man1").display().to_string()]).await;
    assert!(written.status.success(), "{written:?}");
    let page = std::fs::read_to_string(folder.path().join("man1/ssegate-tail.1")).unwrap();
    assert!(page.contains("\\-\\-since") && page.contains("130"), "{page}");
}
