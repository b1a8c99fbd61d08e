//! TLS termination: what handshakes show, whom they believe, and what sessions are resumed by, all of which may be
//! replaced while connections are open. Knows no HTTP and no sockets but to look at a first message; `http` does the
//! handshakes.
//!
//! Reading order: a [`Terminator`] has slots of `certificates`, chosen by `names`; [`Terms`] are what one handshake goes by:
//! with `clients`, and `tickets` that replicas share. `reload` fills slots and makes new terms when files change, `acme`
//! when a certificate is due; `standing` is how that goes.

mod acme;
mod certificates;
mod clients;
mod names;
mod reload;
mod self_signed;
mod standing;
mod terms;
mod tickets;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use acme::Challenges;
use certificates::{Certificates, Slot, Source};
pub use clients::Belief;
use standing::Standing;
pub use terms::Terms;

use crate::config::{CertificateFiles, TicketKeys, Tls, WatchedFile};
use crate::metrics::Metrics;

/// Plain or TLS; `None` inside is plain.
#[derive(Clone)]
pub struct Terminator(Option<Arc<Inner>>);

struct Inner {
    certificates: Arc<Certificates>,
    /// The slots that files fill, by place.
    files: Vec<(usize, CertificateFiles)>,
    clients: Option<Clients>,
    tickets: Option<Tickets>,
    acme: Option<acme::Domains>,
    challenges: Arc<Challenges>,
    /// For handshakes that begin now.
    terms: RwLock<Arc<Terms>>,
}

/// Whom to believe of clients, from a file.
struct Clients {
    file: WatchedFile,
    standing: Standing,
    trust: Mutex<clients::Trust>,
    passthrough: bool,
}

/// The keys of tickets, from a file.
struct Tickets {
    file: WatchedFile,
    standing: Standing,
    keys: Mutex<TicketKeys>,
}

/// How one thing stands, for operators.
pub struct Report {
    /// A file or a domain.
    pub name: Arc<str>,
    /// `file`, `acme`, `self_signed`; or what else it is: `client_ca`, `ticket_keys`.
    pub source: &'static str,
    /// Of a certificate, the names that it is for and until when it holds; `None` while there is none.
    pub certificate: Option<(Vec<String>, SystemTime)>,
    /// Why what is new cannot be used, and since when.
    pub last_error: Option<(String, SystemTime)>,
}

impl Terminator {
    /// The terminator that `server.tls` asks for. A self-signed certificate is made for `localhost` and the
    /// addresses that are listened on; those of ACME are taken from the cache, if they are in it. Where it takes the place of
    /// one `before` and believes the same of clients, they are believed without a break.
    ///
    /// # Errors
    /// Where a certificate cannot be made, which would be a defect of the crypto library, or a client's could not be
    /// verified.
    pub fn new(
        tls: &Tls,
        listen: &[SocketAddr],
        metrics: &Metrics,
        before: Option<&Self>,
    ) -> anyhow::Result<Self> {
        let standing = |name: &str| Standing::new(metrics.tls(name));
        let given = match tls {
            Tls::None => return Ok(Self(None)),
            Tls::SelfSigned => None,
            Tls::Certificates(given) => Some(given),
        };
        let mut slots = Vec::new();
        let mut files = Vec::new();
        for certificate in given.iter().flat_map(|given| &given.certificates) {
            let name = Arc::clone(&certificate.files.cert.name);
            files.push((slots.len(), certificate.files.clone()));
            let identity = Some(certificate.identity.clone());
            slots.push(Slot::new(Arc::clone(&name), Source::File, standing(&name), identity));
        }
        let acme =
            given.and_then(|given| given.acme.as_ref()).map(|acme| acme::Domains::new(acme, slots.len()));
        for (domain, identity) in acme.iter().flat_map(acme::Domains::cached) {
            slots.push(Slot::new(Arc::clone(domain), Source::Acme, standing(domain), identity));
        }
        if given.is_none() {
            let identity = Some(self_signed::identity(listen)?);
            slots.push(Slot::new(
                "self_signed".into(),
                Source::SelfSigned,
                standing("self_signed"),
                identity,
            ));
        }
        let certificates = Certificates::new(slots);
        let clients =
            given.and_then(|given| given.client.as_ref()).map(|client| Clients::new(client, &standing));
        let clients = clients.transpose()?;
        let believed = before.and_then(|before| before.0.as_ref()?.clients.as_ref());
        clients.iter().zip(believed).for_each(|(clients, before)| clients.go_on_as(before));
        let tickets =
            given.and_then(|given| given.tickets.as_ref()).map(|tickets| Tickets::new(tickets, &standing));
        let terms = terms::make(&certificates, clients.as_ref(), tickets.as_ref())?;
        let (challenges, terms) = (Arc::default(), RwLock::new(Arc::new(terms)));
        Ok(Self(Some(Arc::new(Inner { certificates, files, clients, tickets, acme, challenges, terms }))))
    }

