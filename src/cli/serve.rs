//! `ssegate serve`: runs until it is told to stop, or another process serves in its place, reads the file again when it is
//! asked to, and tells systemd how far it is.

use std::future::pending;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::FutureExt as _;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, kill_process, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::systemd::{notify, reloading, watchdog};
use super::{logs, upgrade};
use crate::admin::{AskReload, AskUpgrade, Reloaded};
use crate::app::{App, Start};
use crate::config;
use crate::http::Inherited;

/// Serves what the file says.
pub(super) fn run(file: &Path) -> anyhow::Result<()> {
    let config = config::load(file)?;
    // While there is one thread.
    let (ask_upgrade, upgrades_asked) = mpsc::channel(1);
    let from = Start {
        inherited: Inherited::from_env()?,
        is_successor: upgrade::is_successor(),
        upgrades: Some(ask_upgrade),
    };
    logs::init(&config.log);
    config::warnings(&config).iter().for_each(|warning| tracing::warn!("{warning}"));
    raise_descriptor_limit();
    block_on(async {
        // Before anything is served, so that no signal finds the process without an answer.
        let stop = stop_signal();
        tokio::pin!(stop);
        let (upgrades, hangups) = (signal(SignalKind::user_defined2())?, signal(SignalKind::hangup())?);
        let is_successor = from.is_successor;
        let mut app = tokio::select! {
            app = App::start(&config, from, None) => app?,
            stopped = &mut stop => return stopped,
        };
        // Also while it drains.
        let _watchdog = watchdog(app.alive());
        let ready = app.ready();
        let begun = async move {
            ready.await;
            if is_successor {
                upgrade::tell_predecessor();
            } else {
                notify(&[NotifyState::Ready]);
            }
            #[cfg(debug_assertions)]
            super::fault::wait().await?;
            pending().await
        };
        let leave = app.asked_to_leave();
        let reloads_asked = app.reloads_asked_for();
        let mut serving =
            Serving { app, file, upgrades, upgrades_asked, hangups, reloads_asked, successor: None };
        let mut signalled = false;
        let succeeded = tokio::select! {
            // First, so that no predecessor drains for one that was told to stop.
            biased;
            stopped = &mut stop => {
                signalled = true;
                stopped.map(|()| None)?
            }
            defect = begun => return defect,
            () = leave => None,
            successor = serving.succeeded() => Some(successor),
        };
        match succeeded {
            // systemd believes nobody but the process that it takes for the main one: so this one says who is.
            Some((pid, asked)) => {
                notify(&[NotifyState::MainPid(pid), NotifyState::Ready]);
                serving.pass_on_hangup(pid);
                answer(asked, Ok(pid));
                serving.app.leave_admin();
            }
            None => notify(&[NotifyState::Stopping]),
        }
        let app = serving.end();
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

/// The app while it is asked for changes, one of which is made at a time.
struct Serving<'f> {
    app: App,
    file: &'f Path,
    upgrades: Signal,
    upgrades_asked: mpsc::Receiver<AskUpgrade>,
    hangups: Signal,
    reloads_asked: mpsc::Receiver<AskReload>,
    /// One that starts to take the place of this process, and who asked for it.
    successor: Option<(Succession, Option<AskUpgrade>)>,
}

type Succession = Pin<Box<dyn Future<Output = anyhow::Result<u32>>>>;

/// What is to be done next.
enum Next {
    Upgrade(Option<AskUpgrade>),
    Succeeded(anyhow::Result<u32>),
    Reload,
    Answer(AskReload),
}

impl Serving<'_> {
    /// Reads the file again, and has another process take over, for signals and for who asks by the admin listener. Ends
    /// when another process serves in place of this one, with its id and who is to be told.
    async fn succeeded(&mut self) -> (u32, Option<AskUpgrade>) {
        loop {
            match self.next().await {
                // Who has left while others had their turn asks for nothing any more.
                Next::Upgrade(Some(asked)) if asked.is_closed() => {}
                Next::Upgrade(asked) => {
                    let sockets = self.app.sockets();
                    self.successor = Some((Box::pin(async { upgrade::succeed(sockets?).await }), asked));
                }
                Next::Succeeded(outcome) => {
                    let asked = self.successor.take().and_then(|(_, asked)| asked);
                    match outcome {
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
                Next::Reload => drop(self.reload().await),
                Next::Answer(ask) => {
                    let reloaded = match self.successor {
                        Some(_) => Reloaded::NotNow(STARTING),
                        None => self.reload().await,
                    };
                    // Who has gone does not want to know.
                    let _ = ask.send(reloaded);
                }
            }
        }
    }

    /// While a successor starts, signals and upgrades wait until it is known what becomes of it.
    async fn next(&mut self) -> Next {
        let starts = self.successor.is_some();
        let succession = async {
            match &mut self.successor {
                Some((successor, _)) => successor.await,
                None => pending().await,
            }
        };
        tokio::select! {
            succeeded = succession => Next::Succeeded(succeeded),
            _ = self.upgrades.recv(), if !starts => Next::Upgrade(None),
            Some(asked) = self.upgrades_asked.recv(), if !starts => Next::Upgrade(Some(asked)),
            _ = self.hangups.recv(), if !starts => Next::Reload,
            Some(ask) = self.reloads_asked.recv() => Next::Answer(ask),
        }
    }

    async fn reload(&mut self) -> Reloaded {
        // systemd is not to be told that it is ready before it is.
        self.app.ready().await;
        reloading();
        let file = self.file.to_owned();
        // Disks, and above all those of others, may take their time.
        let read = tokio::task::spawn_blocking(move || config::load(&file)).await;
        let reloaded = match read {
            Ok(read) => self.app.reload(read).await,
            Err(defect) => Reloaded::Refused(vec![format!("a defect in ssegate: {defect}")]),
        };
        let status = match &reloaded {
            Reloaded::Refused(problems) => format!("reload refused: {}", problems.join("; ")),
            Reloaded::Changed { .. } | Reloaded::NotNow(_) => String::new(),
        };
        notify(&[NotifyState::Ready, NotifyState::Status(&status.replace('\n', " "))]);
        reloaded
    }

    /// Who asked this process while another started is answered by that, which may have read the file before.
    fn pass_on_hangup(&mut self, pid: u32) {
        let waits = self.hangups.recv().now_or_never().is_some();
        let successor = i32::try_from(pid).ok().and_then(Pid::from_raw);
        if let Some(successor) = successor.filter(|_| waits) {
            // If it has ended, nobody is to reload anything.
            let _ = kill_process(successor, rustix::process::Signal::HUP);
        }
    }

    /// A successor that has not got as far ends with this.
    fn end(self) -> App {
        self.app
    }
}

fn answer(asked: Option<AskUpgrade>, outcome: Result<u32, String>) {
    if let Some(asked) = asked {
        // Nobody has to be there to hear it.
        let _ = asked.send(outcome);
    }
}

const STARTING: &str =
    "Another process is starting to take the place of this one; ask it, or try again in a moment.";

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
