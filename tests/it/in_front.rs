//! What stands in front, as `contrib/` configures it: the real HAProxy and the real nginx, with addresses of the test's, and
//! the manifests for Kubernetes as far as they speak of ssegate.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::support::child::{self, Child};
use crate::support::eventsource::{EventSource, Options};
use crate::support::http::Connect;
use crate::support::ssegate::Ssegate;
use crate::support::tls::TestCa;
use crate::support::wait::eventually;
use crate::support::{ports, scratch};
use crate::tls::pair;

#[tokio::test]
async fn haproxy_passes_tls_through_and_says_who_the_client_is() {
    let tls = pair(TestCa::shared().leaf());
    let mut replicas = Replicas::start(&format!("tls: {{ {tls} }}, proxy_protocol: v2")).await;
    let front = Front::new("haproxy");
    let [one, other] = replicas.servers();
    let [admin, other_admin] = replicas.admins();
    let config = front.config(
        "haproxy/haproxy.cfg",
        &[
            ("maxconn 50000", "maxconn 1000"),
            ("bind :443", &format!("bind {}", front.addr)),
            ("10.0.0.11:8443 check port 9090", &format!("{one} check port {}", admin.port())),
            ("10.0.0.12:8443 check port 9090", &format!("{other} check port {}", other_admin.port())),
            // Times that nobody waits for, but that keepalives of a second are within.
            ("timeout client 1m", "timeout client 8s"),
            ("timeout server 1m", "timeout server 8s"),
            ("timeout tunnel 1m", "timeout tunnel 8s"),
        ],
    );
    let config = config.to_str().unwrap();
    check("haproxy", &["-c", "-f", config]);
    let _haproxy = front.start("haproxy", &["-db", "-f", config]).await;
    replicas.are_reached_through(front.addr, "https").await;
    replicas.are_left_without_a_refusal(front.addr, "https").await;
}

#[tokio::test]
async fn nginx_ends_tls_or_passes_it_through_and_says_who_the_client_is() {
    let tls = pair(TestCa::shared().leaf());
    let mut behind_http = Replicas::start("tls: none").await;
    let mut behind_stream = Replicas::start(&format!("tls: {{ {tls} }}, proxy_protocol: v1")).await;
    let front = Front::new("nginx");
    let stream_addr = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let ([one, other], [third, fourth]) = (behind_http.servers(), behind_stream.servers());
    let leaf = TestCa::shared().leaf();
    let folder = front.dir.path().to_str().unwrap();
    let unprivileged = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {folder}/{kind};"))
        .join(" ");
    let config = front.config(
        "nginx/nginx.conf",
        &[
            ("\nhttp {\n", &format!("\nhttp {{ {unprivileged}\n")),
            ("error_log /var/log/nginx", &format!("error_log {folder}")),
            ("access_log /var/log/nginx", &format!("access_log {folder}")),
            ("listen 443 ssl", &format!("listen {} ssl", front.addr)),
            ("listen 8443", &format!("listen {stream_addr}")),
            ("/etc/nginx/tls/fullchain.pem", leaf.cert.to_str().unwrap()),
            ("/etc/nginx/tls/privkey.pem", leaf.key.to_str().unwrap()),
            ("10.0.0.11:8080", &one.to_string()),
            ("10.0.0.12:8080", &other.to_string()),
            ("10.0.0.11:8443", &third.to_string()),
            ("10.0.0.12:8443", &fourth.to_string()),
            ("proxy_read_timeout 1m", "proxy_read_timeout 8s"),
            ("proxy_timeout 1m", "proxy_timeout 8s"),
        ],
    );
    let settings = format!("daemon off; pid {folder}/pid;");
    let args = ["-c", config.to_str().unwrap(), "-g", &settings];
    check("nginx", &[&["-t"], &args[..]].concat());
    let _nginx = front.start("nginx", &args).await;
    for (replicas, addr) in [(&mut behind_http, front.addr), (&mut behind_stream, stream_addr)] {
        replicas.are_reached_through(addr, "https").await;
        replicas.are_left_without_a_refusal(addr, "https").await;
    }
}

/// Two ssegates behind something that has this machine's address.
struct Replicas([Ssegate; 2]);

