//! How many connections each client has, and how fast it opens them. The table is bounded by the connections that are open
//! and a fixed number of addresses that were here a moment ago: a flood from many addresses cannot make it grow.

use std::collections::HashMap;
use std::net::IpAddr;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::Rate;

/// What counts as one client: an IPv4 address, or a /64 of IPv6, which one subscriber of a provider has at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Prefix {
    /// An address.
    V4(u32),
    /// The first 64 bits of an address.
    V6(u64),
}

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

/// Why a client may not have another connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// It has `limits.connections_per_client`.
    Count,
    /// It opens them faster than `limits.connection_rate_per_client`.
    Rate,
}

impl Excess {
    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Count => "client_connections",
            Self::Rate => "client_rate",
        }
    }
}

/// Every client with a connection, and some of those that had one.
pub struct Clients {
    limits: Mutex<Limits>,
    epoch: Instant,
    table: Mutex<Table>,
}

/// What each may have.
#[derive(Clone, Copy)]
struct Limits {
    most: Option<usize>,
    rate: Option<Rate>,
}

struct Table {
    of: HashMap<Prefix, Entry>,
    /// Entries at which to look for those that say nothing any more.
    sweep_at: usize,
    /// When all who were told to come back would have been, at the pace for all of them.
    told: u64,
}

struct Entry {
    open: usize,
    /// Thousandths of a token.
    tokens: u64,
    /// Milliseconds since the table's epoch at which these were counted.
    at: u64,
    /// When it would have been told to come back as often as it was, at the pace for one client.
    told: u64,
}

impl Clients {
    /// Nobody yet; each may have `most` connections, and open them at `rate`.
    pub fn new(most: Option<usize>, rate: Option<Rate>) -> Self {
        let table = Table { of: HashMap::new(), sweep_at: SWEEP, told: 0 };
        let limits = Mutex::new(Limits { most, rate });
        Self { limits, epoch: Instant::now(), table: Mutex::new(table) }
    }

    /// From now on each may have `most` connections, and open them at `rate`; those that nobody counted stay uncounted.
    pub fn limit(&self, most: Option<usize>, rate: Option<Rate>) {
        *self.limits.lock() = Limits { most, rate };
    }

    fn limits(&self) -> Limits {
        *self.limits.lock()
    }

    /// Whether there is anything to count.
    pub fn counts(&self) -> bool {
        let Limits { most, rate } = self.limits();
        most.is_some() || rate.is_some()
    }

    /// How many clients it knows.
    pub fn known(&self) -> usize {
        self.table.lock().of.len()
    }

    /// Counts a connection of `client`, which [`Clients::leave`] has to follow.
    ///
    /// # Errors
    /// Why it may not have one.
    pub fn enter(&self, client: Prefix) -> Result<(), Excess> {
        let Limits { most, rate } = self.limits();
        let mut table = self.table.lock();
        let now = self.now();
        if table.of.len() >= table.sweep_at {
            table.of.retain(|_, entry| entry.open > 0 || !self.is_full(entry, now));
            table.sweep_at = (table.of.len() * 2).max(SWEEP);
        }
        let full = Entry { open: 0, tokens: rate.map_or(0, room), at: now, told: 0 };
        let entry = table.of.entry(client).or_insert(full);
        if most.is_some_and(|most| entry.open >= most) {
            return Err(Excess::Count);
        }
        if let Some(rate) = rate {
            entry.refill(rate, now);
            entry.tokens = entry.tokens.checked_sub(TOKEN).ok_or(Excess::Rate)?;
        }
        entry.open += 1;
        Ok(())
    }

    /// Whether `client`, which was refused, may cost a handshake to be told so. Some may at once and then some a second,
    /// of one client and in all: who attacks gains no more than that.
    pub fn may_be_told(&self, client: Prefix) -> bool {
        let now = self.now();
        let mut table = self.table.lock();
        let all = TOLD_IN_ALL.after(table.told, now);
        let Some(entry) = table.of.get_mut(&client) else { return false };
        let (Some(own), Some(all)) = (TOLD.after(entry.told, now), all) else { return false };
        entry.told = own;
        table.told = all;
        true
    }

    /// A connection of `client` has ended.
    pub fn leave(&self, client: Prefix) {
        let mut table = self.table.lock();
        let now = self.now();
        let crowded = table.of.len() > KEPT;
        let Some(entry) = table.of.get_mut(&client) else { return };
        entry.open = entry.open.saturating_sub(1);
        if entry.open == 0 && (crowded || self.is_full(entry, now)) {
            table.of.remove(&client);
        }
    }

    /// Whether an entry without connections says no more than none would.
    fn is_full(&self, entry: &Entry, now: u64) -> bool {
        entry.told <= now
            && self.limits().rate.is_none_or(|rate| entry.tokens + earned(rate, entry.at, now) >= room(rate))
    }

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_millis() as u64
    }
}

