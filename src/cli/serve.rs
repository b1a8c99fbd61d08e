//! `ssegate serve`: runs until it is told to stop, or another process serves in its place; and tells systemd how far it is.

use std::future::pending;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::systemd::{notify, watchdog};
use super::{logs, upgrade};
use crate::admin::Asked;
use crate::app::{App, Start};
use crate::config::{self, Config};
use crate::http::Inherited;

/// Serves `config`.
pub(super) fn run(config: Config) -> anyhow::Result<()> {
    // While there is one thread.
    let (upgrades, asked) = mpsc::channel(1);
    let from = Start {
        inherited: Inherited::from_env()?,
        is_successor: upgrade::is_successor(),
        upgrades: Some(upgrades),
    };
    logs::init(&config.log);
    config::warnings(&config).iter().for_each(|warning| tracing::warn!("{warning}"));
    raise_descriptor_limit();
    block_on(async {
        // Before anything is served, so that no signal finds the process without an answer.
        let (stop, upgrades) = (stop_signal(), signal(SignalKind::user_defined2())?);
        let is_successor = from.is_successor;
        let mut app = App::start(&config, from, None).await?;
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
        let succeeded = tokio::select! {
            defect = serving => return defect,
            stopped = stop => stopped.map(|()| None)?,
            () = app.asked_to_leave() => None,
            successor = succeeded(&app, upgrades, asked) => Some(successor),
        };
        match succeeded {
            // systemd believes nobody but the process that it takes for the main one: so this one says who is.
            Some((pid, asked)) => {
                notify(&[NotifyState::MainPid(pid), NotifyState::Ready]);
                answer(asked, Ok(pid));
                app.leave_admin();
            }
            None => notify(&[NotifyState::Stopping]),
        }
        shutdown(app).await
    })
}

/// Ends when another process serves in place of this one, with its id and who is to be told. One after the other asks for
/// that, by SIGUSR2 or by the admin listener.
async fn succeeded(
    app: &App,
    mut signals: Signal,
    mut requests: mpsc::Receiver<Asked>,
) -> (u32, Option<Asked>) {
    loop {
        let asked = tokio::select! {
            _ = signals.recv() => None,
            Some(asked) = requests.recv() => Some(asked),
        };
        if asked.as_ref().is_some_and(Asked::is_closed) {
            // Who has left while others had their turn asks for nothing any more.
            continue;
        }
        let successor = async { upgrade::succeed(app.sockets()?).await };
        match successor.await {
            Ok(pid) => {
                tracing::info!(pid, "the successor serves; this process drains");
                return (pid, asked);
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "no upgrade; this process goes on");
                answer(asked, Err(error));
            }
        }
    }
}

fn answer(asked: Option<Asked>, outcome: Result<u32, String>) {
    if let Some(asked) = asked {
        // Nobody has to be there to hear it.
        let _ = asked.send(outcome);
    }
}

/// Ends `app`, at once when told to stop a second time.
pub(super) async fn shutdown(app: App) -> anyhow::Result<()> {
    let (hurry, streams) = (stop_signal(), Arc::clone(app.streams()));
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