impl Replicas {
    async fn start(server: &str) -> Self {
        let config = format!(
            "server: {{ listen: \"127.0.0.1:0\", {server}, trusted_proxies: [127.0.0.1], drain: 1s }}
upstreams: {{ lobby: {{ push: {{}} }} }}
routes: [ {{ path: /e, from: {{ upstream: lobby, channel: e }}, keepalive: 1s }} ]
"
        );
        Self([Ssegate::start(&*config).await, Ssegate::start(config).await])
    }

    fn servers(&self) -> [SocketAddr; 2] {
        self.0.each_ref().map(Ssegate::addr)
    }

    fn admins(&self) -> [SocketAddr; 2] {
        self.0.each_ref().map(|ssegate| ssegate.addrs("admin")[0])
    }

    /// Streams over both protocols, from two clients, of which one claims to be another.
    async fn are_reached_through(&self, front: SocketAddr, scheme: &str) {
        let url = format!("{scheme}://localhost:{}/e", front.port());
        let http1 = Options::http1().connect(Connect::http1().to(front).from("127.0.0.5"));
        let http2 = Options::http2().connect(Connect::http2().to(front).from("127.0.0.6"));
        let mut streams = [
            EventSource::connect(&url, http1.header("x-forwarded-for", "203.0.113.9")).await,
            EventSource::connect(&url, http2).await,
        ];
        for stream in &mut streams {
            stream.next_named("stream.position").await;
        }
        let mut clients = Vec::new();
        for ssegate in &self.0 {
            let status = ssegate.admin_get("/status/clients").await.json();
            let found = status["clients"].as_array().unwrap().iter();
            clients.extend(found.map(|client| client["client"].as_str().unwrap().to_owned()));
        }
        clients.sort_unstable();
        assert_eq!(clients, ["127.0.0.5", "127.0.0.6"]);
        // Longer than silence may last in front: keepalives are heard.
        for stream in &mut streams {
            stream.until_comments(12).await;
        }
        for ssegate in &self.0 {
            ssegate.publish("e", "hello").await;
        }
        for stream in &mut streams {
            assert_eq!(stream.next_message().await.data, "hello");
        }
    }

    /// The first one ends, and what stands in front may not know yet.
    async fn are_left_without_a_refusal(&mut self, front: SocketAddr, scheme: &str) {
        let url = format!("{scheme}://localhost:{}/e", front.port());
        assert!(self.0[0].terminate().await.success());
        let mut streams = Vec::new();
        for _ in 0..10 {
            let options = Options::http1().connect(Connect::http1().to(front));
            let mut stream = EventSource::connect(&url, options).await;
            stream.next_named("stream.position").await;
            streams.push(stream);
        }
        eventually("all to be with the other one", async || match &self.0[1].status().await["subscribers"] {
            all if *all == 10 => Ok(()),
            some => Err(some.clone()),
        })
        .await;
        self.0[0].kill();
    }
}

/// Where something in front listens, and has its files.
struct Front {
    addr: SocketAddr,
    dir: TempDir,
}

impl Front {
    fn new(name: &str) -> Self {
        Self { addr: SocketAddr::from(([127, 0, 0, 1], ports::free())), dir: scratch::dir(name) }
    }

    /// The file of `contrib/` with other words in some places, each of which it must have.
    fn config(&self, file: &str, instead: &[(&str, &str)]) -> PathBuf {
        let mut text = contrib(file);
        for (found, by) in instead {
            assert!(text.contains(found), "{file} has no {found:?}");
            text = text.replace(found, by);
        }
        let path = self.dir.path().join("config");
        fs::write(&path, text).unwrap();
        path
    }

    async fn start(&self, program: &str, args: &[&str]) -> Child {
        let mut command = child::command(installed(program));
        command.args(args).stdout(Stdio::null());
        let process = Child::spawn(command);
        eventually(program, async || TcpStream::connect(self.addr).await).await;
        process
    }
}

/// Has it check its configuration, which it must find nothing wrong with.
fn check(program: &str, args: &[&str]) {
    let checked = Command::new(installed(program)).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).to_lowercase();
    // From 1.25.1 on nginx would have `http2` written in another way, which older ones do not know.
    let warns =
        said.lines().any(|line| line.contains("warn") && !line.contains("http2\" directive is deprecated"));
    assert!(checked.status.success() && !warns, "{said}");
}

