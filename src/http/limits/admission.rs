//! Who may have a connection. All together may have what the descriptor limit leaves room for. A small surplus beyond that is
//! let in to be told when to come back; beyond this nobody is accepted until somebody leaves, and the system makes them
//! wait. What one client may have is looked at before the TLS handshake, which is the dear part; some of those who have
//! their share get one all the same, to be told to come back.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::clients::{Clients, Excess, Prefix};
use super::said::Said;
use crate::config::Limits;
use crate::http::shed::Why;
use crate::metrics::Metrics;

/// Counts connections.
pub struct Admission {
    descriptors: u64,
    most: AtomicUsize,
    surplus: AtomicUsize,
    to_applications: AtomicUsize,
    open: AtomicUsize,
    /// For those that are open, and those that the other listeners wait for.
    seats: Semaphore,
    /// How many seats there are to be,
    wanted: Mutex<usize>,
    /// and how many of those that are taken are not to be given to others.
    owed: AtomicUsize,
    clients: Clients,
    /// Connections of clients that are told that they have their share.
    telling: AtomicUsize,
    /// That it is full.
    said: Said,
    metrics: Arc<Metrics>,
}

/// The right of one connection to be open, which ends with it.
pub struct Seat {
    admission: Arc<Admission>,
    client: Option<Prefix>,
    taken: bool,
    telling: bool,
    surplus: Option<Why>,
}

/// What there is, and how much of it.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Connections that are open.
    pub open: usize,
    /// `limits.connections`.
    pub most: usize,
    /// How many more are let in to be told to come back.
    pub surplus: usize,
    /// Clients that are counted.
    pub clients: usize,
}

impl Admission {
    /// As `limits` say, for a process that may have so many descriptors, is to have so many connections to applications, and
    /// listens on so many addresses.
    pub fn new(
        limits: &Limits,
        descriptors: u64,
        to_applications: usize,
        listeners: usize,
        metrics: &Arc<Metrics>,
    ) -> Arc<Self> {
        let admission = Arc::new(Self {
            descriptors,
            most: AtomicUsize::new(0),
            surplus: AtomicUsize::new(0),
            to_applications: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            seats: Semaphore::new(0),
            wanted: Mutex::new(0),
            owed: AtomicUsize::new(0),
            clients: Clients::new(limits.connections_per_client, limits.connection_rate_per_client),
            telling: AtomicUsize::new(0),
            said: Said::default(),
            metrics: Arc::clone(metrics),
        });
        admission.adapt(limits, to_applications, listeners);
        admission
    }

    /// From now on goes by these limits. Whoever has a connection keeps it.
    pub fn adapt(&self, limits: &Limits, to_applications: usize, listeners: usize) {
        let Room { most, surplus, to_applications } =
            room(limits.connections, to_applications, self.descriptors);
        self.metrics.connections_limit.set(i64::try_from(most).unwrap_or(i64::MAX));
        self.most.store(most, Ordering::Relaxed);
        self.surplus.store(surplus, Ordering::Relaxed);
        self.to_applications.store(to_applications, Ordering::Relaxed);
        self.clients.limit(limits.connections_per_client, limits.connection_rate_per_client);
        self.seat_for(most + surplus + listeners.saturating_sub(1));
    }

    /// There are to be so many seats. Where too many are taken already, those go that are given back first.
    fn seat_for(&self, seats: usize) {
        let mut wanted = self.wanted.lock();
        if seats < *wanted {
            let fewer = *wanted - seats;
            let forgotten = self.seats.forget_permits(fewer);
            self.owed.fetch_add(fewer - forgotten, Ordering::Relaxed);
        }
        self.give_back(seats.saturating_sub(*wanted));
        *wanted = seats;
    }

