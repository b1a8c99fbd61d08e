//! A certificate for development, made at each start.

use std::net::SocketAddr;

use crate::config::Identity;

/// One for `localhost` and the addresses that are listened on.
pub(super) fn identity(listen: &[SocketAddr]) -> anyhow::Result<Identity> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    names.extend(
        listen.iter().map(|addr| addr.ip()).filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string()),
    );
    names.sort();
    names.dedup();
    let made = rcgen::generate_simple_self_signed(names)?;
    Ok(Identity::from_pem(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes())?)
}