impl Entry {
    fn refill(&mut self, rate: Rate, now: u64) {
        self.tokens = (self.tokens + earned(rate, self.at, now)).min(room(rate));
        self.at = now;
    }
}

/// How often something may happen, in milliseconds.
struct Pace {
    every: u64,
    /// How far it may be ahead of that.
    ahead: u64,
}

impl Pace {
    /// When it would have happened as often as it will have, if it may happen now; `due` is when it would have so far.
    fn after(&self, due: u64, now: u64) -> Option<u64> {
        let due = due.max(now);
        (due - now < self.ahead).then_some(due + self.every)
    }
}

/// A token a second is a thousandth of one a millisecond.
fn earned(rate: Rate, since: u64, now: u64) -> u64 {
    now.saturating_sub(since).saturating_mul(rate.rate as u64)
}

fn room(rate: Rate) -> u64 {
    rate.burst as u64 * TOKEN
}

const TOKEN: u64 = 1_000;
/// Twenty at once and five a second: a page with a few streams, some times over.
const TOLD: Pace = Pace { every: 200, ahead: 4_000 };
/// Two hundred at once and a hundred a second: with a handshake each some hundredths of a core.
const TOLD_IN_ALL: Pace = Pace { every: 10, ahead: 2_000 };
/// Entries below which nobody looks for old ones.
const SWEEP: usize = 1_024;
/// Clients without a connection that are remembered; of more, the last to leave is forgotten.
const KEPT: usize = 65_536;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn client(address: &str) -> Prefix {
        Prefix::from(address.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn one_client_is_an_address_or_half_of_one() {
        assert_eq!(client("192.0.2.1"), client("::ffff:192.0.2.1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:1:2:3"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
    }

    #[tokio::test(start_paused = true)]
    async fn connections_are_counted_for_each_client() {
        let clients = Clients::new(Some(2), None);
        let (a, b) = (client("192.0.2.1"), client("192.0.2.2"));
        assert_eq!([clients.enter(a), clients.enter(a), clients.enter(b)], [Ok(()); 3]);
        assert_eq!(clients.enter(a), Err(Excess::Count));
        clients.leave(a);
        assert_eq!(clients.enter(a), Ok(()));
        for who in [a, a, b] {
            clients.leave(who);
        }
        assert_eq!(clients.known(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_come_back_at_their_rate() {
        let clients = Clients::new(None, Some(Rate { rate: 2, burst: 3 }));
        let a = client("192.0.2.1");
        let try_one = || clients.enter(a).inspect(|()| clients.leave(a));
        assert_eq!([try_one(), try_one(), try_one(), try_one()], [Ok(()), Ok(()), Ok(()), Err(Excess::Rate)]);
        tokio::time::advance(Duration::from_millis(499)).await;
        assert_eq!(try_one(), Err(Excess::Rate));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!([try_one(), try_one()], [Ok(()), Err(Excess::Rate)]);
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert_eq!([try_one(), try_one(), try_one(), try_one()], [Ok(()), Ok(()), Ok(()), Err(Excess::Rate)]);
        assert_eq!(clients.known(), 1, "it is remembered while it lacks tokens");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_refused_is_told_so_now_and_then() {
        let clients = Clients::new(Some(1), None);
        let (a, b) = (client("192.0.2.1"), client("192.0.2.2"));
        let told = |who, times: usize| (0..times).filter(|_| clients.may_be_told(who)).count();
        assert_eq!(told(a, 1), 0, "it was not refused");
        clients.enter(a).unwrap();
        clients.enter(b).unwrap();
        assert_eq!((told(a, 1_000), told(b, 1_000)), (20, 20));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(told(a, 1_000), 5);
        clients.leave(a);
        assert_eq!(clients.known(), 2, "leaving for a moment changes nothing");
        clients.enter(a).unwrap();
        assert_eq!(told(a, 1_000), 0);
        tokio::time::advance(Duration::from_secs(10)).await;
        let others: Vec<_> = (1_000..1_100).map(Prefix::V4).collect();
        others.iter().for_each(|&other| clients.enter(other).unwrap());
        assert_eq!(others.iter().map(|&other| told(other, 20)).sum::<usize>(), 200, "in all");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(told(client("0.0.4.70"), 20) + told(client("0.0.4.71"), 20), 40);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_addresses_does_not_make_the_table_grow() {
        let clients = Clients::new(Some(1), Some(Rate { rate: 1, burst: 10 }));
        for n in 0..1_000_000 {
            assert_eq!(clients.enter(Prefix::V4(n)), Ok(()));
            clients.leave(Prefix::V4(n));
            assert!(clients.known() <= KEPT + 1, "{n}");
        }
        // Once they have all their tokens they are let go.
        tokio::time::advance(Duration::from_secs(10)).await;
        for n in 0..2 * KEPT as u32 {
            clients.enter(Prefix::V6(n.into())).unwrap();
        }
        assert!(clients.known() <= 2 * KEPT + KEPT, "{}", clients.known());
        assert!(!clients.table.lock().of.contains_key(&Prefix::V4(1)));
    }
}
