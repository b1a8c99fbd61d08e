//! `POST /reload`: hands on that the configuration is to be read again, to whoever serves it, and tells what came of it; and
//! what is known of the configuration for those who look.

use std::time::SystemTime;

use http::{Response, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::status::{pretty, time};
use super::{Admin, problem, typed};
use crate::config::Change;
use crate::http::Body;

/// What came of a reload.
#[derive(Debug)]
pub enum Reloaded {
    /// It is served.
    Changed {
        /// How many configurations were served so far.
        generation: u64,
        /// What is another than before, or will be after a restart.
        changes: Vec<Change>,
    },
    /// It cannot be served, for all of these reasons, and nothing has changed.
    Refused(Vec<String>),
    /// It was not tried, and why not.
    NotNow(&'static str),
}

/// One who wants a reload, and waits to be told what came of it.
pub type AskReload = oneshot::Sender<Reloaded>;

/// Where reloads are asked for, and how it stands with the configuration.
pub struct Reloads {
    ask: mpsc::Sender<AskReload>,
    standing: Mutex<Standing>,
}

struct Standing {
    generation: u64,
    since: SystemTime,
    last: Option<Attempt>,
    /// Keys that differ in the file and take a restart.
    waiting: Vec<String>,
}

struct Attempt {
    at: SystemTime,
    /// None where it went well.
    problems: Vec<String>,
}

impl Reloads {
    /// The process serves what it was started with. Who asks is to be answered by whoever has the other end.
    pub fn new() -> (Self, mpsc::Receiver<AskReload>) {
        // One waits while another is served.
        let (ask, asked) = mpsc::channel(1);
        let standing = Standing { generation: 1, since: SystemTime::now(), last: None, waiting: Vec::new() };
        (Self { ask, standing: Mutex::new(standing) }, asked)
    }

    /// Another configuration is served. Returns which one that is.
    pub fn changed(&self, changes: &[Change]) -> u64 {
        let mut standing = self.standing.lock();
        let now = SystemTime::now();
        standing.generation += 1;
        standing.since = now;
        standing.last = Some(Attempt { at: now, problems: Vec::new() });
        standing.waiting = waiting(changes);
        standing.generation
    }

    /// What was read cannot be served.
    pub fn refused(&self, problems: &[String]) {
        let attempt = Attempt { at: SystemTime::now(), problems: problems.to_vec() };
        self.standing.lock().last = Some(attempt);
    }

    /// What operators see.
    pub(super) fn status(&self) -> Value {
        let standing = self.standing.lock();
        let last = standing.last.as_ref().map(|last| {
            json!({
                "at": time(last.at),
                "succeeded": last.problems.is_empty(),
                "problems": last.problems.iter().take(SHOWN).collect::<Vec<_>>(),
                "problems_in_all": last.problems.len(),
            })
        });
        let failed = standing.last.as_ref().filter(|last| !last.problems.is_empty());
        let last_error = failed.map(|last| json!({ "error": short(&last.problems), "at": time(last.at) }));
        json!({
            "generation": standing.generation,
            "since": time(standing.since),
            "last_reload": last,
            "last_error": last_error,
            "waiting_for_restart": standing.waiting,
        })
    }
}

/// The first of some problems, and how many others there are.
fn short(problems: &[String]) -> String {
    match problems {
        [first] => first.clone(),
        [first, others @ ..] => format!("{first} (and {} more)", others.len()),
        [] => String::new(),
    }
}

/// The keys that take a restart.
fn waiting(changes: &[Change]) -> Vec<String> {
    let waiting = changes.iter().filter(|change| change.takes_restart);
    waiting.map(|change| change.what().to_owned()).collect()
}

impl Admin {
    /// Has the configuration read again.
    pub(super) async fn reload(&self) -> Response<Body> {
        let (ask, told) = oneshot::channel();
        let reloaded = match self.reloads.ask.try_send(ask) {
            Ok(()) => told.await.unwrap_or(Reloaded::NotNow(LEAVING)),
            Err(mpsc::error::TrySendError::Full(_)) => {
                Reloaded::NotNow("Another reload is under way, and one more waits; try again in a moment.")
            }
            Err(mpsc::error::TrySendError::Closed(_)) if self.edge.streams.draining() => {
                Reloaded::NotNow(LEAVING)
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                Reloaded::NotNow("There is no file here that could be read again.")
            }
        };
        match reloaded {
            Reloaded::Changed { generation, changes } => {
                let told: Vec<_> = changes.iter().map(ToString::to_string).collect();
                let restart = waiting(&changes);
                let answer =
                    json!({ "generation": generation, "changes": told, "waiting_for_restart": restart });
                typed("application/json", pretty(&answer))
            }
            Reloaded::Refused(problems) => {
                let detail = "The configuration cannot be served; everything goes on as before.";
                problem(StatusCode::UNPROCESSABLE_ENTITY, "reload-refused", detail, &problems)
            }
            Reloaded::NotNow(why) => problem(StatusCode::CONFLICT, "no-reload", why, &[]),
        }
    }
}

const LEAVING: &str = "The process is going away.";
/// Problems of the last attempt that the status shows; the log has all.
const SHOWN: usize = 5;
