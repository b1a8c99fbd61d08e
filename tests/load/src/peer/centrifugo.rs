//! Centrifugo with its one-way SSE endpoint.

use std::fs::{self, File};
use std::process::Stdio;

use serde_json::json;

use crate::args::Options;
use crate::publish::road::{Road, centrifugo_path};
use crate::server::cert::Certificate;
use crate::server::child::Child;
use crate::server::start::{Started, free_address, wait_for};

/// Where its program is.
pub fn program(options: &Options) -> String {
    options.peers_dir.join("centrifugo").display().to_string()
}

/// Starts it, with its files in `folder`.
///
/// # Errors
/// Where it does not start.
pub fn start(options: &Options, folder: &str) -> anyhow::Result<Started> {
    let (public, api) = (free_address()?, free_address()?);
    let tls = match Certificate::make(options, folder)? {
        None => json!({}),
        Some(Certificate { cert, key }) => json!({ "enabled": true, "cert_pem": cert, "key_pem": key }),
    };
    let config = json!({
        "http_server": {
            "address": public.ip(), "port": public.port(),
            "internal_address": api.ip(), "internal_port": api.port().to_string(),
            "tls": tls, "tls_external": true,
        },
        "client": { "insecure": true, "allow_anonymous_connect_without_token": true },
        // As much history as the others keep.
        "channel": { "without_namespace": { "history_size": 1000, "history_ttl": "600s" } },
        "uni_sse": { "enabled": true },
        "http_api": { "insecure": true },
        "usage_stats": { "disabled": true },
        "log": { "level": "error" },
    });
    let path = format!("{folder}/centrifugo.json");
    fs::write(&path, config.to_string())?;
    let log = File::create(format!("{folder}/centrifugo.log"))?;
    let arguments = [&program(options), "--config", &path];
    let mut server = Child::start(&arguments, options.server_cores(), |command| {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log)
    })?;
    wait_for(&mut server, public)?;
    wait_for(&mut server, api)?;
    Ok(Started {
        children: vec![server],
        beside: Vec::new(),
        public,
        path: centrifugo_path,
        road: Road::Centrifugo { addr: api },
    })
}

/// What it is built of.
pub const MODULE: &str = "github.com/centrifugal/centrifugo/v6";
