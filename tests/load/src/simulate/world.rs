//! A server as a queue: cores that take work about in the order in which it became ready, as the runtime's workers do that
//! steal from one another. What happens is kept in an order of time; the same seed gives the same run.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use hdrhistogram::Histogram;

use crate::simulate::costs::Costs;

/// What is simulated.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Of the server.
    pub cores: usize,
    /// Clients that are live from the beginning, or all that come back.
    pub clients: usize,
    /// Feeds that clients and events are spread over.
    pub feeds: usize,
    /// Events a second, over all feeds.
    pub rate: f64,
    /// How many; where clients come back, as many as it takes.
    pub events: u64,
    /// Of the route, in nanoseconds.
    pub linger: u64,
    /// Events come at random moments, and not at a steady pace.
    pub random: bool,
    /// What the clients' own core needs for a delivery and for a connection, in nanoseconds; 0 where they are elsewhere.
    pub reader: u64,
    /// The same for a connection.
    pub dialer: u64,
    /// How clients come back, if all have been cut.
    pub storm: Option<Storm>,
    /// Where chance begins.
    pub seed: u64,
}

/// How clients come back.
#[derive(Debug, Clone)]
pub struct Storm {
    /// Each at a random moment between these, in nanoseconds.
    pub window: (u64, u64),
    /// At most so many that do not stand yet, as the load tool does.
    pub at_once: usize,
    /// Connections that the kernel lets wait to be accepted. Others try again after a second, and then after twice as long.
    pub backlog: usize,
    /// A round trip, in nanoseconds.
    pub round_trip: u64,
}

/// What came of it; times in nanoseconds.
#[derive(Debug)]
pub struct Outcome {
    /// From an event's publishing to its arrival, in microseconds.
    pub latency: Histogram<u64>,
    /// Events to clients.
    pub deliveries: u64,
    /// That cores worked.
    pub busy: u64,
    /// Until nothing was left to do.
    pub took: u64,
    /// Until the last of those who came back stood, and until it had the next event.
    pub stand: u64,
    /// The same.
    pub live: u64,
    /// Connections that found the backlog full.
    pub refused: u64,
    /// From accepting to standing, at most.
    pub longest: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Publish,
    Window { feed: usize },
    Connect { client: usize, tries: u32 },
    Ready(Job),
    Done(Job),
}

/// Work of a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Job {
    Append {
        feed: usize,
    },
    Deliver {
        group: usize,
    },
    Accept,
    /// The server's first flight of a handshake, and all that follows until the stream stands.
    Hello {
        client: usize,
    },
    Finish {
        client: usize,
    },
}

/// Readers that are woken together.
#[derive(Debug, Default)]
struct Group {
    members: u64,
    /// When the events that it was woken for were published, and those that are being sent.
    pending: Vec<u64>,
    sending: Vec<u64>,
    began: u64,
    queued: bool,
}

#[derive(Debug, Default)]
struct Feed {
    groups: Vec<usize>,
    unread: Vec<u64>,
    woken: Option<u64>,
    window: bool,
}

struct World<'a> {
    plan: &'a Plan,
    costs: &'a Costs,
    now: u64,
    order: u64,
    happenings: BinaryHeap<Reverse<(u64, u64, Happening)>>,
    ready: VecDeque<Job>,
    idle: usize,
    feeds: Vec<Feed>,
    groups: Vec<Group>,
    /// Of a group, where clients come back.
    room: u64,
    published: u64,
    /// The event after which nobody waits for another.
    last: Option<u64>,
    backlog: VecDeque<usize>,
    accepting: bool,
    accepted: Vec<u64>,
    to_come: usize,
    standing: usize,
    readers_free: u64,
    chance: Chance,
    outcome: Outcome,
}

