//! `POST /upgrade`: has another process take the place of this one, and answers once that one serves, or has failed to.

use http::{Response, StatusCode};
use serde_json::json;
use tokio::sync::oneshot;

use super::{Admin, problem, typed};
use crate::http::{Body, Problem};

/// Somebody who asks for an upgrade, and is told the id of the process that serves now, or why there is none. Dropped where
/// this process is ending already.
pub type AskUpgrade = oneshot::Sender<Result<u32, String>>;

impl Admin {
    /// Waits for its turn, and then for the outcome.
    pub(super) async fn upgrade(&self) -> Result<Response<Body>, Problem> {
        let upgrades = self.upgrades.as_ref().ok_or(Problem::NoAdminPath)?;
        let (asked, told) = oneshot::channel();
        upgrades.send(asked).await.map_err(|_| Problem::Draining)?;
        let outcome = told.await.map_err(|_| Problem::Draining)?;
        Ok(match outcome {
            Ok(successor) => {
                let pids = json!({ "pid": std::process::id(), "successor": successor });
                typed("application/json", format!("{pids}\n"))
            }
            Err(why) => problem(StatusCode::INTERNAL_SERVER_ERROR, "upgrade-failed", &why, &[]),
        })
    }
}
