//! Client certificates: whose are believed, and whether one has to be shown.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::watch;

use super::tickets::Context;

/// Whom to believe.
#[derive(Clone)]
pub(super) struct Trust {
    /// What a handshake asks.
    pub verifier: Arc<dyn ClientCertVerifier>,
    /// Whether a client has to show a certificate.
    pub required: bool,
    /// Tells this from every other that believes or asks something else.
    pub context: Context,
    /// Gone when this is: with the terms that it is part of, and what took its place.
    holds: Arc<watch::Sender<()>>,
}

/// That whoever has issued a client's certificate is believed.
pub struct Belief(watch::Receiver<()>);

impl Belief {
    /// Ends when others are believed.
    pub async fn ended(mut self) {
        while self.0.changed().await.is_ok() {}
    }
}

impl Trust {
    /// Believes those whom these authorities have certified.
    pub fn new(roots: Arc<RootCertStore>, required: bool) -> anyhow::Result<Self> {
        let context = context(&roots, required);
        let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::new(default_provider()));
        let verifier = match required {
            true => builder.build()?,
            false => builder.allow_unauthenticated().build()?,
        };
        Ok(Self { verifier, required, context, holds: Arc::default() })
    }

    /// That it holds.
    pub fn belief(&self) -> Belief {
        Belief(self.holds.subscribe())
    }
}

/// The same for the same authorities in any order.
fn context(roots: &RootCertStore, required: bool) -> Context {
    let root = |root: &rustls::pki_types::TrustAnchor<'_>| {
        let constraints = root.name_constraints.as_deref().unwrap_or_default();
        let parts = [&*root.subject, &*root.subject_public_key_info, constraints];
        parts.map(|part| digest(&SHA256, part).as_ref().to_vec()).concat()
    };
    let mut roots: Vec<Vec<u8>> = roots.roots.iter().map(root).collect();
    roots.sort();
    let mut context = Context::default();
    context.copy_from_slice(digest(&SHA256, &[roots.concat(), vec![u8::from(required)]].concat()).as_ref());
    context
}