    fn give_back(&self, seats: usize) {
        let pay = |owed: usize| Some(owed.saturating_sub(seats));
        let owed = self.owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay).unwrap_or_default();
        self.seats.add_permits(seats.saturating_sub(owed));
    }

    /// A seat for the connection that is accepted next; waits while there is none.
    pub async fn seat(self: &Arc<Self>) -> Seat {
        if self.seats.available_permits() == 0 {
            self.metrics.accept_paused("connections");
            if self.said.again().is_some() {
                tracing::warn!(
                    connections = self.figures().most,
                    "no connection is accepted until one ends: there are as many as `limits.connections` allows"
                );
            }
        }
        let permit = self.seats.acquire().await.expect("the semaphore is never closed");
        permit.forget();
        self.given()
    }

    /// A seat, if there is one.
    pub fn seat_now(self: &Arc<Self>) -> Option<Seat> {
        self.seats.try_acquire().ok()?.forget();
        Some(self.given())
    }

    fn given(self: &Arc<Self>) -> Seat {
        Seat { admission: Arc::clone(self), client: None, taken: false, telling: false, surplus: None }
    }

    /// How many connections all applications together may have.
    pub fn to_applications(&self) -> usize {
        self.to_applications.load(Ordering::Relaxed)
    }

    /// How full it is.
    pub fn figures(&self) -> Figures {
        Figures {
            open: self.open.load(Ordering::Relaxed),
            most: self.most.load(Ordering::Relaxed),
            surplus: self.surplus.load(Ordering::Relaxed),
            clients: self.clients.known(),
        }
    }
}

impl Seat {
    /// A connection has been accepted.
    pub fn take(&mut self) {
        let others = self.admission.open.fetch_add(1, Ordering::Relaxed);
        self.taken = true;
        if others >= self.admission.most.load(Ordering::Relaxed) {
            self.surplus = Some(Why::Connections);
            self.admission.metrics.connection_shed("connections");
        }
    }

    /// The connection is this client's.
    ///
    /// # Errors
    /// Where the client may not have it.
    pub fn claim(&mut self, address: IpAddr) -> Result<(), Excess> {
        if self.admission.clients.counts() {
            let client = Prefix::from(address);
            self.admission.clients.enter(client)?;
            self.client = Some(client);
        }
        Ok(())
    }

    /// Whether a client that may not have the connection gets it for as long as it takes to be told so. There are as many
    /// of these at a time as there is surplus, and none when there is no room for anybody.
    pub fn tell(&mut self, address: IpAddr) -> bool {
        let Admission { telling, surplus, clients, .. } = &*self.admission;
        if self.surplus.is_some() {
            return false;
        }
        self.telling = true;
        let others = telling.fetch_add(1, Ordering::Relaxed);
        if others >= surplus.load(Ordering::Relaxed) || !clients.may_be_told(address.into()) {
            return false;
        }
        self.surplus = Some(Why::ClientConnections);
        true
    }

    /// Why there is no room, where the client is to be told to come back.
    pub fn surplus(&self) -> Option<Why> {
        self.surplus
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(client) = self.client {
            self.admission.clients.leave(client);
        }
        if self.telling {
            self.admission.telling.fetch_sub(1, Ordering::Relaxed);
        }
        if self.taken {
            self.admission.open.fetch_sub(1, Ordering::Relaxed);
        }
        self.admission.give_back(1);
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Room {
    most: usize,
    surplus: usize,
    to_applications: usize,
}

/// How many connections there may be. Some descriptors are kept back for the admin listener, upstreams and files, and of
/// the rest half at most for applications.
fn room(configured: Option<usize>, to_applications: usize, descriptors: u64) -> Room {
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX).min(UNLIMITED);
    let reserve = (descriptors / 8).clamp(MIN_RESERVE, MAX_RESERVE);
    let left = descriptors.saturating_sub(reserve).max(2);
    let wanted = to_applications;
    let to_applications = wanted.min(left / 2);
    if to_applications < wanted {
        tracing::warn!(
            connections = wanted,
            possible = to_applications,
            "`connections` of applications are more than the descriptor limit allows; raise LimitNOFILE (`ulimit -n`)"
        );
    }
    let left = (left - to_applications).max(2);
    let surplus = (left / 64).clamp(1, MAX_SURPLUS);
    let possible = left - surplus;
    if let Some(configured) = configured.filter(|&configured| configured > possible) {
        tracing::warn!(
            connections = configured,
            possible,
            "`limits.connections` is more than the descriptor limit allows; raise LimitNOFILE (`ulimit -n`)"
        );
    }
    let most = configured.map_or(possible, |configured| configured.min(possible));
    Room { most, surplus, to_applications }
}

/// More than a machine has clients, where there is no limit.
const UNLIMITED: usize = 100_000_000;
const MIN_RESERVE: usize = 32;
const MAX_RESERVE: usize = 512;
const MAX_SURPLUS: usize = 512;

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    #[test]
    fn room_is_what_descriptors_leave() {
        for (configured, descriptors, most, surplus) in [
            (None, 1_048_576, 1_047_552, 512),
            (None, 1_024, 882, 14),
            (None, 64, 31, 1),
            (None, 0, 1, 1),
            (Some(100), 1_024, 100, 14),
            (Some(5_000), 1_024, 882, 14),
            (Some(5_000), u64::MAX, 5_000, 512),
        ] {
            let expected = Room { most, surplus, to_applications: 0 };
            assert_eq!(room(configured, 0, descriptors), expected, "{configured:?} {descriptors}");
        }
        for (wanted, descriptors, most, surplus, to_applications) in [
            (1_000, 1_048_576, 1_046_552, 512, 1_000),
            (256, 1_024, 630, 10, 256),
            (1_000, 1_024, 441, 7, 448),
            (1_000, 0, 1, 1, 1),
        ] {
            let expected = Room { most, surplus, to_applications };
            assert_eq!(room(None, wanted, descriptors), expected, "{wanted} {descriptors}");
        }
    }

