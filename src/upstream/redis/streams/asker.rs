//! The asker: every question about streams that does not wait, on one line to each server that has some. It finds the
//! server, in a cluster by the stream's slot, and follows where that sends it on. Sessions and those who read history
//! share it.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value, cmd};

use super::id::{self, END};
use super::info::Info;
use super::line::Line;
use super::reply::{self, Entry, Malformed};
use crate::config::Endpoint;
use crate::hub::Offset;
use crate::upstream::Broken;
use crate::upstream::redis::connection::Dialer;
use crate::upstream::redis::slots::{self, Map, Node};
use crate::upstream::redis::subscriber::passes;

/// Who asks.
pub(super) struct Asker {
    /// Where streams are, once a session has found it.
    servers: Mutex<Option<Servers>>,
    lines: Mutex<HashMap<Node, Arc<Line>>>,
}

/// Where streams are.
#[derive(Clone)]
pub(in crate::upstream::redis) struct Servers {
    pub dialer: Dialer,
    /// The server; of a cluster any, for how all of them are entered.
    pub endpoint: Endpoint,
    /// Who owns what, in a cluster.
    pub map: Option<Arc<Mutex<Map>>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    /// Redis refuses this stream: it is no stream, or an ACL forbids it. Others are not concerned.
    #[error("{0}")]
    Refused(RedisError),
    /// Not now, and soon.
    #[error("{0}")]
    Busy(String),
    /// The link does not do.
    #[error("{0}")]
    Broken(Broken),
}

impl From<RedisError> for Unanswered {
    fn from(error: RedisError) -> Self {
        if is_refusal(&error) {
            return Self::Refused(error);
        }
        if will_pass(&error) {
            return Self::Busy(error.to_string());
        }
        Self::Broken(Broken::new("asking Redis about a stream failed", error))
    }
}

impl From<Malformed> for Unanswered {
    fn from(malformed: Malformed) -> Self {
        Self::Broken(Broken(malformed.to_string()))
    }
}

/// Whether Redis says no because of one of the streams.
pub(super) fn is_refusal(error: &RedisError) -> bool {
    matches!(error.code(), Some("WRONGTYPE" | "NOPERM"))
}

/// Whether Redis says that it cannot now.
pub(super) fn will_pass(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(kind) if passes(Some(kind)))
}

/// Where a node of a cluster sends those on who ask for what it does not have.
pub(super) enum Redirect {
    /// The slot is there now.
    Moved(u16, Node),
    /// It is on its way there, and the stream is there already, or not at all.
    Ask(Node),
}

impl Redirect {
    /// What `error` says, given by a node whose host is `own`.
    pub(super) fn of(error: &RedisError, own: &str) -> Option<Self> {
        let to = || slots::redirected(error.detail()?, own);
        match error.kind() {
            ErrorKind::Server(ServerErrorKind::Moved) => to().map(|(slot, node)| Self::Moved(slot, node)),
            ErrorKind::Server(ServerErrorKind::Ask) => to().map(|(_, node)| Self::Ask(node)),
            _ => None,
        }
    }
}

impl Servers {
    /// The one that has `stream`.
    fn of(&self, stream: &str) -> Result<Node, Unanswered> {
        let Some(map) = &self.map else { return Ok(Node::of(&self.endpoint)) };
        let slot = slots::slot(stream);
        let unowned =
            || Unanswered::Busy(format!("no node of the cluster owns slot {slot}, that of {stream}"));
        map.lock().owner(slot).cloned().ok_or_else(unowned)
    }
}

impl Asker {
    /// Knows of no server so far.
    pub(super) fn new() -> Self {
        Self { servers: Mutex::default(), lines: Mutex::default() }
    }

    /// From now on these are asked.
    pub(super) fn ask_at(&self, servers: Servers) {
        *self.servers.lock() = Some(servers);
        self.lines.lock().clear();
    }

    /// What there is about a stream; `None` if it is not there.
    pub(super) async fn info(&self, stream: &str) -> Result<Option<Info>, Unanswered> {
        let [info] = self.ask(stream, [xinfo(stream)]).await?;
        found(info)
    }

    /// Whether a stream may be read, whatever it holds: asks for what follows the largest id, which is nothing.
    pub(super) async fn may_read(&self, stream: &str) -> Result<(), Unanswered> {
        let mut question = cmd("XREAD");
        let [answer] =
            self.ask(stream, [question.arg("STREAMS").arg(stream).arg(id::show(END)).take()]).await?;
        Ok(answer.map(drop)?)
    }

