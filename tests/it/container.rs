//! The Dockerfile as far as it can be held to its word without an engine: what it copies is what the build reads, and what it
//! runs is there.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::support::command::run;
use crate::support::eventsource::{EventSource, Options};
use crate::support::ports;
use crate::support::ssegate::Ssegate;
use crate::support::wait::eventually;

/// The words of an instruction in its JSON form.
fn words(instruction: &str) -> Vec<String> {
    let text = read("Dockerfile").replace("\\\n", " ");
    let line =
        text.lines().find(|line| line.starts_with(instruction)).unwrap_or_else(|| panic!("no {instruction}"));
    serde_json::from_str(&line[line.find('[').expect("the JSON form")..]).expect("an array of words")
}

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

#[tokio::test]
async fn it_serves_what_is_mounted_and_its_health_is_readiness() {
    assert_eq!(words("ENTRYPOINT"), ["/usr/bin/ssegate"]);
    assert_eq!(words("CMD"), ["serve", "--config", CONFIG]);
    let health = words("HEALTHCHECK");
    assert_eq!(health[0], "/usr/bin/ssegate");
    let mut ssegate = Ssegate::start(format!(
        "server: {{ listen: \"127.0.0.1:0\", tls: none, drain: 5m }}
admin: {{ listen: \"127.0.0.1:{}\" }}
upstreams: {{ gone: {{ redis: {{ url: \"redis://127.0.0.1:1\" }} }} }}
routes: [ {{ path: /e, from: {{ upstream: gone, channel: e }} }} ]
",
        ports::free()
    ))
    .await;
    let here = ssegate.config_path().display().to_string();
    let args: Vec<_> =
        health[1..].iter().map(|word| if word == CONFIG { &here } else { word }.as_str()).collect();
    // An upstream that is down does not make it unhealthy.
    eventually("health", async || {
        let checked = run(&args).await;
        if checked.status.success() { Ok(()) } else { Err(format!("{checked:?}")) }
    })
    .await;
    let _stay = [
        EventSource::connect(ssegate.url("/e"), Options::http1()).await,
        EventSource::connect(ssegate.url("/e"), Options::http1()).await,
    ];
    ssegate.signal(Signal::TERM);
    ssegate.wait_log("the drain", |line| line["message"] == "draining").await;
    let checked = run(&args).await;
    assert_eq!((checked.status.code(), &*checked.stdout.join("")), (Some(1), "draining"), "{checked:?}");
}

const CONFIG: &str = "/etc/ssegate/config.yaml";

#[test]
fn the_build_has_all_that_it_reads_and_the_rust_that_it_needs() {
    let ignored = read(".dockerignore");
    let admitted: Vec<_> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(ignored.lines().any(|line| line == "*"), "nothing else is");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for file in sources(&root.join("src")) {
        let text = fs::read_to_string(&file).unwrap();
        for included in text.split("include_str!(\"").chain(text.split("include_bytes!(\"")).skip(1) {
            let Some((path, _)) = included.split_once("\")") else { continue };
            let Ok(path) = file.parent().unwrap().join(path).canonicalize() else { continue };
            let path =
                path.strip_prefix(root.canonicalize().unwrap()).expect("within the repository").to_owned();
            assert!(admitted.iter().any(|admitted| path.starts_with(admitted)), "{path:?} is not admitted");
            seen += 1;
        }
    }
    assert!(seen > 3, "{seen}");
    let manifest = read("Cargo.toml");
    let (_, rust) = manifest.split_once("rust-version = \"").unwrap();
    let (rust, _) = rust.split_once('"').unwrap();
    assert!(read("Dockerfile").contains(&format!("FROM rust:{rust}-")), "Rust {rust}");
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let rust = files.into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs"));
    rust.chain(folders.iter().flat_map(|folder| sources(folder))).collect()
}
