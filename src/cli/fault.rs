//! Faults on purpose, to be seen through by tests of debug builds: where `SSEGATE_FAULT` says `deadlock`, SIGUSR1 has every
//! thread that serves wait for ever.

use tokio::signal::unix::{SignalKind, signal};

/// Waits for the signal, if the fault is asked for. Never ends.
pub(super) async fn wait() -> anyhow::Result<()> {
    if std::env::var_os("SSEGATE_FAULT").is_some_and(|fault| fault == "deadlock") {
        signal(SignalKind::user_defined1())?.recv().await;
        tracing::warn!("deadlocked on purpose");
        for _ in 0..std::thread::available_parallelism()?.get() {
            tokio::spawn(async {
                loop {
                    std::thread::park();
                }
            });
        }
    }
    std::future::pending().await
}
