//! Servers to compare with: nginx with nchan, one worker, set up to do the same.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Instant;

use anyhow::bail;

use crate::args::Options;
use crate::child::Child;
use crate::ssegate::{CHANNEL, PATH, PAUSE, START, free_address, wait_for};

/// A running nginx.
pub struct Nchan {
    /// The process that was started; it ends the worker.
    pub master: Child,
    /// The process that does the work.
    pub worker: u32,
    /// Where clients connect.
    pub public: SocketAddr,
    /// Where events are posted.
    pub publisher: SocketAddr,
}

impl Nchan {
    /// Starts it, with its files in `folder`.
    ///
    /// # Errors
    /// Where a package is missing, or it does not start.
    pub fn start(options: &Options, folder: &str) -> anyhow::Result<Self> {
        if !Path::new(MODULE).exists() {
            bail!("{MODULE} is missing: apt-get install nginx libnginx-mod-nchan");
        }
        if !options.plain {
            certificate(folder)?;
        }
        let (public, publisher) = (free_address()?, free_address()?);
        let config = format!("{folder}/nginx.conf");
        fs::write(&config, configuration(options, folder, public, publisher))?;
        let log = File::create(format!("{folder}/nginx.log"))?;
        let arguments = ["nginx", "-p", folder, "-c", &config, "-e", "stderr"];
        let mut master = Child::start(&arguments, options.server_core(), |command| {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log)
        })?;
        wait_for(&mut master, public)?;
        let worker = worker(&mut master)?;
        Ok(Self { master, worker, public, publisher })
    }
}

/// nginx listens before it has a worker.
fn worker(master: &mut Child) -> anyhow::Result<u32> {
    let pid = master.pid();
    let deadline = Instant::now() + START;
    while master.ended()?.is_none() && Instant::now() < deadline {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        if let Some(child) = children.split_whitespace().next() {
            return Ok(child.parse()?);
        }
        sleep(PAUSE);
    }
    bail!("nginx has no worker")
}

/// The same kind that ssegate makes for itself.
fn certificate(folder: &str) -> anyhow::Result<()> {
    let (key, cert) = (format!("{folder}/key.pem"), format!("{folder}/cert.pem"));
    let arguments = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-keyout",
        &key,
        "-out",
        &cert,
    ];
    let mut openssl = Child::start(&arguments, None, |command| command.stderr(Stdio::null()))?;
    let status = openssl.process().wait()?;
    if !status.success() {
        bail!("openssl could not make a certificate ({status})");
    }
    Ok(())
}

fn configuration(options: &Options, folder: &str, public: SocketAddr, publisher: SocketAddr) -> String {
    let (tls, files) = if options.plain {
        ("", String::new())
    } else {
        let files = format!(
            "ssl_protocols TLSv1.3; ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;"
        );
        ("ssl ", files)
    };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {folder}/{kind};\n"))
        .concat();
    format!(
        "load_module {MODULE};
daemon off;
user root;
worker_processes 1;
worker_rlimit_nofile 20000;
error_log stderr error;
pid {folder}/nginx.pid;
events {{ worker_connections 19000; }}
http {{
  access_log off;
  tcp_nodelay on;
{temporary}  nchan_max_reserved_memory 512M;
  nchan_message_buffer_length 1000;
  nchan_message_timeout 10m;
  server {{
    listen {public} {tls}backlog=4096;
    {files}
    location = {PATH} {{ nchan_subscriber eventsource; nchan_channel_id {CHANNEL}; nchan_subscriber_first_message newest; }}
  }}
  server {{
    listen {publisher};
    keepalive_requests 1000000000;
    location = /publish {{ nchan_publisher; nchan_channel_id {CHANNEL}; }}
  }}
}}
"
    )
}

const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";
