//! Reading stretches: what the server gives after an id, until the log is met. So many requests at a time, each for one
//! read. Where the server gives nothing that the log does not have later, a stretch waits for the log to go on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Shared;
use super::ids::{Ids, Job};
use super::step::{Message, Step, Steps, What};
use super::stretches::{Came, End};
use super::table::{OVERHEAD, text};
use crate::hub::{Gap, IdCodec, Reason, SegmentDraft};
use crate::upstream::link::Link;
use crate::upstream::paths::Refusal;

/// Serves those who wait for stretches; never ends.
pub(super) async fn serve(shared: Arc<Shared>, mut jobs: UnboundedReceiver<Job>, link: Arc<Link>) {
    let (slots, mut reads) = (Arc::new(Semaphore::new(shared.at_a_time)), JoinSet::new());
    while let Some(job) = jobs.recv().await {
        while reads.try_join_next().is_some() {}
        reads.spawn(stretch(Arc::clone(&shared), job, Arc::clone(&slots), Arc::clone(&link)));
    }
}

/// Reads a stretch, as often as it takes, while somebody waits for it.
async fn stretch(shared: Arc<Shared>, (ids, number): Job, slots: Arc<Semaphore>, link: Arc<Link>) {
    let metrics = link.history_metrics();
    while let Some(after) = ids.is_waited_for(number) {
        let mut news = ids.news();
        let seen = *news.borrow_and_update();
        metrics.queued.inc();
        let slot = slots.acquire().await.expect("slots are never closed");
        metrics.queued.dec();
        metrics.running.inc();
        let read = read(&shared, &ids, number, after.clone()).await;
        metrics.running.dec();
        drop(slot);
        if read.is_ok() { &metrics.read } else { &metrics.failed }.inc();
        match read {
            Ok(Some(came)) => return ids.arrived(number, came),
            Ok(None) => {
                let _parked = ids.park();
                let gone_on = news.wait_for(|events| *events > seen || ids.holds(text(&after)));
                let _ = timeout(AGAIN_ANYWAY, gone_on).await;
            }
            Err(why) => {
                ids.failed();
                link.trouble(&format!("reading what was at {} failed: {why}", ids.path));
                sleep(AGAIN).await;
            }
        }
    }
}

/// One read. `None` where the server has nothing now.
async fn read(
    shared: &Arc<Shared>,
    ids: &Arc<Ids>,
    number: u64,
    after: Bytes,
) -> Result<Option<Came>, String> {
    // A task of its own, so that a defect in one read costs that read alone.
    let (shared, ids, mut task) = (Arc::clone(shared), Arc::clone(ids), JoinSet::new());
    task.spawn(async move {
        let mut reading = Reading { ids: &ids, after, taken: Vec::new(), size: 0 };
        let end = reading.read(&shared).await?;
        Ok(end.map(|end| reading.came(number, end)))
    });
    match task.join_next().await {
        Some(Ok(read)) => read,
        Some(Err(panic)) => Err(format!("a defect in ssegate: {panic}")),
        None => Ok(None),
    }
}

/// A stretch while it is read.
pub(super) struct Reading<'r> {
    pub ids: &'r Arc<Ids>,
    pub after: Bytes,
    pub taken: Vec<Step>,
    pub size: usize,
}