    #[tokio::test]
    async fn beyond_the_surplus_nobody_gets_a_seat_until_one_is_free() {
        let limits = Limits { connections: Some(2), ..Limits::default() };
        let admission = Admission::new(&limits, 64, 0, 0, &Metrics::new());
        let mut seats = Vec::new();
        for surplus in [false, false, true] {
            let mut seat = admission.seat().await;
            seat.take();
            assert_eq!(seat.surplus().is_some(), surplus);
            seats.push(seat);
        }
        let mut next = std::pin::pin!(admission.seat());
        let pending = std::future::poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx).is_pending()));
        assert!(pending.await);
        seats.remove(0);
        let mut seat = next.await;
        seat.take();
        assert!(seat.surplus().is_some(), "the surplus one is still there");
        drop((seat, seats));
        assert_eq!(admission.figures().open, 0);
    }

    #[tokio::test]
    async fn limits_that_change_are_those_of_who_comes_next() {
        let limits = |connections| Limits { connections: Some(connections), ..Limits::default() };
        let admission = Admission::new(&limits(12), 64, 0, 1, &Metrics::new());
        let surplus = admission.figures().surplus;
        let mut seats = Vec::new();
        for _ in 0..12 {
            let mut seat = admission.seat().await;
            seat.take();
            assert!(seat.surplus().is_none());
            seats.push(seat);
        }
        admission.adapt(&limits(10), 0, 1);
        assert_eq!(admission.figures().most, 10);
        let available = || admission.seats.available_permits();
        assert_eq!(available(), 0, "more are open than there may be");
        seats.truncate(10);
        assert_eq!((available(), admission.owed.load(Ordering::Relaxed)), (surplus, 0));
        admission.adapt(&limits(20), 0, 3);
        assert_eq!(available(), 10 + surplus + 2);
        // As many go as are taken and one more.
        admission.adapt(&limits(10), 0, 1);
        admission.adapt(&limits(11), 0, 1);
        seats.clear();
        assert_eq!((available(), admission.owed.load(Ordering::Relaxed)), (11 + surplus, 0));
    }

    #[tokio::test]
    async fn clients_that_have_their_share_are_told_so_a_few_at_a_time() {
        let limits = Limits { connections: Some(100), connections_per_client: Some(1), ..Limits::default() };
        let admission = Admission::new(&limits, 256, 0, 0, &Metrics::new());
        let surplus = admission.figures().surplus;
        let address = IpAddr::from([192, 0, 2, 1]);
        let seat = async || {
            let mut seat = admission.seat().await;
            seat.take();
            let claimed = seat.claim(address);
            (seat, claimed)
        };
        let first = seat().await;
        assert_eq!(first.1, Ok(()));
        let mut told = Vec::new();
        for n in 0..=surplus {
            let (mut seat, claimed) = seat().await;
            assert_eq!(claimed, Err(Excess::Count));
            assert_eq!((seat.tell(address), seat.surplus().is_some()), (n < surplus, n < surplus));
            told.push(seat);
        }
        told.clear();
        let (mut next, _) = seat().await;
        assert!(next.tell(address), "when others have been");
        drop((first, next));
        assert_eq!((admission.figures().open, admission.telling.load(Ordering::Relaxed)), (0, 0));
    }
}
