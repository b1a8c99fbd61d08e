//! nginx, one worker: what nchan runs in, and what compresses the streams of a server behind it.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Instant;

use anyhow::bail;

use crate::args::{Coding, Options, Via};
use crate::server::cert::Certificate;
use crate::server::child::Child;
use crate::server::ssegate;
use crate::server::start::{PAUSE, START, Started, free_address, wait_for};

/// Whether it is there.
///
/// # Errors
/// Where it is not.
pub fn installed() -> anyhow::Result<()> {
    if Command::new("nginx").arg("-v").output().is_err() {
        bail!("nginx is missing: apt-get install nginx");
    }
    Ok(())
}

/// Starts one before an ssegate that does not compress, with a route of this linger and its files in `folder`. Only nginx
/// is measured.
///
/// # Errors
/// Where one of them does not start.
pub fn start(options: &Options, linger: u32, folder: &str) -> anyhow::Result<Started> {
    let plain = Options { plain: true, h2: false, coding: Coding::Identity, ..options.clone() };
    let behind = ssegate::start(&plain, Via::Push, linger, folder)?;
    let location = compressing(options, &behind.public.to_string());
    let site = Site { main: String::new(), http: String::new(), location };
    let (nginx, public) = site.start(options, folder)?;
    Ok(Started { children: vec![nginx], beside: behind.children, public, ..behind })
}

/// A location that compresses what comes from `upstream`, each piece as soon as it has come: `gzip` flushes where
/// nothing is buffered.
pub fn compressing(options: &Options, upstream: &str) -> String {
    let level = options.level.map(|level| format!("gzip_comp_level {level}; ")).unwrap_or_default();
    format!(
        "location / {{ gzip on; gzip_types text/event-stream; {level}proxy_pass http://{upstream}; \
         proxy_buffering off; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_read_timeout 1h; }}"
    )
}

/// What one is to do.
pub struct Site {
    /// What its configuration begins with.
    pub main: String,
    /// What else is for HTTP: settings, and servers of their own.
    pub http: String,
    /// What the server that clients connect to does.
    pub location: String,
}

impl Site {
    /// Starts one with its files in `folder`, and tells where clients connect.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start(&self, options: &Options, folder: &str) -> anyhow::Result<(Child, SocketAddr)> {
        let certificate = Certificate::make(options, folder)?;
        let public = free_address()?;
        let config = format!("{folder}/nginx.conf");
        fs::write(&config, self.configuration(options, certificate, folder, public))?;
        let log = File::create(format!("{folder}/nginx.log"))?;
        let arguments = ["nginx", "-p", folder, "-c", &config, "-e", "stderr"];
        let mut master = Child::start(&arguments, options.server_cores(), |command| {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log)
        })?;
        wait_for(&mut master, public)?;
        await_worker(&mut master)?;
        Ok((master, public))
    }

    fn configuration(
        &self,
        options: &Options,
        certificate: Option<Certificate>,
        folder: &str,
        public: SocketAddr,
    ) -> String {
        let (tls, files) = match certificate {
            None => ("", String::new()),
            Some(Certificate { cert, key }) => (
                if options.h2 { "ssl http2 " } else { "ssl " },
                format!("ssl_protocols TLSv1.3; ssl_certificate {cert}; ssl_certificate_key {key};"),
            ),
        };
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("  {kind}_temp_path {folder}/{kind};\n"))
            .concat();
        let Self { main, http, location } = self;
        format!(
            "{main}
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
  http2_max_concurrent_streams 250;
{temporary}  {http}
  server {{
    listen {public} {tls}backlog=4096;
    {files}
    {location}
  }}
}}
"
        )
    }
}

/// nginx listens before it has a worker.
fn await_worker(master: &mut Child) -> anyhow::Result<()> {
    let pid = master.pid();
    let children = format!("/proc/{pid}/task/{pid}/children");
    let deadline = Instant::now() + START;
    while master.ended()?.is_none() && Instant::now() < deadline {
        if !fs::read_to_string(&children)?.trim().is_empty() {
            return Ok(());
        }
        sleep(PAUSE);
    }
    bail!("nginx has no worker")
}
