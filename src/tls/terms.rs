//! What one handshake goes by, and what is asked of its outcome. Made anew when something in it changes; connections
//! that have begun keep the one they began with.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, ProducesTickets};
use rustls::{CommonState, HandshakeKind, ServerConfig};

use super::certificates::Certificates;
use super::clients::{Belief, Trust};
use super::tickets::{Context, SharedTickets};
use super::{Clients, Inner, Tickets};

/// ALPN names, the preferred one first (RFC 7301).
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What a handshake goes by.
pub struct Terms {
    /// How TLS is spoken.
    pub config: Arc<ServerConfig>,
    /// Whether proxies pass TLS through, so that the certificate in a connection that they made is their client's.
    pub passthrough: bool,
    trust: Option<Trust>,
}

/// Terms of what there is now.
///
/// # Errors
/// Where the crypto library has no keys to give, which would be a defect of it.
pub(super) fn make(
    certificates: &Arc<Certificates>,
    clients: Option<&Clients>,
    tickets: Option<&Tickets>,
) -> anyhow::Result<Terms> {
    let trust = clients.map(|clients| clients.trust.lock().clone());
    let verifier: Arc<dyn ClientCertVerifier> = match &trust {
        Some(trust) => Arc::clone(&trust.verifier),
        None => Arc::new(NoClientAuth),
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::clone(certificates) as _);
    config.alpn_protocols = ALPN.map(Vec::from).to_vec();
    config.ticketer = ticketer(tickets, trust.as_ref())?;
    // A client that comes back needs one ticket, not a choice of them.
    config.send_tls13_tickets = 1;
    let passthrough = clients.is_some_and(|clients| clients.passthrough);
    Ok(Terms { config: Arc::new(config), passthrough, trust })
}

/// New terms never take tickets of old ones, unless replicas share the keys; and then those alone that asked the same
/// of clients.
fn ticketer(tickets: Option<&Tickets>, trust: Option<&Trust>) -> anyhow::Result<Arc<dyn ProducesTickets>> {
    let Some(tickets) = tickets else { return Ok(aws_lc_rs::Ticketer::new()?) };
    let context = trust.map_or(Context::default(), |trust| trust.context);
    Ok(Arc::new(SharedTickets::new(&tickets.keys.lock(), context)))
}

impl Inner {
    /// Makes new terms, for handshakes from now on.
    pub(super) fn renew_terms(&self) {
        match make(&self.certificates, self.clients.as_ref(), self.tickets.as_ref()) {
            Ok(terms) => *self.terms.write() = Arc::new(terms),
            Err(error) => tracing::error!(%error, "TLS goes on as before"),
        }
    }
}

impl Terms {
    /// That those whom this handshake believes are believed, if clients are asked for certificates.
    pub fn belief(&self) -> Option<Belief> {
        self.trust.as_ref().map(Trust::belief)
    }

    /// The certificate that the client proved to have, if clients are asked for any. That of a resumed session is
    /// looked at again, as it may have expired since.
    ///
    /// # Errors
    /// Where a client that has to show one has none that holds.
    pub fn admit<'s>(
        &self,
        session: &'s CommonState,
    ) -> Result<Option<&'s CertificateDer<'static>>, rustls::Error> {
        let Some(trust) = &self.trust else { return Ok(None) };
        let Some((leaf, chain)) = session.peer_certificates().and_then(<[_]>::split_first) else {
            return match trust.required {
                true => Err(rustls::Error::NoCertificatesPresented),
                false => Ok(None),
            };
        };
        if session.handshake_kind() == Some(HandshakeKind::Resumed) {
            trust.verifier.verify_client_cert(leaf, chain, UnixTime::now())?;
        }
        Ok(Some(leaf))
    }
}
