//! nginx with nchan, one worker.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Instant;

use anyhow::bail;

use crate::args::Options;
use crate::publish::road::Road;
use crate::server::cert::Certificate;
use crate::server::child::Child;
use crate::server::start::{PAUSE, START, Started, free_address, wait_for};

/// Whether it is there.
///
/// # Errors
/// Where it is not.
pub fn installed() -> anyhow::Result<()> {
    if !Path::new(MODULE).exists() {
        bail!("{MODULE} is missing: apt-get install nginx libnginx-mod-nchan");
    }
    Ok(())
}

/// Starts it, with its files in `folder`.
///
/// # Errors
/// Where it does not start.
pub fn start(options: &Options, folder: &str) -> anyhow::Result<Started> {
    let certificate = Certificate::make(options, folder)?;
    let (public, publisher) = (free_address()?, free_address()?);
    let config = format!("{folder}/nginx.conf");
    fs::write(&config, configuration(options, certificate, folder, public, publisher))?;
    let log = File::create(format!("{folder}/nginx.log"))?;
    let arguments = ["nginx", "-p", folder, "-c", &config, "-e", "stderr"];
    let mut master = Child::start(&arguments, options.server_cores(), |command| {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log)
    })?;
    wait_for(&mut master, public)?;
    await_worker(&mut master)?;
    let road = Road::Post { addr: publisher, path: "/publish/{}".to_owned() };
    Ok(Started { children: vec![master], public, path: |channel| format!("/events/{channel}"), road })
}

/// nginx listens before it has a worker.
fn await_worker(master: &mut Child) -> anyhow::Result<()> {
    let pid = master.pid();
    let deadline = Instant::now() + START;
    while master.ended()?.is_none() && Instant::now() < deadline {
        if !fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?.trim().is_empty() {
            return Ok(());
        }
        sleep(PAUSE);
    }
    bail!("nginx has no worker")
}

fn configuration(
    options: &Options,
    certificate: Option<Certificate>,
    folder: &str,
    public: SocketAddr,
    publisher: SocketAddr,
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
  http2_max_concurrent_streams 250;
{temporary}  nchan_max_reserved_memory 512M;
  nchan_message_buffer_length 1000;
  nchan_message_timeout 10m;
  server {{
    listen {public} {tls}backlog=4096;
    {files}
    location ~ ^/events/(.+)$ {{ nchan_subscriber eventsource; nchan_channel_id $1; nchan_subscriber_first_message newest; }}
  }}
  server {{
    listen {publisher};
    keepalive_requests 1000000000;
    location ~ ^/publish/(.+)$ {{ nchan_publisher; nchan_channel_id $1; }}
  }}
}}
"
    )
}

const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";
