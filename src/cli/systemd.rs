//! What systemd is told: see sd_notify(3). Without it nobody listens, and nothing is said.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// Says something, if systemd listens.
pub(super) fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be told");
    }
}

/// Says that the configuration is read again, until it is said that the process is ready: `Type=notify-reload` waits for that.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "there is no monotonic clock to tell systemd of"),
    }
}

/// Says twice in each `WatchdogSec=` that the process is alive, as long as it is, until the set is dropped. It is a task
/// like those that serve, and `alive` takes the locks that they take: where these hang it does, too, and systemd ends
/// the process.
pub(super) fn watchdog(alive: impl Fn() + Send + 'static) -> JoinSet<()> {
    let mut task = JoinSet::new();
    if let Some(within) = sd_notify::watchdog_enabled() {
        let mut ticks = interval((within / 2).max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        task.spawn(async move {
            loop {
                ticks.tick().await;
                alive();
                notify(&[NotifyState::Watchdog]);
            }
        });
    }
    task
}