/// Runs it.
pub fn run(plan: &Plan, costs: &Costs) -> Outcome {
    let mut world = World::new(plan, costs);
    world.begin();
    while let Some(Reverse((at, _, happening))) = world.happenings.pop() {
        world.now = at;
        world.happens(happening);
        world.work();
    }
    world.outcome.took = world.now.max(world.readers_free);
    world.outcome
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan, costs: &'a Costs) -> Self {
        let latency = Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("the bounds are valid");
        let outcome =
            Outcome { latency, deliveries: 0, busy: 0, took: 0, stand: 0, live: 0, refused: 0, longest: 0 };
        Self {
            plan,
            costs,
            now: 0,
            order: 0,
            happenings: BinaryHeap::new(),
            ready: VecDeque::new(),
            idle: plan.cores,
            feeds: (0..plan.feeds).map(|_| Feed::default()).collect(),
            groups: Vec::new(),
            room: (plan.clients / (plan.cores * GROUPS)).max(1) as u64,
            published: 0,
            last: plan.storm.is_none().then_some(plan.events),
            backlog: VecDeque::new(),
            accepting: false,
            accepted: vec![0; if plan.storm.is_some() { plan.clients } else { 0 }],
            to_come: 0,
            standing: 0,
            readers_free: 0,
            chance: Chance(plan.seed),
            outcome,
        }
    }

    fn begin(&mut self) {
        self.after(0, Happening::Publish);
        let Some(storm) = &self.plan.storm else {
            for client in 0..self.plan.clients {
                self.join(client);
            }
            return;
        };
        let first = storm.at_once.min(self.plan.clients);
        self.to_come = self.plan.clients - first;
        for client in 0..first {
            let (from, to) = storm.window;
            let at = from + (self.chance.share() * (to - from) as f64) as u64;
            self.after(at, Happening::Connect { client, tries: 0 });
        }
    }

    fn after(&mut self, wait: u64, happening: Happening) {
        self.order += 1;
        self.happenings.push(Reverse((self.now + wait, self.order, happening)));
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Publish => self.publish(),
            Happening::Window { feed } => {
                self.feeds[feed].window = false;
                self.wake(feed);
            }
            Happening::Connect { client, tries } => self.connect(client, tries),
            Happening::Ready(job) => self.soon(job),
            Happening::Done(job) => {
                self.idle += 1;
                self.done(job);
            }
        }
    }

    /// Work that comes alone: a worker keeps a few tasks to itself, and takes from the many that were woken together, which
    /// all workers share, when these are done.
    fn soon(&mut self, job: Job) {
        let few = (self.plan.cores as u64 * OWN / self.room).max(1) as usize;
        self.ready.insert(few.min(self.ready.len()), job);
    }

    /// Gives ready work to idle cores.
    fn work(&mut self) {
        while self.idle > 0
            && let Some(job) = self.ready.pop_front()
        {
            let cost = self.start(job);
            self.idle -= 1;
            self.outcome.busy += cost;
            self.after(cost, Happening::Done(job));
        }
    }

    /// What it costs from here on.
    fn start(&mut self, job: Job) -> u64 {
        let Costs { append_us, wake_us, event_us, accept_us, .. } = *self.costs;
        nanos(match job {
            Job::Append { .. } => append_us,
            Job::Accept => accept_us,
            Job::Hello { .. } => self.costs.hello_us(),
            Job::Finish { .. } => self.costs.finish_us(),
            Job::Deliver { group } => {
                let group = &mut self.groups[group];
                group.sending = std::mem::take(&mut group.pending);
                group.began = self.now;
                group.members as f64 * (wake_us + event_us * group.sending.len() as f64)
            }
        })
    }

    fn done(&mut self, job: Job) {
        match job {
            Job::Append { feed } => self.appended(feed),
            Job::Deliver { group } => self.delivered(group),
            Job::Accept => {
                self.accepting = false;
                if let Some(client) = self.backlog.pop_front() {
                    self.accepted[client] = self.now;
                    self.soon(Job::Hello { client });
                }
                self.accept();
            }
            Job::Hello { client } => {
                let trip = self.plan.storm.as_ref().map_or(0, |storm| storm.round_trip);
                let answered = self.readers(self.now, self.plan.dialer);
                self.after(answered - self.now + trip, Happening::Ready(Job::Finish { client }));
            }
            Job::Finish { client } => self.stands(client),
        }
    }

    fn publish(&mut self) {
        let feed = self.published as usize % self.plan.feeds;
        self.feeds[feed].unread.push(self.now);
        self.published += 1;
        self.soon(Job::Append { feed });
        if self.last.is_none_or(|last| self.published < last) {
            let gap = 1e9 / self.plan.rate;
            let gap = if self.plan.random { -gap * (1.0 - self.chance.share()).ln() } else { gap };
            self.after(gap as u64, Happening::Publish);
        }
    }

    /// Wakes readers at once if none was woken within linger, and at the window's end otherwise.
    fn appended(&mut self, feed: usize) {
        let Feed { woken, window, .. } = self.feeds[feed];
        match woken.map(|woken| woken + self.plan.linger).filter(|&end| end > self.now) {
            Some(_) if window => {}
            Some(end) => {
                self.feeds[feed].window = true;
                self.after(end - self.now, Happening::Window { feed });
            }
            None => self.wake(feed),
        }
    }

    fn wake(&mut self, feed: usize) {
        let feed = &mut self.feeds[feed];
        feed.woken = Some(self.now);
        for &at in &feed.groups {
            let group = &mut self.groups[at];
            group.pending.extend_from_slice(&feed.unread);
            if !std::mem::replace(&mut group.queued, true) {
                self.ready.push_back(Job::Deliver { group: at });
            }
        }
        feed.unread.clear();
    }

    fn delivered(&mut self, at: usize) {
        let group = &mut self.groups[at];
        let (began, members, sent) = (group.began, group.members, std::mem::take(&mut group.sending));
        group.queued = !group.pending.is_empty();
        if group.queued {
            self.ready.push_back(Job::Deliver { group: at });
        }
        // Where nobody's reading is to be counted, some of many tell as much as all.
        let step = if self.plan.reader == 0 { members.div_ceil(SAMPLES) } else { 1 };
        let mut served = 0;
        while served < members {
            let part = step.min(members - served);
            served += part;
            let read = self.readers(began + (self.now - began) * served / members, self.plan.reader);
            for published in &sent {
                self.outcome.latency.saturating_record_n((read - published) / 1_000, part);
            }
            self.outcome.live = self.outcome.live.max(read);
        }
        self.outcome.deliveries += members * sent.len() as u64;
    }

    /// When the clients' own core has done this, too.
    fn readers(&mut self, from: u64, work: u64) -> u64 {
        if work == 0 {
            return from;
        }
        self.readers_free = self.readers_free.max(from) + work;
        self.readers_free
    }

    fn connect(&mut self, client: usize, tries: u32) {
        let Some(storm) = &self.plan.storm else { return };
        if self.backlog.len() >= storm.backlog {
            self.outcome.refused += 1;
            let wait = RETRY << tries.min(6);
            return self.after(wait, Happening::Connect { client, tries: tries + 1 });
        }
        self.backlog.push_back(client);
        self.accept();
    }

    /// One is accepted at a time, and others have their turn between.
    fn accept(&mut self) {
        if !self.accepting && !self.backlog.is_empty() {
            self.accepting = true;
            self.soon(Job::Accept);
        }
    }

    fn stands(&mut self, client: usize) {
        self.outcome.longest = self.outcome.longest.max(self.now - self.accepted[client]);
        self.outcome.stand = self.now;
        self.standing += 1;
        self.join(client);
        if self.to_come > 0 {
            self.to_come -= 1;
            let client = self.plan.clients - 1 - self.to_come;
            self.after(0, Happening::Connect { client, tries: 0 });
        }
        if self.standing == self.plan.clients {
            self.last = Some(self.published + 1);
        }
    }

    fn join(&mut self, client: usize) {
        let feed = client % self.plan.feeds;
        let open = self.feeds[feed].groups.last().copied();
        let at = match open.filter(|&at| self.groups[at].members < self.room) {
            Some(at) => at,
            None => {
                self.groups.push(Group::default());
                self.feeds[feed].groups.push(self.groups.len() - 1);
                self.groups.len() - 1
            }
        };
        self.groups[at].members += 1;
    }
}

