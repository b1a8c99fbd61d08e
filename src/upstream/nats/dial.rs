//! Entering a server: TCP, what it says of itself, TLS if either side wants it, and who we are.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::wire::{self, Info, Op};
use crate::config::{Nats, NatsAuth, NatsServer};
use crate::upstream::Broken;
use crate::upstream::socket::{self, Socket};

/// A connection that has been entered.
pub(super) struct Entered {
    pub socket: Box<dyn Socket>,
    /// What has been read of it and not been taken.
    pub read: BytesMut,
    /// `host:port`
    pub address: String,
    pub info: Info,
}

/// Enters the first server that lets us in, beginning with another one each time. Where none does, says why each did not.
pub(super) async fn enter_any(config: &Nats) -> Result<Entered, Broken> {
    let tls = config.tls.clone().unwrap_or_default();
    let first = rand::random_range(0..config.servers.len());
    let mut causes = vec![String::new(); config.servers.len()];
    for turn in 0..config.servers.len() {
        let at = (first + turn) % config.servers.len();
        let server = &config.servers[at];
        let entering = enter(config, &tls, server);
        match timeout(config.timeout, entering).await {
            Ok(Ok(entered)) => return Ok(entered),
            Ok(Err(cause)) => causes[at] = cause.to_string(),
            Err(_) => {
                causes[at] = format!(
                    "connecting to NATS at {} took longer than {:?}",
                    server.address(),
                    config.timeout
                );
            }
        }
    }
    // In the order of the file, so that the words are the same each time.
    Err(Broken(causes.join("; ")))
}

async fn enter(
    config: &Nats,
    tls: &crate::config::ClientTls,
    server: &NatsServer,
) -> Result<Entered, Broken> {
    let address = server.address();
    let failed = |error: io::Error| Broken::new(&format!("connecting to NATS at {address} failed"), error);
    let user_timeout = config.ping_interval + config.timeout;
    let mut socket = socket::connect(&server.host, server.port, user_timeout).await.map_err(failed)?;
    let mut read = BytesMut::with_capacity(BUFFER);
    let info = loop {
        match wire::take(&mut read).map_err(|error| Broken::new(&address, error))? {
            Some(Op::Info(info)) => break info,
            Some(Op::Err(error)) => return Err(away(&address, &error)),
            Some(_) => return Err(Broken::new(&address, wire::Malformed)),
            None => fill(&mut socket, &mut read).await.map_err(failed)?,
        }
    };
    // Who says what TLS is to be like is not content with none.
    let mut socket: Box<dyn Socket> = if server.tls || config.tls.is_some() || info.tls_required {
        // What came before TLS would otherwise pass for what came by it.
        if !read.is_empty() {
            return Err(Broken::new(&address, wire::Malformed));
        }
        let connector = TlsConnector::from(Arc::new(tls.config().map_err(Broken)?));
        socket::secure(&connector, &server.host, socket).await.map_err(failed)?
    } else {
        Box::new(socket)
    };
    let hello = format!("CONNECT {}\r\nPING\r\n", hello(&config.auth, &info));
    socket.write_all(hello.as_bytes()).await.map_err(failed)?;
    socket.flush().await.map_err(failed)?;
    loop {
        match wire::take(&mut read).map_err(|error| Broken::new(&address, error))? {
            Some(Op::Pong) => return Ok(Entered { socket, read, address, info: *info }),
            Some(Op::Err(error)) => return Err(away(&address, &error)),
            Some(Op::Info(_) | Op::Ping) => {}
            Some(Op::Message(_)) => return Err(Broken::new(&address, wire::Malformed)),
            None => fill(&mut socket, &mut read).await.map_err(failed)?,
        }
    }
}

fn away(address: &str, error: &str) -> Broken {
    Broken(format!("NATS at {address} turned ssegate away: {error}"))
}

/// What `CONNECT` says.
fn hello(auth: &NatsAuth, info: &Info) -> serde_json::Value {
    let mut hello = json!({
        "verbose": false,
        "pedantic": false,
        "name": "ssegate",
        "lang": "rust",
        "version": env!("CARGO_PKG_VERSION"),
        "protocol": 1,
        "echo": true,
        "headers": true,
        "no_responders": true,
    });
    match auth {
        NatsAuth::None => {}
        NatsAuth::User { user, password } => {
            (hello["user"], hello["pass"]) = (json!(user), json!(password.expose()));
        }
        NatsAuth::Token(token) => hello["auth_token"] = json!(token.expose()),
        NatsAuth::Nkey(key) => {
            (hello["nkey"], hello["sig"]) = (json!(key.public()), json!(key.sign(&info.nonce)));
        }
        NatsAuth::Credentials { jwt, key } => {
            (hello["jwt"], hello["sig"]) = (json!(jwt.expose()), json!(key.sign(&info.nonce)));
        }
    }
    hello
}

/// Reads some more; that the peer ended it is an error, too.
async fn fill(socket: &mut (impl Socket + ?Sized), read: &mut BytesMut) -> io::Result<()> {
    match socket.read_buf(read).await? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the link")),
        _ => Ok(()),
    }
}

/// Bytes that are read at a time.
pub(super) const BUFFER: usize = 64 << 10;

/// A connection to a server that was entered so long ago is silent, if nothing has come of it.
pub(super) fn silent(address: &str, timeout: Duration) -> Broken {
    Broken(format!("NATS at {address} did not answer a ping within {timeout:?}"))
}
