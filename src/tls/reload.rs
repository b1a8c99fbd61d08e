//! Reads files again when they change. What is sound is used from the next handshake on; what is not is told once, and
//! what was before stays. Streams that are open notice nothing.

use std::sync::Arc;

use super::certificates::Slot;
use super::standing::Standing;
use super::{Clients, Inner, Tickets, clients};
use crate::config::{CertificateFiles, Identity, TicketKeys, Unfit, WatchedFile, read_roots};
use crate::watch::Watch;

/// Runs until it is dropped.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut watch = Watch::new();
    loop {
        watch.follow(inner.watched().map(|file| &*file.path));
        // Once also before anything has changed: it may have since the configuration was read.
        let looking = Arc::clone(&inner);
        // File systems of networks may take their time.
        let looked = tokio::task::spawn_blocking(move || looking.look_at_files());
        if let Err(error) = looked.await {
            tracing::error!(%error, "files of TLS could not be looked at");
        }
        watch.changed().await;
    }
}

impl Inner {
    /// Takes over what has changed in any file.
    fn look_at_files(&self) {
        for (place, files) in &self.files {
            let slot = &self.certificates.slots()[*place];
            let offered = read(files).and_then(|identity| self.certificates.offer(slot, identity));
            if let Err(error) = offered {
                refuse(slot, &error);
            }
        }
        let clients = self.clients.as_ref().filter(|clients| clients.look()).map(|clients| &clients.file);
        let tickets = self.tickets.as_ref().filter(|tickets| tickets.look()).map(|tickets| &tickets.file);
        let anew = [clients, tickets].into_iter().flatten();
        if anew.clone().next().is_some() {
            self.renew_terms();
        }
        // Said when it holds.
        anew.for_each(|file| tracing::info!(file = %file.name, "read anew"));
    }
}

fn read(files: &CertificateFiles) -> Result<Identity, String> {
    let (chain, key) = (files.cert.read()?, files.key.read()?);
    let (cert_name, key_name) = (&files.cert.name, &files.key.name);
    Identity::from_pem(&chain, &key).map_err(|unfit| match unfit {
        Unfit::Chain(why) => format!("`{cert_name}`: {why}"),
        Unfit::Key(why) => format!("`{key_name}`: {why}"),
        unfit => format!("`{cert_name}` and `{key_name}`: {unfit}"),
    })
}

fn refuse(slot: &Slot, error: &str) {
    if slot.standing.failed(error) {
        tracing::error!(certificate = %slot.name, %error, "the new certificate cannot be used; the one before it stays");
    }
}

impl Clients {
    /// Whether somebody else is to be believed from now on.
    fn look(&self) -> bool {
        let required = self.trust.lock().required;
        let found = content(&self.file, |pem| {
            let roots = read_roots(pem)?;
            clients::Trust::new(Arc::new(roots), required).map_err(|error| error.to_string())
        });
        replaced(&self.file, &self.standing, found, |new| {
            let mut trust = self.trust.lock();
            let changed = trust.context != new.context;
            if changed {
                *trust = new;
            }
            changed
        })
    }
}

impl Tickets {
    /// Whether there are other keys from now on.
    fn look(&self) -> bool {
        let found = content(&self.file, TicketKeys::parse);
        replaced(&self.file, &self.standing, found, |new| {
            let mut keys = self.keys.lock();
            let changed = *keys != new;
            *keys = new;
            changed
        })
    }
}

fn content<T>(file: &WatchedFile, parse: impl Fn(&[u8]) -> Result<T, String>) -> Result<T, String> {
    parse(&file.read()?).map_err(|why| format!("`{}`: {why}", file.name))
}

/// Puts what was found in the place of what was, by `replace`, which says whether it is something else.
fn replaced<T>(
    file: &WatchedFile,
    standing: &Standing,
    found: Result<T, String>,
    replace: impl FnOnce(T) -> bool,
) -> bool {
    match found.map(replace) {
        Ok(true) => {
            standing.replaced();
            true
        }
        Ok(false) => {
            standing.unchanged();
            false
        }
        Err(error) => {
            if standing.failed(&error) {
                tracing::error!(file = %file.name, %error, "the new content cannot be used; what was before stays");
            }
            false
        }
    }
}
