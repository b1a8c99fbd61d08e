//! Questions to JetStream, as JSON: what a stream is, and consumers that read it, which last as long as they are used.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::upstream::nats::line::Line;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    /// JetStream says no: there is no such stream, or it is none to be read.
    #[error("{0}")]
    Refused(String),
    /// Not now, and soon.
    #[error("{0}")]
    Busy(String),
}

/// A stream at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Info {
    config: Config,
    /// When it was made.
    pub created: String,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Config {
    retention: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct State {
    first_seq: u64,
    last_seq: u64,
}

impl Info {
    /// Where its oldest message begins: the number of the one before.
    pub fn beginning(&self) -> u64 {
        self.state.first_seq.saturating_sub(1).min(self.state.last_seq)
    }

    /// Where it ends: the number of its newest message, or of the last that there was.
    pub fn end(&self) -> u64 {
        self.state.last_seq
    }
}

/// Where a consumer begins.
#[derive(Debug, Clone, Copy)]
pub(super) enum Since {
    /// After the message of this number.
    After(u64),
    /// With the first message that is not older.
    Time(SystemTime),
}

/// A consumer as it was made.
#[derive(Debug, Deserialize)]
pub(super) struct Made {
    pub name: String,
    /// How many messages it has to give.
    pub num_pending: u64,
}

/// What a stream is. One that is not there, or whose messages go away when they are read, is refused.
pub(super) async fn info(line: &Arc<Line>, stream: &str) -> Result<Info, Unanswered> {
    let info: Info = ask(line, &format!("STREAM.INFO.{stream}"), "").await?;
    if info.config.retention == "workqueue" {
        return Err(Unanswered::Refused(
            "it is a work queue, and reading would take its messages from others".to_owned(),
        ));
    }
    Ok(info)
}

/// Makes a consumer of a stream that is gone when it has not been used for a while, and acknowledges nothing.
pub(super) async fn make(
    line: &Arc<Line>,
    stream: &str,
    subject: Option<&str>,
    since: Since,
    headers_only: bool,
) -> Result<Made, Unanswered> {
    let mut config = json!({
        "ack_policy": "none",
        "replay_policy": "instant",
        "inactive_threshold": nanos(INACTIVE),
        "mem_storage": true,
        "num_replicas": 1,
        "headers_only": headers_only,
        "description": "ssegate",
    });
    match since {
        Since::After(number) => {
            config["deliver_policy"] = json!("by_start_sequence");
            config["opt_start_seq"] = json!(number.saturating_add(1));
        }
        Since::Time(time) => {
            config["deliver_policy"] = json!("by_start_time");
            config["opt_start_time"] =
                json!(humantime::format_rfc3339_nanos(time.max(UNIX_EPOCH)).to_string());
        }
    }
    if let Some(subject) = subject {
        config["filter_subject"] = json!(subject);
    }
    let question = json!({ "stream_name": stream, "config": config }).to_string();
    ask(line, &format!("CONSUMER.CREATE.{stream}"), &question).await
}

/// How far a consumer has got.
#[derive(Debug, Deserialize)]
pub(super) struct Progress {
    /// How many messages it has to give.
    pub num_pending: u64,
    delivered: Delivered,
}

#[derive(Debug, Deserialize)]
struct Delivered {
    consumer_seq: u64,
    stream_seq: u64,
}

impl Progress {
    /// How many it has given.
    pub fn given(&self) -> u64 {
        self.delivered.consumer_seq
    }

    /// The number of the message that it gave last, or of the one before those that it begins with.
    pub fn at(&self) -> u64 {
        self.delivered.stream_seq
    }
}

/// Asks a consumer how far it has got. One that is gone is made anew, which is soon.
pub(super) async fn progress(line: &Arc<Line>, stream: &str, consumer: &str) -> Result<Progress, Unanswered> {
    let progress = ask(line, &format!("CONSUMER.INFO.{stream}.{consumer}"), "").await;
    progress.map_err(|why| Unanswered::Busy(why.to_string()))
}

/// What is asked for and asks for messages of a consumer.
pub(super) fn next_subject(stream: &str, consumer: &str) -> String {
    format!("{API}CONSUMER.MSG.NEXT.{stream}.{consumer}")
}

/// Where a consumer is deleted.
pub(super) fn delete_subject(stream: &str, consumer: &str) -> String {
    format!("{API}CONSUMER.DELETE.{stream}.{consumer}")
}

/// The number of the first message from `number` on, of this subject if not of all, as the server says that leads the
/// stream; `None` where there is none. Consumers are at any of the servers that have the stream, and of those that follow
/// one may be behind: what it does not give may be there all the same.
pub(super) async fn first_from(
    line: &Arc<Line>,
    stream: &str,
    subject: Option<&str>,
    number: u64,
) -> Result<Option<u64>, Unanswered> {
    let question = json!({ "seq": number, "next_by_subj": subject.unwrap_or(">") }).to_string();
    match answer::<Got>(line, &format!("STREAM.MSG.GET.{stream}"), &question).await? {
        Ok(got) => Ok(Some(got.message.seq)),
        Err(refusal) if refusal.err_code == NO_MESSAGE => Ok(None),
        Err(refusal) => Err(refusal.into()),
    }
}

/// Whether the server that leads the stream has something behind `at`, up to `until`, that the consumer did not give which
/// was to give it.
pub(super) async fn holds_back(
    line: &Arc<Line>,
    stream: &str,
    subject: Option<&str>,
    at: u64,
    until: u64,
) -> Result<bool, Unanswered> {
    if at >= until {
        return Ok(false);
    }
    let first = first_from(line, stream, subject, at + 1).await?;
    Ok(first.is_some_and(|first| first <= until))
}

/// Whoever reads for us is behind. Another consumer is at another server perhaps, or this one has caught up by then.
pub(super) fn behind() -> Unanswered {
    Unanswered::Busy("the server that reads it for ssegate is behind the one that leads it".to_owned())
}

#[derive(Debug, Deserialize)]
struct Got {
    message: Numbered,
}

#[derive(Debug, Deserialize)]
struct Numbered {
    seq: u64,
}

/// JetStream's no.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Refusal {
    /// As in HTTP.
    code: Option<u64>,
    /// JetStream's own.
    err_code: u64,
    description: Option<String>,
}