    /// What a handshake that begins now goes by; `None` where connections are plain.
    pub fn terms(&self) -> Option<Arc<Terms>> {
        self.0.as_ref().map(|inner| Arc::clone(&inner.terms.read()))
    }

    /// What a handshake goes by instead, if the client on `socket` is an authority's that proves a domain
    /// (RFC 8737). The connection ends with such a handshake.
    pub async fn challenge(&self, socket: &TcpStream) -> Option<Arc<ServerConfig>> {
        self.0.as_ref()?.challenges.answer(socket).await
    }

    /// Starts what keeps certificates and keys fresh.
    pub fn start(&self, tasks: &mut JoinSet<()>) {
        let Some(inner) = &self.0 else { return };
        if inner.watches_files() {
            tasks.spawn(reload::run(Arc::clone(inner)));
        }
        if let Some(domains) = &inner.acme {
            let (certificates, challenges) = (Arc::clone(&inner.certificates), Arc::clone(&inner.challenges));
            tasks.spawn(acme::run(domains.clone(), certificates, challenges));
        }
    }

    /// How everything that may be replaced stands: certificates first, in the order in which they are preferred.
    pub fn report(&self) -> Vec<Report> {
        let Some(inner) = &self.0 else { return Vec::new() };
        let certificates = inner.certificates.slots().iter().map(|slot| Report {
            name: Arc::clone(&slot.name),
            source: slot.source.as_str(),
            certificate: slot.identity().map(|identity| (identity.names, identity.not_after)),
            last_error: slot.standing.last_error(),
        });
        let other = |source, file: &WatchedFile, standing: &Standing| Report {
            name: Arc::clone(&file.name),
            source,
            certificate: None,
            last_error: standing.last_error(),
        };
        let clients =
            inner.clients.iter().map(|clients| other("client_ca", &clients.file, &clients.standing));
        let tickets =
            inner.tickets.iter().map(|tickets| other("ticket_keys", &tickets.file, &tickets.standing));
        certificates.chain(clients).chain(tickets).collect()
    }
}

impl Clients {
    fn new(given: &crate::config::ClientAuth, standing: &dyn Fn(&str) -> Standing) -> anyhow::Result<Self> {
        let trust = clients::Trust::new(Arc::clone(&given.roots), given.required)?;
        let (file, standing, passthrough) =
            (given.file.clone(), standing(&given.file.name), given.passthrough);
        Ok(Self { file, standing, trust: Mutex::new(trust), passthrough })
    }
}

impl Clients {
    /// Whoever is believed by both is believed without a break.
    fn go_on_as(&self, before: &Self) {
        let (mut trust, before) = (self.trust.lock(), before.trust.lock());
        if trust.context == before.context {
            *trust = before.clone();
        }
    }
}

impl Tickets {
    fn new(given: &crate::config::Tickets, standing: &dyn Fn(&str) -> Standing) -> Self {
        let keys = Mutex::new(given.keys.clone());
        Self { file: given.file.clone(), standing: standing(&given.file.name), keys }
    }
}

impl Inner {
    fn watches_files(&self) -> bool {
        !self.files.is_empty() || self.clients.is_some() || self.tickets.is_some()
    }

    /// Every file that is watched.
    fn watched(&self) -> impl Iterator<Item = &WatchedFile> {
        let pairs = self.files.iter().flat_map(|(_, files)| [&files.cert, &files.key]);
        let clients = self.clients.iter().map(|clients| &clients.file);
        pairs.chain(clients).chain(self.tickets.iter().map(|tickets| &tickets.file))
    }
}
