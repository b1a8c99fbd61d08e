//! The little of ZeroMQ's protocol (ZMTP 3.0, rfc.zeromq.org/spec/23) that pushing messages takes.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context as _, bail};

/// Introduces this end as one that pushes, without any security.
///
/// # Errors
/// Where the other end is no ZeroMQ socket that pulls.
pub fn greet(socket: &mut TcpStream) -> anyhow::Result<()> {
    // Signature, version 3.0, mechanism, whether it is a server, filler.
    let mut greeting = [0; 64];
    greeting[0] = 0xff;
    greeting[9] = 0x7f;
    greeting[10] = 3;
    greeting[12..16].copy_from_slice(b"NULL");
    socket.write_all(&greeting)?;
    socket.read_exact(&mut greeting).context("no greeting of ZeroMQ")?;
    socket.write_all(&frame(COMMAND, b"\x05READY\x0bSocket-Type\0\0\0\x04PUSH"))?;
    let mut head = [0; 2];
    socket.read_exact(&mut head)?;
    let mut ready = vec![0; head[1].into()];
    socket.read_exact(&mut ready)?;
    if head[0] != COMMAND || !ready.starts_with(b"\x05READY") {
        bail!("ZeroMQ does not take the connection: {}", String::from_utf8_lossy(&ready));
    }
    Ok(())
}

/// A message of one part.
pub fn message(body: &[u8]) -> Vec<u8> {
    frame(0, body)
}

fn frame(flags: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = match u8::try_from(body.len()) {
        Ok(length) => vec![flags, length],
        Err(_) => [&[flags | LONG], &(body.len() as u64).to_be_bytes()[..]].concat(),
    };
    frame.extend_from_slice(body);
    frame
}

const COMMAND: u8 = 4;
const LONG: u8 = 2;
