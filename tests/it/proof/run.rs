//! One run of the proof: a source, two replicas, a client for each view, and a script of faults; then the verdict.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep};

use super::client::{Client, Habits, now};
use super::faults::{Fault, script};
use super::replicas::Replicas;
use super::source::{Pen, Published, Source, View};
use super::verdict::{Seen, Violation};
use crate::support::eventsource::Options;
use crate::support::wait::DEADLINE;

/// Runs the script of this seed and panics where a client's record is not in order; says then where all records are.
pub async fn prove<S: Source>(seed: u64) {
    eprintln!("{}: the seed is {seed}", S::NAME);
    let Some(mut source) = S::start().await else {
        return eprintln!("{}: skipped, since there is no real broker", S::NAME);
    };
    let replicas = Replicas::start((0..REPLICAS).map(|replica| source.config(replica))).await;
    let (restless, habit) = watch::channel(false);
    let mut run = Run::start(format!("{}-{seed}", S::NAME), replicas, source.views(), habit).await;
    let pen = Arc::new(Mutex::new(source.pen().await));
    let (enough, told) = watch::channel(false);
    let writer = tokio::spawn(write(Arc::clone(&pen), S::NUMBERS, told));

    restless.send_replace(true);
    for step in script(seed, S::MENU) {
        sleep(step.pause).await;
        run.note(format!("{:?} begins", step.fault));
        match step.fault {
            Fault::ReplicaKilled(replica, down) => {
                run.replicas.kill(replica);
                sleep(down).await;
                run.replicas.restart(replica).await;
            }
            fault => source.suffer(fault, &pen, &run.replicas).await,
        }
        run.note("all is well".into());
    }
    enough.send_replace(true);
    let written = writer.await.expect("no panic");

    // From here on nobody leaves, so that what is published last reaches everyone.
    restless.send_replace(false);
    source.until_settled().await;
    run.until_all_read().await;
    pen.lock().await.publish(written..written + LAST).await;
    let pen = Arc::into_inner(pen).expect("nobody else publishes").into_inner();
    run.published = Some(source.conclude(pen).await);
    run.verdict().await;
    eprintln!("{}", run.tally(written + LAST, S::MENU.iter().map(|(_, count)| count).sum()));
}

/// Publishes at a steady pace, and what was held up in batches of some size; until enough is written and told to end.
async fn write<P: Pen>(pen: Arc<Mutex<P>>, (least, pace): (u64, u64), enough: watch::Receiver<bool>) -> u64 {
    let (began, mut next) = (Instant::now(), 0);
    while next < least || !*enough.borrow() {
        let due = (began.elapsed().as_secs_f64() * pace as f64) as u64;
        let to = due.min(next + BATCH);
        if next < to {
            pen.lock().await.publish(next..to).await;
            next = to;
        }
        if next == due {
            sleep(TICK).await;
        }
    }
    next
}

/// All that is written down. Where the run fails, it is kept.
struct Run {
    name: String,
    began: Instant,
    replicas: Replicas,
    views: Vec<View>,
    clients: Vec<Client>,
    faults: Vec<(u64, String)>,
    published: Option<Published>,
}

impl Run {
    /// Starts the clients, and waits until each knows where it begins.
    async fn start(
        name: String,
        replicas: Replicas,
        views: Vec<View>,
        restless: watch::Receiver<bool>,
    ) -> Self {
        let start = |(seed, view): (u64, &View)| {
            Client::start(Habits {
                replicas: replicas.urls(),
                path: view.path.clone(),
                options: if seed.is_multiple_of(3) { Options::http1() } else { Options::http2() },
                seed,
                restless: restless.clone(),
            })
        };
        let clients = (0..).zip(&views).map(start).collect();
        let (faults, published) = (Vec::new(), None);
        let run = Self { name, began: Instant::now(), replicas, views, clients, faults, published };
        run.until_all_read().await;
        run
    }

    fn note(&mut self, what: String) {
        self.faults.push((now(), what));
    }

    async fn until_all_read(&self) {
        for client in &self.clients {
            client.until_reading().await;
        }
    }