impl Reading<'_> {
    /// How the stretch ends; `None` where it has not begun.
    async fn read(&mut self, shared: &Shared) -> Result<Option<End>, String> {
        if let Some(end) = self.met(0) {
            return Ok(Some(end));
        }
        let after: Arc<str> = text(&self.after).into();
        let server = shared.server();
        let most = self.ids.shape.max_event;
        let body = match server.past(&self.ids.path, &after, HEAD).await {
            Ok(body) => body,
            Err(Refusal::Over) => return Ok(Some(End::Gap(Reason::UnknownId))),
            Err(Refusal::Status(status)) if is_of_the_id(status.as_u16()) => {
                return Ok(Some(End::Gap(Reason::UnknownId)));
            }
            Err(Refusal::Late) => return Ok(None),
            Err(why) => return Err(why.to_string()),
        };
        let steps = Steps::new(Some(&after), most, server.config.relay.clone());
        self.follow(body, steps).await
    }

    async fn follow(&mut self, mut body: Incoming, mut steps: Steps) -> Result<Option<End>, String> {
        let began = Instant::now();
        let (mut quiet, mut looked, mut new) = (began + FIRST, began, 0);
        loop {
            let now = Instant::now();
            let from = if now >= looked + LOOK { 0 } else { new };
            if let Some(end) = self.met(from) {
                return Ok(Some(end));
            }
            looked = if from == 0 { now } else { looked };
            new = self.taken.len();
            if self.taken.len() >= MOST.0 || self.size >= MOST.1 {
                return Ok(Some(self.so_far().unwrap_or(End::Gap(Reason::ReplayLimit))));
            }
            if now >= quiet || now >= began + LONGEST {
                return Ok(self.so_far());
            }
            let frame = tokio::select! {
                frame = body.frame() => frame,
                // The log goes on meanwhile.
                () = sleep_until(quiet.min(now + LOOK)) => continue,
            };
            let bytes = match frame {
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                Some(Err(error)) if self.so_far().is_none() => return Err(error.to_string()),
                // What came is good.
                Some(Err(_)) | None => return Ok(self.so_far()),
            };
            let heard = steps.feed(&bytes);
            if !heard.steps.is_empty() {
                quiet = Instant::now() + QUIET;
            }
            self.size += bytes.len();
            self.taken.extend(heard.steps);
        }
    }

    /// Where the log has what follows, if it is met by one of the steps from here on: at the newest id that it has.
    fn met(&mut self, from: usize) -> Option<End> {
        let known = |step: &Step| step.id.as_ref().is_some_and(|id| self.ids.holds(id));
        if let Some(at) = self.taken[from..].iter().rposition(known) {
            return Some(self.end_at(from + at));
        }
        // It may have got to where this begins.
        let begins = self.ids.holds(text(&self.after));
        begins.then(|| {
            self.taken.clear();
            End::After(self.after.clone())
        })
    }

    /// What has come so far as a whole, if it goes beyond the id after which it begins.
    fn so_far(&mut self) -> Option<End> {
        let goes_on = |step: &Step| step.id.as_ref().is_some_and(|id| id.as_bytes() != self.after);
        let at = self.taken.iter().rposition(goes_on)?;
        Some(self.end_at(at))
    }

    /// The end behind the first step with the id that holds here: what has none of its own comes after that once more.
    fn end_at(&mut self, at: usize) -> End {
        let id = self.taken[at].id.clone();
        let others = self.taken[..at].iter().rposition(|step| step.id != id);
        self.taken.truncate(others.map_or(0, |other| other + 1) + 1);
        End::After(Bytes::copy_from_slice(id.as_deref().unwrap_or_default().as_bytes()))
    }

    /// The stretch of what was taken. Its numbers follow `first`.
    pub(super) fn came(self, first: u64, end: End) -> Came {
        let (memory, codec) = (&self.ids.memory, Arc::clone(self.ids) as Arc<dyn IdCodec>);
        let mut draft = SegmentDraft::new(&self.ids.shape, &codec, false, memory, 0, first.into());
        let (mut number, mut ids, mut last) = (first, Vec::new(), Some(Arc::from(text(&self.after))));
        for Step { what, id } in &self.taken {
            number += 1;
            match what {
                What::Event(event) => {
                    draft.push(number.into(), &Message { path: &self.ids.path, event });
                }
                What::TooLarge => {
                    draft.gap(number.into(), &Gap { missed: Some(1), ..Gap::of(Reason::TooLarge) });
                }
                What::Gap(gap) => draft.gap(number.into(), gap),
                What::Moved => {}
            }
            if *id != last {
                let text = id.as_deref().unwrap_or_default().as_bytes().to_vec();
                ids.push((number, memory.charge(text, OVERHEAD)));
                last.clone_from(id);
            }
        }
        Came { segment: Arc::new(draft.finish(number.into())), ids, end }
    }
}

/// Whether an answer of this status says that there is nothing after such an id, and not that it cannot be asked now.
fn is_of_the_id(status: u16) -> bool {
    (400..500).contains(&status) && !matches!(status, 401 | 403 | 407 | 408 | 421 | 425 | 429)
}

/// How long the head of an answer may take, and then its first step, and the next one.
const HEAD: Duration = Duration::from_secs(10);
const FIRST: Duration = Duration::from_secs(3);
const QUIET: Duration = Duration::from_secs(1);
/// How long one read may take.
const LONGEST: Duration = Duration::from_secs(10);
/// How often it is looked whether the log has got to what was read.
const LOOK: Duration = Duration::from_millis(50);
/// Steps and bytes of one stretch.
const MOST: (usize, usize) = (4_000, 512 * 1024);
/// The wait before a read that failed is tried again, and one that brought nothing, if the log does not go on before.
const AGAIN: Duration = Duration::from_millis(500);
const AGAIN_ANYWAY: Duration = Duration::from_secs(15);