/// Debian has servers where not everybody looks.
fn installed(program: &str) -> PathBuf {
    let path = Path::new("/usr/sbin").join(program);
    if path.exists() { path } else { program.into() }
}

fn contrib(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib").join(file)).unwrap()
}

#[tokio::test]
async fn kubernetes_has_a_configuration_ports_paths_and_times_that_fit_ssegate() {
    let documents: Vec<Value> = serde_yaml::from_multiple(&contrib("kubernetes/ssegate.yaml")).unwrap();
    let of_kind: BTreeMap<&str, &Value> =
        documents.iter().map(|document| (document["kind"].as_str().unwrap(), document)).collect();
    let kinds: Vec<_> = of_kind.keys().copied().collect();
    assert_eq!(kinds, ["ConfigMap", "Deployment", "PodDisruptionBudget", "Service"]);
    let pod = &of_kind["Deployment"]["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let port = |name: &Value| {
        let mut ports = container["ports"].as_array().unwrap().iter();
        let found = ports.find(|port| port["name"] == *name).unwrap_or_else(|| panic!("no port {name}"));
        found["containerPort"].as_u64().unwrap()
    };

    // The configuration as the container has it, with another folder in place of the mounted one.
    let mounts = container["volumeMounts"].as_array().unwrap();
    let mounted = |path: &str| mounts.iter().any(|mount| mount["mountPath"].as_str() == Some(path));
    let args: Vec<_> =
        container["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
    assert_eq!(args, ["serve", "--config", "/etc/ssegate/config.yaml"]);
    assert!(mounted("/etc/ssegate") && mounted("/etc/ssegate-tls"));
    let text = of_kind["ConfigMap"]["data"]["config.yaml"].as_str().unwrap();
    let (dir, leaf) = (scratch::dir("kubernetes"), TestCa::shared().leaf());
    for (name, from) in [("tls.crt", &leaf.cert), ("tls.key", &leaf.key)] {
        assert!(text.contains(&format!("/etc/ssegate-tls/{name}")), "{text}");
        fs::copy(from, dir.path().join(name)).unwrap();
    }
    let here = text.replace("/etc/ssegate-tls", dir.path().to_str().unwrap());
    let token = "0123456789abcdef0123456789abcdef0123456789abcdef";
    let checked = Ssegate::builder().config(here).env("ADMIN_TOKEN", token).check().await;
    assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");
    let config: Value = serde_yaml::from_str(text).unwrap();
    let listens = |listen: &Value, port: u64| assert_eq!(listen.as_str(), Some(&*format!("0.0.0.0:{port}")));
    listens(&config["server"]["listen"], port(&of_kind["Service"]["spec"]["ports"][0]["targetPort"]));

    // Probes ask what the admin listener tells everybody.
    let ssegate = Ssegate::start(
        "admin: { listen: \"127.0.0.1:0\", token: 0123456789abcdef }
upstreams: { t: { ticker: {} } }
routes: [ { path: /t, from: { upstream: t } } ]
",
    )
    .await;
    for probe in ["readinessProbe", "livenessProbe"] {
        let get = &container[probe]["httpGet"];
        listens(&config["admin"]["listen"], port(&get["port"]));
        let path = get["path"].as_str().unwrap();
        eventually(path, async || match ssegate.admin_get(path).await.status.as_u16() {
            200 => Ok(()),
            status => Err(status.to_string()),
        })
        .await;
    }

    // Time to end, of which a few seconds are for connections.
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    let hook = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
    let drain = config["server"]["drain"].as_str().unwrap().strip_suffix('s').unwrap();
    assert!(grace >= hook + drain.parse::<u64>().unwrap() + 5, "{grace} {hook} {drain}");

    // All speak of the same pods.
    let labels = &of_kind["Deployment"]["spec"]["template"]["metadata"]["labels"];
    assert!(labels.as_object().is_some_and(|labels| !labels.is_empty()));
    for selector in [
        &of_kind["Deployment"]["spec"]["selector"]["matchLabels"],
        &of_kind["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        &of_kind["Service"]["spec"]["selector"],
    ] {
        assert_eq!(selector, labels);
    }
}
