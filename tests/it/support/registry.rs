//! A schema registry for the tests: a real Apicurio Registry, which speaks as Confluent's does, as a child process with
//! its schemas in memory. All tests share one, and use subjects of their own.
//!
//! `target/registry` keeps the program, which Maven fetches once.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::child::{self, Child};
use super::http::{Connect, Link, build, request};
use super::wait::eventually;
use super::{ports, scratch};

const VERSION: &str = "3.0.9";

/// A running registry.
pub struct Registry {
    _server: Child,
    port: u16,
    _dir: TempDir,
}

impl Registry {
    /// The one that all tests of this binary share. Nobody may stop it.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Registry> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    async fn start() -> Self {
        let home = tokio::task::spawn_blocking(home).await.expect("no panic");
        let home = home.unwrap_or_else(|why| panic!("there is no Apicurio Registry: {why}"));
        let (port, dir) = (ports::free(), scratch::dir("registry"));
        let log = dir.path().join("log");
        let file = File::create(&log).expect("create the log");
        let mut command = child::command("java");
        command.args(JVM_FLAGS).arg("-jar").arg(runner(&home));
        command.env("QUARKUS_HTTP_HOST", "127.0.0.1").env("QUARKUS_HTTP_PORT", port.to_string());
        command.stdout(file.try_clone().expect("a second handle")).stderr(file);
        let mut registry = Self { _server: Child::spawn(command), port, _dir: dir };
        let url = registry.url();
        eventually("the registry to answer", async || {
            if let Some(status) = registry._server.try_wait() {
                panic!(
                    "the registry ends at once, {status}: {}",
                    fs::read_to_string(&log).unwrap_or_default()
                );
            }
            match try_get(&format!("{url}/subjects")).await {
                Ok(200) => Ok(()),
                Ok(status) => Err(format!("it answers {status}")),
                Err(error) => Err(error),
            }
        })
        .await;
        registry
    }

    /// What stands as `url` in the configuration.
    pub fn url(&self) -> String {
        format!("http://{}{PATH}", self.addr())
    }

    /// The same by another way to it.
    pub fn url_by(&self, addr: SocketAddr) -> String {
        format!("http://{addr}{PATH}")
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Registers a schema under a subject, and returns its id. `references` are names with the subjects of what they are.
    pub async fn register(
        &self,
        subject: &str,
        kind: &str,
        schema: &str,
        references: &[(&str, &str)],
    ) -> u32 {
        let references: Vec<Value> = references
            .iter()
            .map(|(name, subject)| json!({ "name": name, "subject": subject, "version": 1 }))
            .collect();
        let body = json!({ "schemaType": kind, "schema": schema, "references": references }).to_string();
        let url = format!("{}/subjects/{subject}/versions", self.url());
        let headers = [("content-type", "application/json")];
        let answer = request(Method::POST, &url, &headers, body, &Connect::http1()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["id"].as_u64().expect("an id") as u32
    }
}

async fn try_get(url: &str) -> Result<u16, String> {
    let link = Link::open(url, &Connect::http1()).await.map_err(|error| error.to_string())?;
    let answer = link.send(build(Method::GET, url, &[], "")).await;
    answer.map(|answer| answer.status().as_u16()).map_err(|error| error.to_string())
}

/// Where its program is. Blocks, for a minute or more the first time.
fn home() -> Result<PathBuf, String> {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("registry").join(VERSION);
    let fetch = || -> io::Result<()> {
        fs::create_dir_all(&home)?;
        // Only one of several test binaries asks Maven; the others find what it brought.
        let lock = File::create(home.join("lock"))?;
        lock.lock()?;
        if home.join("done").exists() {
            return Ok(());
        }
        super::kafka::say("fetching Apicurio Registry from Maven Central, once");
        let artifact = format!("-Dartifact=io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all");
        let output = format!("-DoutputDirectory={}", home.display());
        run("mvn", &["-B", "-q", "dependency:copy", &artifact, &output])?;
        let archive = home.join(format!("apicurio-registry-app-{VERSION}-all.tar.gz"));
        run("tar", &["-xzf", &archive.display().to_string(), "-C", &home.display().to_string()])?;
        fs::remove_file(archive)?;
        File::create(home.join("done")).map(drop)
    };
    fetch().map_err(|error| error.to_string())?;
    Ok(home)
}

fn runner(home: &Path) -> PathBuf {
    home.join(format!("apicurio-registry-app-{VERSION}-runner.jar"))
}

fn run(program: &str, args: &[&str]) -> io::Result<()> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    Err(io::Error::other(format!(
        "{program}: {}: {}",
        output.status,
        said.lines().next().unwrap_or_default()
    )))
}

/// Its Confluent-compatible API.
const PATH: &str = "/apis/ccompat/v7";
/// Small and quick to start.
const JVM_FLAGS: &[&str] = &[
    "-Xmx384m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-Dquarkus.log.level=WARN",
];
