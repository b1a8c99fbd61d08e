//! Free TCP ports for servers that cannot bind port 0, or that must come back on the same port.
//!
//! Ports are taken from below the kernel's ephemeral range (32768 and up), so that no outgoing
//! connection can sit on the port of a server that is down for a moment. Within this process no port
//! is given out twice; another process may still grab one, so callers try anew on a clash.

use std::net::TcpListener;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;

/// A port of 127.0.0.1 that nobody listens on.
pub fn free() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Test binaries that run at the same time start far from each other.
    let start = process::id().wrapping_mul(509);
    loop {
        let given = GIVEN.fetch_add(1, Ordering::Relaxed);
        assert!(given < COUNT, "no free port left");
        let port = (FIRST + start.wrapping_add(given) % COUNT) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