fn nanos(micros: f64) -> u64 {
    (micros * 1e3) as u64
}

/// Numbers by chance: splitmix64.
struct Chance(u64);

impl Chance {
    /// From 0 on, below 1.
    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Groups of a core, at most: what is woken in one piece is a small part of what a core does for an event.
const GROUPS: usize = 128;

/// Tasks that a worker of the runtime keeps to itself.
const OWN: u64 = 256;

/// Of a group, how many tell their latency.
const SAMPLES: u64 = 4;

/// Until the kernel asks again for a connection that was not answered, the first time.
const RETRY: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: Costs = Costs {
        wake_us: 0.0,
        event_us: 0.0,
        append_us: 0.0,
        accept_us: 0.0,
        connect_us: 0.0,
        resumed_us: 0.0,
        pss_kib: 0.0,
        kernel_kib: 0.0,
        bytes: 0.0,
    };

    fn plan(cores: usize, clients: usize) -> Plan {
        Plan {
            cores,
            clients,
            feeds: 1,
            rate: 1.0,
            events: 1,
            linger: 0,
            random: false,
            reader: 0,
            dialer: 0,
            storm: None,
            seed: 1,
        }
    }

    fn storm(cores: usize, clients: usize, backlog: usize) -> Plan {
        let storm = Storm { window: (0, 0), at_once: usize::MAX, backlog, round_trip: 0 };
        Plan { rate: 1_000.0, storm: Some(storm), ..plan(cores, clients) }
    }

