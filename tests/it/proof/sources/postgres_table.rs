//! A table of Postgres to which transactions add rows that commit late, in any order, or not at all; some routes keep nearly
//! nothing in memory. What it holds in the end, or held before some of it was deleted, is what was published.

use std::ops::Range;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::Mutex;
use tokio::time::sleep;
use tokio_postgres::{Client, Config, Error};

use crate::proof::faults::{Fault, Kind};
use crate::proof::harm::harm;
use crate::proof::replicas::Replicas;
use crate::proof::source::{Pen, Published, Source, View, all_and_short};
use crate::proof::verdict::placed::{Place, Placed};
use crate::support::postgres::Postgres;
use crate::support::proxy::Proxy;

/// One table; the first replica reads it through a proxy.
pub struct PostgresTable {
    postgres: Postgres,
    link: Proxy,
    published: Placed,
}

/// Transactions, some of which take their time.
pub struct RowPen {
    config: Config,
    quick: Option<Client>,
    slow: Vec<Slow>,
    random: StdRng,
}

/// A transaction that is open.
struct Slow {
    connection: Client,
    /// How many more batches are published before it ends.
    left: u32,
    /// Ids that it has taken, and what is to be inserted with them.
    taken: Vec<(i64, u64)>,
}

impl Source for PostgresTable {
    const NAME: &'static str = "postgres-table";
    const MENU: &'static [(Kind, usize)] = &[
        (Kind::BrokerKilled, 2),
        (Kind::BrokerStopped, 2),
        (Kind::LinkReset, 3),
        (Kind::LinkSilent, 2),
        (Kind::ReplicaKilled, 4),
        (Kind::Trimmed, 3),
        (Kind::TrimmedBehind, 2),
        (Kind::Recreated, 1),
    ];
    const NUMBERS: (u64, u64) = (50_000, 1_500);

    type Pen = RowPen;

    async fn start() -> Option<Self> {
        let postgres = Postgres::start().await;
        postgres.run("CREATE TABLE numbers (id bigserial PRIMARY KEY, n bigint, half text)").await;
        let link = Proxy::start(([127, 0, 0, 1], postgres.port()).into()).await;
        let published = Placed { eras: 1, ..Placed::default() };
        Some(Self { postgres, link, published })
    }

    fn config(&self, replica: usize) -> String {
        let port = if replica == 0 { self.link.addr().port() } else { self.postgres.port() };
        let url = self.postgres.url_at("postgres", port);
        let from = "upstream: up, table: numbers, columns: { data: n }, every: 50ms";
        let routes = all_and_short(&format!("from: {{ {from} }}"));
        format!(
            r#"
upstreams: {{ up: {{ postgres: {{ url: "{url}", ping_interval: 200ms, timeout: 1s }} }} }}
{routes}  - {{ path: "/half/{{half}}", from: {{ {from}, where: {{ half: "{{half}}" }} }}, history: {{ events: 10 }}, buffer: 64KiB }}
"#
        )
    }

    fn views(&self) -> Vec<View> {
        let halves = (0..2).map(|half| View { path: format!("/half/{half}"), share: Some((2, half)) });
        View::all_and_short(6).into_iter().chain(halves).collect()
    }

    async fn pen(&self) -> RowPen {
        let random = StdRng::seed_from_u64(u64::from(self.postgres.port()));
        RowPen { config: self.postgres.config(), quick: None, slow: Vec::new(), random }
    }

    async fn suffer(&mut self, fault: Fault, pen: &Mutex<RowPen>, _: &Replicas) {
        match fault {
            Fault::Trimmed(part) => self.trim(part, pen).await,
            Fault::TrimmedBehind => {
                self.link.pause();
                sleep(Duration::from_secs(1)).await;
                self.trim(1.0, pen).await;
                self.link.cut_all();
                self.link.resume();
            }
            Fault::Recreated => {
                let mut held = pen.lock().await;
                held.end_all().await;
                self.note().await;
                self.postgres.run("TRUNCATE numbers RESTART IDENTITY").await;
                self.published.eras += 1;
            }
            other => harm(&mut self.postgres, &self.link, other).await,
        }
    }

    async fn until_settled(&self) {}

    async fn conclude(&mut self, mut pen: RowPen) -> Published {
        pen.end_all().await;
        self.note().await;
        Published::Placed(std::mem::take(&mut self.published))
    }
}

