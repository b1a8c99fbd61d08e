//! Asks an authority for a certificate: account, order, proof, certificate (RFC 8555 section 7).

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount, NewOrder, Order, OrderStatus,
    RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::cache::Cache;
use super::challenge::{Answered, Challenges};
use super::client;
use crate::config::Acme;

/// The authority, and who we are to it.
pub(super) struct Authority<'a> {
    config: &'a Acme,
    cache: &'a Cache,
    challenges: &'a Arc<Challenges>,
    account: Option<Account>,
}

impl<'a> Authority<'a> {
    /// Nothing is asked yet.
    pub fn new(config: &'a Acme, cache: &'a Cache, challenges: &'a Arc<Challenges>) -> Self {
        Self { config, cache, challenges, account: None }
    }

    /// A new key and the chain for it, as PEM.
    ///
    /// # Errors
    /// What the authority says, or why it cannot be asked.
    pub async fn certify(&mut self, domain: &str) -> anyhow::Result<String> {
        let account = self.account().await?.clone();
        let identifiers = [Identifier::Dns(domain.to_owned())];
        let order = account.new_order(&NewOrder::new(&identifiers)).await;
        let mut order = order.inspect_err(|error| self.forget_unknown_account(error))?;
        let answered = self.prove(domain, &mut order).await?;
        if order.poll_ready(&PATIENCE).await? != OrderStatus::Ready {
            bail!("the authority did not get the proof for {domain}: {}", why(&mut order).await);
        }
        drop(answered);
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![domain.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        order.finalize_csr(params.serialize_request(&key)?.der()).await?;
        let chain = order.poll_certificate(&PATIENCE).await?;
        Ok(key.serialize_pem() + &chain)
    }

    /// Lets the authority look for the proofs that it wants, which are there until what is returned is dropped.
    async fn prove(&self, domain: &str, order: &mut Order) -> anyhow::Result<Vec<Answered>> {
        let mut answered = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                status => bail!("the authority's authorization for {domain} is {status:?}"),
            }
            let challenge = authorization.challenge(ChallengeType::TlsAlpn01);
            let mut challenge =
                challenge.context("the authority does not offer to take a TLS-ALPN-01 proof")?;
            answered.push(self.challenges.begin(domain, challenge.key_authorization().digest().as_ref())?);
            challenge.set_ready().await?;
        }
        Ok(answered)
    }

    /// Our account: that of the cache, or a new one, with which the authority's terms of service are agreed to.
    async fn account(&mut self) -> anyhow::Result<&Account> {
        if self.account.is_none() {
            let builder =
                || anyhow::Ok(Account::builder_with_http(Box::new(client::new(self.config.roots.as_ref())?)));
            let account = match self.cache.account() {
                Some(known) => builder()?.from_credentials(known).await?,
                None => {
                    let contact: Vec<&str> = self.config.contact.iter().map(String::as_str).collect();
                    let new = NewAccount {
                        contact: &contact,
                        terms_of_service_agreed: true,
                        only_return_existing: false,
                    };
                    let created = builder()?.create(&new, self.config.directory.clone(), None).await;
                    let (account, credentials) = created?;
                    self.cache.keep_account(&credentials)?;
                    account
                }
            };
            self.account = Some(account);
        }
        Ok(self.account.as_ref().expect("just made"))
    }

    /// An authority may have lost its accounts; the next attempt makes a new one.
    fn forget_unknown_account(&mut self, error: &Error) {
        let Error::Api(problem) = error else { return };
        if problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:accountDoesNotExist") {
            self.cache.forget_account();
            self.account = None;
        }
    }
}

/// What the authority says of the proofs that it did not get.
async fn why(order: &mut Order) -> String {
    let mut said = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if let Ok(state) = authorization.refresh().await {
            said.extend(
                state.challenges.iter().filter_map(|challenge| Some(challenge.error.as_ref()?.to_string())),
            );
        }
    }
    if said.is_empty() { "it does not say why".to_owned() } else { said.join("; ") }
}

const PATIENCE: RetryPolicy = RetryPolicy::new().timeout(Duration::from_mins(2));