    #[test]
    fn one_event_takes_its_time_over_all_cores() {
        let costs = Costs { wake_us: 9.0, event_us: 1.0, append_us: 5.0, ..FREE };
        let outcome = run(&plan(4, 40_960), &costs);
        // 40,960 × 10 µs on 4 cores, after 5 µs for the event itself.
        assert_eq!((outcome.took, outcome.deliveries), (102_405_000, 40_960));
        assert_eq!(outcome.busy, 409_605_000);
        let median = outcome.latency.value_at_quantile(0.5) as f64;
        assert!((median / 51_200.0 - 1.0).abs() < 0.01, "{median}");
    }

    #[test]
    fn random_events_wait_as_long_as_queueing_theory_says() {
        // Each to a feed of its own, so that none are joined: M/D/1, a mean wait of ρ / (2 (1 - ρ)) of the service.
        let costs = Costs { wake_us: 100.0, ..FREE };
        for load in [0.3, 0.7, 0.9] {
            let (feeds, rate) = (20_000, load * 10_000.0);
            let plan = Plan { feeds, rate, events: 400_000, random: true, ..plan(1, feeds) };
            let mean = run(&plan, &costs).latency.mean();
            let expected = 100.0 * (1.0 + load / (2.0 * (1.0 - load)));
            assert!((mean / expected - 1.0).abs() < 0.05, "{load}: {mean} {expected}");
        }
    }

    #[test]
    fn what_comes_while_readers_wait_is_sent_together() {
        let costs = Costs { wake_us: 90.0, event_us: 10.0, ..FREE };
        // 10 clients at 100 µs are a core's millisecond for a lone event; 4,000 a second need 4 ms each second a client.
        let plan = Plan { rate: 4_000.0, events: 8_000, ..plan(1, 10) };
        let outcome = run(&plan, &costs);
        assert_eq!(outcome.deliveries, 80_000);
        // A round of 10 clients takes 900 + 100 k µs, in which 4 events a millisecond come: k = 6.
        let each = outcome.busy as f64 / outcome.deliveries as f64 / 1e3;
        assert!((each - 25.0).abs() < 1.5, "{each}");
    }

    #[test]
    fn events_of_a_window_are_one_wake() {
        let costs = Costs { wake_us: 1.0, ..FREE };
        let plan = Plan { rate: 1_000.0, events: 10_000, linger: 20_000_000, ..plan(1, 100) };
        let outcome = run(&plan, &costs);
        let each = outcome.busy as f64 / outcome.deliveries as f64;
        assert!((each * 20.0 - 1_000.0).abs() < 60.0, "{each}");
    }

    #[test]
    fn all_are_back_when_all_handshakes_are_done() {
        let costs = Costs { accept_us: 20.0, connect_us: 480.0, ..FREE };
        let outcome = run(&storm(2, 1_000, 4_096), &costs);
        // 480 µs each, accepting included, on two cores; the next event is a millisecond away.
        assert!((outcome.stand as f64 / 240e6 - 1.0).abs() < 0.01, "{}", outcome.stand);
        assert!(outcome.live >= outcome.stand && outcome.live - outcome.stand <= 2_000_000);
    }

    #[test]
    fn who_finds_the_backlog_full_comes_again() {
        let costs = Costs { connect_us: 1_000.0, ..FREE };
        let outcome = run(&storm(1, 30, 10), &costs);
        // 11, with the one that is accepted at once, then after 1 s, then after 3 s.
        assert_eq!(outcome.refused, 20 + 10);
        assert!((3_000_000_000..3_020_000_000).contains(&outcome.stand), "{}", outcome.stand);
    }

    #[test]
    fn a_seed_gives_the_same_run() {
        let costs = Costs { connect_us: 500.0, wake_us: 10.0, ..FREE };
        let window = |seed| {
            let storm =
                Storm { window: (0, 1_000_000_000), at_once: usize::MAX, backlog: 64, round_trip: 1_000 };
            run(&Plan { rate: 100.0, storm: Some(storm), seed, ..plan(2, 3_000) }, &costs)
        };
        assert_eq!(window(7).stand, window(7).stand);
        assert_ne!(window(7).stand, window(8).stand);
    }
}
