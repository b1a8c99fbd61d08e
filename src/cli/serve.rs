//! `ssegate serve`: runs until it is told to stop, or another process serves in its place; and tells systemd how far it is.

use std::future::pending;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::systemd::{notify, watchdog};
use super::{logs, upgrade};
use crate::app::{App, Start};
use crate::config::{self, Config};
use crate::http::Inherited;

/// Serves `config`.
pub(super) fn run(config: Config) -> anyhow::Result<()> {
    // While there is one thread.
    let from = Start { inherited: Inherited::from_env()?, is_successor: upgrade::is_successor() };
    logs::init(&config.log);
    config::warnings(&config).iter().for_each(|warning| tracing::warn!("{warning}"));
    raise_descriptor_limit();
    block_on(async {
        // Before anything is served, so that no signal finds the process without an answer.
        let (stop, upgrades) = (stop_signal(), signal(SignalKind::user_defined2())?);
        tokio::pin!(stop);
        let is_successor = from.is_successor;
        let mut app = tokio::select! {
            app = App::start(&config, from, None) => app?,
            stopped = &mut stop => return stopped,
        };
        // Also while it drains.
        let _watchdog = watchdog(app.alive());
        let serving = async {
            app.ready().await;
            if is_successor {
                upgrade::tell_predecessor();
            } else {
                notify(&[NotifyState::Ready]);
            }
            #[cfg(debug_assertions)]
            super::fault::wait().await?;
            pending().await
        };
        let mut signalled = false;
        let succeeded = tokio::select! {
            // First, so that no predecessor drains for one that was told to stop.
            biased;
            stopped = &mut stop => {
                signalled = true;
                stopped.map(|()| None)?
            }
            defect = serving => return defect,
            () = app.asked_to_leave() => None,
            pid = succeeded(&app, upgrades) => Some(pid),
        };
        match succeeded {
            // systemd believes nobody but the process that it takes for the main one: so this one says who is.
            Some(pid) => {
                notify(&[NotifyState::MainPid(pid), NotifyState::Ready]);
                app.leave_admin();
            }
            None => notify(&[NotifyState::Stopping]),
        }
        let hurry = async move {
            // Whoever stops a process that drains already, after an upgrade or a POST /drain, stops it for the first time.
            if !signalled {
                stop.await?;
            }
            stop_signal().await
        };
        shutdown(app, hurry).await
    })
}

/// Ends when another process serves in place of this one, which it is asked for by SIGUSR2.
async fn succeeded(app: &App, mut upgrades: Signal) -> u32 {
    loop {
        upgrades.recv().await;
        let successor = async { upgrade::succeed(app.sockets()?).await };
        match successor.await {
            Ok(pid) => {
                tracing::info!(pid, "the successor serves; this process drains");
                return pid;
            }
            Err(error) => tracing::error!(error = format!("{error:#}"), "no upgrade; this process goes on"),
        }
    }
}

/// Ends `app`, at once when `hurry` ends.
pub(super) async fn shutdown(
    app: App,
    hurry: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let streams = Arc::clone(app.streams());
    tokio::select! {
        () = app.shutdown() => {}
        again = hurry => {
            again?;
            tracing::warn!(cut = streams.count(), "told to stop a second time; leaving at once");
        }
    }
    Ok(())
}

/// Runs `main` on all cores. What it leaves behind on threads that block, a Kafka client that is closing for
/// example, does not keep the process.
pub(super) fn block_on(main: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("ssegate").enable_all().build()?;
    let outcome = runtime.block_on(main);
    runtime.shutdown_background();
    outcome
}

/// Ends at the first SIGTERM or SIGINT after the call.
pub(super) fn stop_signal() -> impl Future<Output = anyhow::Result<()>> {
    let signals =
        signal(SignalKind::terminate()).and_then(|term| Ok((term, signal(SignalKind::interrupt())?)));
    async {
        let (mut term, mut int) = signals?;
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        Ok(())
    }
}

/// Each client is a descriptor: takes as many as the system allows without being asked, as Go programs do.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::debug!(%error, "the descriptor limit stays as it is");
    }
}