impl From<Refusal> for Unanswered {
    fn from(refusal: Refusal) -> Self {
        let why = refusal.description.unwrap_or_else(|| "it does not say why".to_owned());
        match refusal.code {
            Some(500..) | None => Self::Busy(why),
            Some(_) => Self::Refused(why),
        }
    }
}

async fn ask<T: DeserializeOwned>(line: &Arc<Line>, what: &str, question: &str) -> Result<T, Unanswered> {
    Ok(answer(line, what, question).await??)
}

async fn answer<T: DeserializeOwned>(
    line: &Arc<Line>,
    what: &str,
    question: &str,
) -> Result<Result<T, Refusal>, Unanswered> {
    let late = || Unanswered::Busy(format!("JetStream did not answer within {:?}", line.timeout()));
    let answer = line.answer(&format!("{API}{what}"), question).await;
    let answer = answer.map_err(|broken| Unanswered::Busy(broken.to_string()))?.ok_or_else(late)?;
    if answer.status().is_some_and(|(code, _)| code == 503) {
        return Err(Unanswered::Busy("nobody answers for JetStream at this server".to_owned()));
    }
    let strange = |_| Unanswered::Busy("JetStream's answer makes no sense".to_owned());
    let mut answer: Value = serde_json::from_slice(&answer.payload).map_err(strange)?;
    match answer.get_mut("error").map(Value::take) {
        Some(error) => Ok(Err(serde_json::from_value(error).map_err(strange)?)),
        None => Ok(Ok(serde_json::from_value(answer).map_err(strange)?)),
    }
}

/// A duration as JetStream takes it.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

const API: &str = "$JS.API.";
/// `no message found`, in JetStream's own numbers.
const NO_MESSAGE: u64 = 10_037;
/// How long a consumer outlives its last use.
const INACTIVE: Duration = Duration::from_secs(30);
