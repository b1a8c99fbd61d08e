//! `ssegate serve`: runs until it is told to stop, and tells systemd how far it is.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use super::logs;
use crate::app::App;
use crate::config::Config;

/// Serves `config`.
pub(super) fn run(config: Config) -> anyhow::Result<()> {
    logs::init(config.log);
    raise_descriptor_limit();
    block_on(async {
        // Before anything is served, so that no signal finds the process without an answer.
        let stop = stop_signal();
        let app = App::start(&config, None).await?;
        let serving = async {
            app.ready().await;
            notify(NotifyState::Ready);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = serving => {}
            stopped = stop => stopped?,
        }
        notify(NotifyState::Stopping);
        shutdown(app).await
    })
}

/// Ends `app`, at once when told to stop a second time.
pub(super) async fn shutdown(app: App) -> anyhow::Result<()> {
    let hurry = stop_signal();
    tokio::select! {
        () = app.shutdown() => {}
        again = hurry => {
            again?;
            tracing::warn!("told to stop a second time; leaving at once");
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

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd could not be told");
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
