//! `ticket:`: where tickets are had, for what, and how long they wait.

use std::sync::Arc;
use std::time::Duration;

use super::super::fields::{Bounds, Fields};
use super::super::keys;
use super::super::paths;
use super::super::tree::Node;
use super::super::walk::Walk;
use super::{Providers, Ticket, read_names, read_secret};

pub(super) fn read(walk: &Walk<'_>, node: &Node, providers: &mut Providers) -> Option<Ticket> {
    let fields = Fields::open(walk, node, keys::TICKET)?;
    let path = fields.required("path", "it is where tickets are asked for, such as `/tickets`");
    let path = path.and_then(|node| {
        let path = paths::read(walk, &walk.text(node, "a path such as `/tickets`")?, paths::Rest::Refused)?;
        if path.params.is_empty() {
            providers.ticket_paths.push((Arc::clone(&path.text), path.span));
            return Some(path.text);
        }
        walk.problem(
            path.span,
            "the path of tickets has no parameters; which stream one is for stands in the query",
        );
        None
    });
    let of = fields.required("of", "it names the providers that who asks for a ticket must satisfy");
    let of = of.and_then(|node| match read_names(walk, node, providers)? {
        Some(names) => Some(names),
        None => {
            walk.problem(node.span, "tickets for everybody protect nothing; name a provider");
            None
        }
    });
    let secret = fields.node("secret").map(|node| read_secret(walk, node));
    let ttl = fields.duration("ttl", &TTL).unwrap_or(TTL.default);
    let bind_address = fields.flag("bind_address").unwrap_or(false);
    Some(Ticket { path: path?, of: of?, secret: secret.flatten(), ttl, bind_address })
}

pub(in crate::config) const TTL: Bounds<Duration> =
    Bounds { default: Duration::from_secs(30), min: Duration::from_secs(1), max: Duration::from_secs(300) };
