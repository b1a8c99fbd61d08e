//! The floor: what no server that sends can do without. One thread; the bytes of a batch are made once, and
//! each socket gets them by one `send()`. No TLS, no timers, no bookkeeping.

use std::io::{BufRead as _, Read as _, Write as _, stdin};
use std::net::{TcpListener, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::args::Plan;
use crate::client::unix_nanos;
use crate::payload::payload;
use crate::sse::head_end;

/// Takes the plan's clients, waits for a line on standard input, sends the plan's events, and stays for a while.
/// Tells its address first, then how late it was at most and how long it took, in
/// microseconds.
///
/// # Errors
/// Where a client goes away or does not take a batch whole.
pub fn serve(plan: &Plan) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let clients = (0..plan.clients).map(|_| welcome(&listener)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut lines = stdin().lock().lines();
    if lines.next().transpose()?.is_none() {
        return Ok(());
    }
    let (late, took) = send_all(plan, &clients)?;
    println!("{} {}", late.as_micros(), took.as_micros());
    // The clients have to read still; the tool ends this process when they have.
    sleep(STAY);
    Ok(())
}

fn welcome(listener: &TcpListener) -> anyhow::Result<TcpStream> {
    let (mut client, _) = listener.accept()?;
    client.set_nodelay(true)?;
    let (mut request, mut buffer) = (Vec::new(), [0; 1024]);
    while head_end(&request).is_none() {
        match client.read(&mut buffer)? {
            0 => bail!("a client left before its request"),
            read => request.extend_from_slice(&buffer[..read]),
        }
    }
    client.write_all(HEAD)?;
    client.set_nonblocking(true)?;
    Ok(client)
}

fn send_all(plan: &Plan, clients: &[TcpStream]) -> anyhow::Result<(Duration, Duration)> {
    let batch = (u64::from(plan.rate) * u64::from(plan.linger) / 1_000).max(1);
    let pace = Duration::from_secs(1) * batch as u32 / plan.rate;
    let (began, mut late) = (Instant::now(), Duration::ZERO);
    for (turn, first) in (0..plan.pace().events).step_by(batch as usize).enumerate() {
        let due = began + pace * turn as u32;
        sleep(due.saturating_duration_since(Instant::now()));
        late = late.max(due.elapsed());
        let last = plan.pace().events.min(first + batch);
        let events: String = (first..last)
            .map(|seq| format!("data: {}\nid: {seq}\n\n", payload(seq, unix_nanos(), plan.payload)))
            .collect();
        let chunk = format!("{:x}\r\n{events}\r\n", events.len());
        for mut client in clients {
            let sent = client.write(chunk.as_bytes()).context("a client does not take a batch")?;
            if sent < chunk.len() {
                bail!("a client took a part of a batch");
            }
        }
    }
    Ok((late, began.elapsed()))
}

/// How long it stays after the last event, at most.
const STAY: Duration = Duration::from_secs(60);

const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n3\r\n:\n\n\r\n";
