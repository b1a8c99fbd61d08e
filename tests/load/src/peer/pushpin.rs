//! Pushpin: condure, which does TLS and HTTP, the proxy, the handler, and zurl, which asks the application behind it.
//! The application, which only says what each stream is to be held for, is a thread of this tool.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::bail;

use crate::args::Options;
use crate::publish::road::Road;
use crate::server::cert::Certificate;
use crate::server::child::Child;
use crate::server::start::{Started, free_address, wait_for};

/// Whether it is there.
///
/// # Errors
/// Where it is not.
pub fn installed() -> anyhow::Result<()> {
    for program in ["condure", "pushpin-proxy", "pushpin-handler", "zurl"] {
        if Command::new(program).arg("--version").output().is_err() {
            bail!("{program} is missing: apt-get install pushpin");
        }
    }
    Ok(())
}

/// Starts it, with its files in `folder`: the four processes as the command `pushpin` would.
///
/// # Errors
/// Where it does not start.
pub fn start(options: &Options, folder: &str) -> anyhow::Result<Started> {
    let (public, road) = (free_address()?, free_address()?);
    let application = application()?;
    let tls = match Certificate::make(options, folder)? {
        None => "",
        Some(_) => ",tls,default-cert=load",
    };
    fs::write(format!("{folder}/zurl.conf"), zurl(folder))?;
    fs::write(format!("{folder}/pushpin.conf"), pushpin(folder, road))?;
    fs::write(format!("{folder}/routes"), format!("* {application}\n"))?;
    let listen = format!("--listen={public},stream{tls}");
    let identities = format!("--tls-identities-dir={folder}");
    let client = format!("--zclient-stream=ipc://{folder}/pushpin-condure");
    let (zurl, config) = (format!("--config={folder}/zurl.conf"), format!("--config={folder}/pushpin.conf"));
    let log = File::create(format!("{folder}/pushpin.log"))?;
    let run = |arguments: &[&str]| {
        let log = log.try_clone()?;
        Child::start(arguments, options.server_cores(), |command| {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log)
        })
    };
    let maximum = "--stream-maxconn=19000";
    let mut condure =
        run(&["condure", "--log-level=0", &listen, &identities, &client, "--buffer-size=8192", maximum])?;
    let zurl = run(&["zurl", "--loglevel=0", &zurl])?;
    let proxy = run(&["pushpin-proxy", &config, "--ipc-prefix=pushpin-", "--loglevel=0"])?;
    let mut handler = run(&["pushpin-handler", &config, "--ipc-prefix=pushpin-", "--loglevel=0"])?;
    wait_for(&mut condure, public)?;
    wait_for(&mut handler, road)?;
    let children = vec![condure, zurl, proxy, handler];
    Ok(Started {
        children,
        beside: Vec::new(),
        public,
        path: |channel| format!("/{channel}"),
        road: Road::Pushpin { addr: road },
    })
}

fn zurl(folder: &str) -> String {
    format!(
        "[General]
in_spec=ipc://{folder}/zurl-in
in_stream_spec=ipc://{folder}/zurl-in-stream
out_spec=ipc://{folder}/zurl-out
in_req_spec=
defpolicy=allow
deny=
max_open_requests=20000
timeout=600
"
    )
}

/// Its own settings, but without a limit of events a second: any that is set makes them wait for seconds.
fn pushpin(folder: &str, road: SocketAddr) -> String {
    format!(
        "[global]
include=/usr/lib/pushpin/internal.conf
rundir={folder}
ipc_prefix=pushpin-
[proxy]
routesfile=routes
updates_check=off
zurl_out_specs=ipc://{folder}/zurl-in
zurl_out_stream_specs=ipc://{folder}/zurl-in-stream
zurl_in_specs=ipc://{folder}/zurl-out
[handler]
push_in_spec=tcp://{road}
push_in_sub_specs=ipc://{folder}/publish-sub
command_spec=ipc://{folder}/command
push_in_http_addr=127.0.0.1
push_in_http_port=0
message_rate=0
message_hwm=1000000
"
    )
}

/// An application that has each stream held for the channel that its path names.
fn application() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            // One that fails is seen by the client that waits for its stream.
            thread::spawn(move || answer_all(&socket));
        }
    });
    Ok(addr)
}

fn answer_all(mut socket: &TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut lines = BufReader::new(socket).lines();
    while let Some(request) = lines.next().transpose()? {
        let path = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
        while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ngrip-hold: stream\r\ngrip-channel: {path}\r\n\
             content-length: 3\r\n\r\n:\n\n"
        );
        socket.write_all(answer.as_bytes())?;
    }
    Ok(())
}