    /// Waits until nothing is missing, or nothing more comes; then there must be nothing wrong.
    async fn verdict(&self) {
        let mut news = (usize::MAX, Instant::now());
        loop {
            let wrong = self.judge();
            let length = self.clients.iter().map(|client| client.with_record(<[_]>::len)).sum();
            if length != news.0 {
                news = (length, Instant::now());
            }
            let all_there = !wrong.iter().flatten().any(|wrong| matches!(wrong, Violation::Missing(_)));
            if all_there || news.1.elapsed() > DEADLINE / 4 {
                let failed = wrong.iter().any(|wrong| !wrong.is_empty());
                assert!(!failed, "{}", self.accusation(&wrong));
                return;
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    fn judge(&self) -> Vec<Vec<Violation>> {
        let Some(published) = &self.published else { return Vec::new() };
        let judge =
            |(client, view): (&Client, &View)| client.with_record(|record| published.judge(view, record));
        self.clients.iter().zip(&self.views).map(judge).collect()
    }

    fn accusation(&self, wrong: &[Vec<Violation>]) -> String {
        let mut text = format!("the records are kept in {}\n", self.dir().display());
        if let Some(Published::Placed(placed)) = &self.published {
            _ = writeln!(text, "what was taken away lay before {:?}", placed.lows);
        }
        for (at, wrong) in wrong.iter().enumerate().filter(|(_, wrong)| !wrong.is_empty()) {
            let some = &wrong[..wrong.len().min(10)];
            _ = writeln!(text, "client {at} of {}: {} wrong: {some:?}", self.views[at].path, wrong.len());
            let untrue = some.iter().filter_map(|wrong| match wrong {
                Violation::Untrue(entry) => Some(*entry),
                _ => None,
            });
            for entry in untrue {
                // Where its stream was opened is part of what it says.
                let opened = self.clients[at].with_record(|record| {
                    let before =
                        record[..entry].iter().rposition(|entry| matches!(entry.seen, Seen::Opened(..)));
                    format!("{:?}, after {:?}", record[entry], before.map(|before| &record[before]))
                });
                _ = writeln!(text, "  {opened}");
            }
        }
        text
    }

    /// What it was all about, in figures.
    fn tally(&self, published: u64, faults: usize) -> String {
        let (mut given, mut opened, mut gaps) = (0, 0, BTreeMap::<String, u32>::new());
        for client in &self.clients {
            client.with_record(|record| {
                for entry in record {
                    match &entry.seen {
                        Seen::Event(_) => given += 1,
                        Seen::Opened(..) => opened += 1,
                        Seen::Gap(gap) => *gaps.entry(gap["reason"].to_string()).or_default() += 1,
                        Seen::Position | Seen::Ended(_) | Seen::Refused(_) => {}
                    }
                }
            });
        }
        let (name, clients, seconds) = (&self.name, self.clients.len(), self.began.elapsed().as_secs());
        format!(
            "{name}: {published} published, {given} given to {clients} clients on {opened} streams, {faults} faults, \
             {seconds} s, gaps {gaps:?}"
        )
    }

    fn dir(&self) -> PathBuf {
        [env!("CARGO_TARGET_TMPDIR"), "proof", &self.name].iter().collect()
    }

    fn keep(&self) -> std::io::Result<()> {
        let dir = self.dir();
        fs::create_dir_all(&dir)?;
        fs::write(
            dir.join("faults.txt"),
            lines(self.faults.iter().map(|(at, what)| format!("{at} {what}"))),
        )?;
        for (at, (client, view)) in self.clients.iter().zip(&self.views).enumerate() {
            let record = client.with_record(|record| {
                lines(record.iter().map(|entry| format!("{} {:?}", entry.at, entry.seen)))
            });
            fs::write(dir.join(format!("client-{at}.txt")), format!("{}\n{record}", view.path))?;
        }
        for (replica, processes) in self.replicas.logs().iter().enumerate() {
            for (at, log) in processes.iter().enumerate() {
                fs::write(dir.join(format!("replica-{replica}-{at}.log")), lines(log))?;
            }
        }
        let published = match &self.published {
            Some(Published::Placed(placed)) => {
                let mut by_place: Vec<_> =
                    placed.places.iter().map(|(number, place)| (place, number)).collect();
                by_place.sort_unstable();
                lines(by_place.iter().map(|placed| format!("{placed:?}"))) + &format!("{:?}\n", placed.lows)
            }
            Some(Published::Timed(timed)) => lines(timed.0.iter().map(|sent| format!("{sent:?}"))),
            None => "not known, since the run did not come to its end".into(),
        };
        fs::write(dir.join("published.txt"), published)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let kept = self.keep().map(|()| self.dir());
            eprintln!("{}: what was recorded is kept: {kept:?}", self.name);
        }
    }
}

fn lines(lines: impl IntoIterator<Item: ToString>) -> String {
    lines.into_iter().map(|line| line.to_string() + "\n").collect()
}

/// How many replicas run.
const REPLICAS: usize = 2;
/// How many numbers are published when all is over.
const LAST: u64 = 64;
/// How many numbers are published at a time, at most.
const BATCH: u64 = 500;
/// The pace of publishing.
const TICK: Duration = Duration::from_millis(25);
