//! What the kernel holds for connections, by `ss` of iproute2.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::process::Command;

use anyhow::Context as _;

/// The server's ends of connections.
#[derive(Debug, Clone, Copy, Default)]
pub struct Held {
    /// Those that it has not closed.
    pub open: usize,
    /// Memory of the kernel for what they have to send and have received, in bytes.
    pub bytes: u64,
}

/// What is held at `server` for the clients at these ports.
///
/// # Errors
/// Where `ss` does not tell.
pub fn held(server: SocketAddr, clients: &HashSet<u16>) -> anyhow::Result<Held> {
    let port = format!(":{}", server.port());
    let output = Command::new("ss")
        .args(["-tmnHO", "state", "established", "src", &port])
        .output()
        .context("ss does not run")?;
    let mut held = Held::default();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let mut ports = line.split_whitespace().filter_map(|field| field.rsplit_once(':')?.1.parse().ok());
        if ports.nth(1).is_some_and(|client| clients.contains(&client)) {
            held.open += 1;
            held.bytes += memory(line).context("ss tells no memory")?;
        }
    }
    Ok(held)
}

/// Of `skmem:(r0,rb131072,t0,tb2626560,f0,w0,o0,bl0,d0)`: received, forward allocated, and written.
fn memory(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("skmem:(")?;
    let fields = rest.split_once(')')?.0.split(',');
    let bytes = |field: &str| match field.split_at(1) {
        ("r" | "f" | "w", number) => number.parse().unwrap_or(0),
        _ => 0u64,
    };
    Some(fields.map(bytes).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_what_is_used_of_the_buffers() {
        let line = "0 9 127.0.0.1:1 127.0.0.1:2 skmem:(r1,rb131072,t7,tb2626560,f20,w300,o0,bl0,d0)";
        assert_eq!(memory(line), Some(321));
    }
}