impl PostgresTable {
    /// Deletes this part of what the table holds, the oldest first: nothing that comes later is older than that.
    async fn trim(&mut self, part: f64, pen: &Mutex<RowPen>) {
        let mut held = pen.lock().await;
        held.end_all().await;
        let ids = self.note().await;
        let gone = (ids.len() as f64 * part) as usize;
        let Some(&last) = gone.checked_sub(1).and_then(|at| ids.get(at)) else { return };
        self.postgres.run(&format!("DELETE FROM numbers WHERE id <= {last}")).await;
        // Between what was deleted last and what follows that there is nothing, which is not known before that is there.
        self.published.lows.insert((self.published.eras - 1, 0), (last + 1, 0));
    }

    /// Notes what the table holds; returns the ids, in order.
    async fn note(&mut self) -> Vec<u64> {
        let client = self.postgres.connect().await;
        let rows = client.query("SELECT id, n FROM numbers ORDER BY id", &[]).await.expect("an answer");
        let era = self.published.eras - 1;
        let unsigned = |number: i64| u64::try_from(number).expect("a number from 1 on");
        let mut ids = Vec::new();
        for row in rows {
            let (id, number) = (unsigned(row.get(0)), unsigned(row.get(1)));
            ids.push(id);
            let place = Place { era, partition: 0, offset: (id, 0) };
            let before = self.published.places.insert(number, place);
            assert!(before.is_none_or(|before| before == place), "{number} is there twice");
        }
        // Every transaction is over: before the first row there is nothing, be it deleted or rolled back, which a reader who
        // has not seen what was there cannot tell apart.
        if let Some(&first) = ids.first() {
            let low = self.published.lows.entry((era, 0)).or_default();
            *low = (*low).max((first, 0));
        }
        ids
    }
}

impl Pen for RowPen {
    async fn publish(&mut self, numbers: Range<u64>) {
        self.slow.iter_mut().for_each(|slow| slow.left -= 1);
        let (over, open): (Vec<_>, Vec<_>) = self.slow.drain(..).partition(|slow| slow.left == 0);
        self.slow = open;
        for slow in over {
            // One in five is rolled back, and its numbers were never published.
            let commits = !self.random.random_ratio(1, 5);
            slow.end(commits).await;
        }
        // Others come before, in between and after.
        let middle = (numbers.start + numbers.end) / 2;
        let slow = numbers.start..if self.slow.len() < MOST_SLOW {
            (numbers.start + SLOW).min(middle)
        } else {
            numbers.start
        };
        if let Ok(Some(slow)) = self.begin(slow.clone()).await {
            self.slow.push(slow);
        }
        if self.insert(slow.end..numbers.end).await.is_err() {
            self.quick = None;
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl RowPen {
    /// Begins a transaction that inserts these at once, or takes ids for them and inserts later.
    async fn begin(&mut self, numbers: Range<u64>) -> Result<Option<Slow>, Error> {
        if numbers.is_empty() {
            return Ok(None);
        }
        let (connection, mut taken) = (Postgres::enter(&self.config).await?, Vec::new());
        connection.batch_execute("BEGIN").await?;
        if self.random.random_ratio(1, 2) {
            connection.batch_execute(&inserts(numbers)).await?;
        } else {
            for number in numbers {
                let id = connection.query_one("SELECT nextval('numbers_id_seq')", &[]).await?.get(0);
                taken.push((id, number));
            }
        }
        Ok(Some(Slow { connection, left: self.random.random_range(1..=12), taken }))
    }

    async fn insert(&mut self, numbers: Range<u64>) -> Result<(), Error> {
        let connection = match &mut self.quick {
            Some(connection) => connection,
            none => none.insert(Postgres::enter(&self.config).await?),
        };
        connection.batch_execute(&inserts(numbers)).await
    }

    async fn end_all(&mut self) {
        for slow in self.slow.drain(..) {
            slow.end(true).await;
        }
    }
}

impl Slow {
    /// What became of it, the table tells.
    async fn end(self, commits: bool) {
        for (id, number) in self.taken {
            let insert = format!("INSERT INTO numbers VALUES ({id}, {number}, {number} % 2)");
            let _ = self.connection.batch_execute(&insert).await;
        }
        let _ = self.connection.batch_execute(if commits { "COMMIT" } else { "ROLLBACK" }).await;
    }
}

fn inserts(numbers: Range<u64>) -> String {
    let (first, last) = (numbers.start, numbers.end - 1);
    format!(
        "INSERT INTO numbers (n, half) SELECT n, n % 2 FROM generate_series({first}, {last}) n ORDER BY n"
    )
}

/// How many transactions are open at a time, at most, besides the quick ones.
const MOST_SLOW: usize = 3;
/// How many numbers one of them inserts, at most.
const SLOW: u64 = 5;
