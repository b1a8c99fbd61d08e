//! Waiting with a deadline: the rig's only way to wait for something it cannot be told about.
//!
//! Deadlines are generous because a loaded machine is no defect; they exist so that a hang fails with
//! a sentence. No test asserts that something was fast.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// How long anything may take before the test fails.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Polls `probe` until it is `Ok`, and panics with its last error once [`DEADLINE`] has passed.
pub async fn eventually<T, E: Display>(what: &str, mut probe: impl AsyncFnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        // The probe itself may hang, for instance on a paused server.
        let problem = match timeout(DEADLINE, probe()).await {
            Ok(Ok(value)) => return value,
            Ok(Err(problem)) => problem.to_string(),
            Err(_) => "a single probe did not return".into(),
        };
        assert!(Instant::now() < deadline, "gave up after {DEADLINE:?} waiting for {what}: {problem}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Awaits `future`, and panics once [`DEADLINE`] has passed.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("gave up after {DEADLINE:?} waiting for {what}"),
    }
}