    /// At most `count` entries after `at`.
    pub(super) async fn read(
        &self,
        stream: &str,
        at: Offset,
        count: usize,
    ) -> Result<Vec<Entry>, Unanswered> {
        let mut question = cmd("XREAD");
        question.arg("COUNT").arg(count).arg("STREAMS").arg(stream).arg(id::show(at));
        let [answer] = self.ask(stream, [question]).await?;
        Ok(reply::streams(answer?)?.into_iter().flat_map(|(_, entries)| entries).collect())
    }

    /// At most `count` entries from `from` on up to `to`, both included, and what there is about the stream after
    /// they were read; `None` if it is not there.
    pub(super) async fn range(
        &self,
        stream: &str,
        from: Offset,
        to: Offset,
        count: usize,
    ) -> Result<(Vec<Entry>, Option<Info>), Unanswered> {
        let mut range = cmd("XRANGE");
        range.arg(stream).arg(id::show(from)).arg(id::show(to)).arg("COUNT").arg(count);
        let [entries, info] = self.ask(stream, [range, xinfo(stream)]).await?;
        Ok((reply::entries(entries?)?, found(info)?))
    }

    /// At most `count` entries from `from` back, which is included; the newest comes first.
    pub(super) async fn range_back(
        &self,
        stream: &str,
        from: Offset,
        count: usize,
    ) -> Result<Vec<Entry>, Unanswered> {
        let mut range = cmd("XREVRANGE");
        range.arg(stream).arg(id::show(from)).arg("-").arg("COUNT").arg(count);
        let [entries] = self.ask(stream, [range]).await?;
        Ok(reply::entries(entries?)?)
    }

    /// Ends the wait of another connection to this server, if it waits.
    pub(super) async fn unblock(&self, server: &Node, client: i64) -> Result<(), Unanswered> {
        let question = cmd("CLIENT").arg("UNBLOCK").arg(client).take();
        let [answer] = self.line(&self.servers()?, server).ask(&[question], false).await?;
        Ok(answer.map(drop)?)
    }

    /// Asks so many questions about one stream, at the server that has it.
    async fn ask<const N: usize>(
        &self,
        stream: &str,
        questions: [Cmd; N],
    ) -> Result<[RedisResult<Value>; N], Unanswered> {
        let servers = self.servers()?;
        let (mut whom, mut asking) = (servers.of(stream)?, false);
        for _ in 0..REDIRECTS {
            let answers = self.line(&servers, &whom).ask(&questions, asking).await?;
            let Some(map) = &servers.map else { return Ok(answers) };
            // All are of one key; between two it may have left, and then all are asked again.
            let errors = answers.iter().filter_map(|answer| answer.as_ref().err());
            match errors.filter_map(|error| Redirect::of(error, &whom.host)).next() {
                None => return Ok(answers),
                Some(Redirect::Moved(slot, to)) => {
                    map.lock().moved(slot, to.clone());
                    (whom, asking) = (to, false);
                }
                Some(Redirect::Ask(to)) => (whom, asking) = (to, true),
            }
        }
        Err(Unanswered::Busy(format!("the nodes of the cluster send one on and on for {stream}")))
    }

    fn servers(&self) -> Result<Servers, Unanswered> {
        let unknown = || Unanswered::Broken(Broken("no Redis server has been found yet".to_owned()));
        self.servers.lock().clone().ok_or_else(unknown)
    }

    /// The line to a server. Those to nodes that the cluster has let go of end here.
    fn line(&self, servers: &Servers, whom: &Node) -> Arc<Line> {
        let mut lines = self.lines.lock();
        if let Some(line) = lines.get(whom) {
            return Arc::clone(line);
        }
        if let Some(map) = &servers.map {
            let map = map.lock();
            lines.retain(|node, _| map.nodes.contains(node));
        }
        let line = Arc::new(Line::new(&servers.dialer, servers.endpoint.at(&whom.host, whom.port)));
        lines.insert(whom.clone(), Arc::clone(&line));
        line
    }
}

fn xinfo(stream: &str) -> Cmd {
    cmd("XINFO").arg("STREAM").arg(stream).take()
}

/// The answer to XINFO STREAM, for which a stream that is not there is an error.
fn found(answer: RedisResult<Value>) -> Result<Option<Info>, Unanswered> {
    match answer {
        Err(error) if error.detail() == Some("no such key") => Ok(None),
        answer => Ok(Some(Info::parse(&answer?)?)),
    }
}

/// How often a question is sent on at most: nodes may point at each other while they agree on who owns a slot.
const REDIRECTS: usize = 5;
