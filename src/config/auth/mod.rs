//! `auth:`: the ways in which clients can prove who they are, each with a name that routes use. What a kind's
//! settings mean is in the kind's own file; [`rule`] reads what routes make of who it is.

mod api_key;
mod deny;
mod forward;
mod jwt;
mod model;
mod reads;
mod rule;
mod ticket;

use std::sync::Arc;

use http::{HeaderName, Uri};

use super::client_tls;
use super::fields::Fields;
use super::hosts;
use super::keys;
use super::mask;
use super::model::Cors;
use super::place::Span;
use super::suggest;
use super::tree::{Entry, Node, Value};
use super::walk::Walk;

pub(super) use api_key::API_KEY_HEADER;
pub(super) use deny::read as read_deny;
pub use deny::{Deny, DenyList};
pub(super) use forward::{CACHE, TIMEOUT};
pub(super) use jwt::{LEEWAY, REFRESH};
pub use model::*;
pub use reads::Reads;
pub(super) use rule::read as read_rule;
pub(super) use ticket::TTL;

/// What `auth` holds: names even where the settings had problems, so that routes are not blamed.
#[derive(Debug, Default)]
pub(super) struct Providers {
    /// Those that can be used.
    pub usable: Vec<AuthProvider>,
    /// Every name.
    known: Vec<Arc<str>>,
    /// Those that nobody can satisfy: they go by certificates, and clients are not asked for any.
    unasked: Vec<Arc<str>>,
    /// Where tickets are asked for, which is no path for a route.
    pub ticket_paths: Vec<(Arc<str>, Span)>,
}

/// Reads `auth`. What `server` has decides which of them can be satisfied.
pub(super) fn read(walk: &Walk<'_>, node: Option<&Node>, server: Option<&Node>) -> Providers {
    let mut providers = Providers::default();
    let Some(node) = node else { return providers };
    let entries = walk.entries(node, "a mapping of names to providers").unwrap_or_default();
    let name = |entry: &&Entry| entry.key.text.as_str().into();
    providers.known = entries.iter().map(name).collect();
    if server.and_then(|server| server.child("tls")?.child("client")).is_none() {
        let by_certificate = entries.iter().filter(|entry| entry.value.child("client_cert").is_some());
        providers.unasked = by_certificate.map(name).collect();
    }
    for entry in entries {
        check_name(walk, entry);
        let kind = read_kind(walk, entry, &mut providers);
        let name = entry.key.text.as_str().into();
        providers.usable.extend(kind.map(|kind| AuthProvider { name, kind }));
    }
    check_tickets(walk, node, &providers);
    providers
}

fn check_name(walk: &Walk<'_>, entry: &Entry) {
    let name = &entry.key.text;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if name == "none" {
        walk.problem(entry.key.span, "`none` cannot name a provider: `auth: none` takes a default back");
    } else if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
        let text = format!(
            "{} cannot name a provider; use 1 to 64 letters, digits, `_` and `-`",
            mask::quotable(name)
        );
        walk.problem(entry.key.span, text);
    }
}

fn read_kind(walk: &Walk<'_>, entry: &Entry, providers: &mut Providers) -> Option<AuthKind> {
    let name = mask::quotable(&entry.key.text);
    let no_kind = |at: Span| {
        let kinds = "`jwt`, `ticket`, `api_key`, `forward` or `client_cert`";
        walk.problem(at, format!("the provider {name} has no kind; give it one of {kinds}"));
    };
    if entry.value.value == Value::Null {
        no_kind(entry.key.span);
        return None;
    }
    let fields = Fields::open(walk, &entry.value, keys::AUTH_KINDS)?;
    let mut kinds = fields.present();
    let Some(first) = kinds.next() else {
        if fields.is_empty() {
            no_kind(fields.span());
        }
        return None;
    };
    for second in kinds {
        let text = format!(
            "a provider is of one kind, this one is `{}` already; give each a name of its own",
            first.key.text
        );
        walk.conflict(second.key.span, text, first.key.span, "its first kind");
    }
    let node = fields.node(&first.key.text)?;
    match first.key.text.as_str() {
        "jwt" => jwt::read(walk, node).map(AuthKind::Jwt),
        "ticket" => ticket::read(walk, node, providers).map(AuthKind::Ticket),
        "api_key" => api_key::read(walk, node).map(AuthKind::ApiKey),
        "forward" => forward::read(walk, node).map(AuthKind::Forward),
        _ => Fields::open(walk, node, keys::CLIENT_CERT).map(|_| AuthKind::ClientCert),
    }
}

/// Tickets stand for what another provider has proven, and two of them need two paths.
fn check_tickets(walk: &Walk<'_>, node: &Node, providers: &Providers) {
    let tickets = || {
        let usable = providers.usable.iter();
        usable.filter_map(|provider| match &provider.kind {
            AuthKind::Ticket(ticket) => Some((&provider.name, ticket)),
            _ => None,
        })
    };
    for (name, ticket) in tickets() {
        if let Some(of) = ticket.of.iter().find(|of| tickets().any(|(other, _)| other == *of)) {
            let text = format!(
                "`{name}` gives tickets for `{of}`, which are tickets themselves; name what proves who it is, such as a `jwt`"
            );
            walk.problem(node.span, text);
        }
        if tickets().any(|(other, second)| other != name && second.path == ticket.path) {
            let text = format!("`{}` is the path of two kinds of tickets; give each its own", ticket.path);
            walk.problem(node.span, text);
            return;
        }
    }
}

/// A ticket leaves a cookie, and its URL is of no more use: a page of another origin that cannot send the cookie is lost when
/// its stream is cut.
pub(super) fn check_cors(
    walk: &Walk<'_>,
    route: &Fields<'_>,
    (names, cors): (&[Arc<str>], Option<&Cors>),
    providers: &Providers,
) {
    let gives = |provider: &&AuthProvider| matches!(provider.kind, AuthKind::Ticket(_));
    let tickets = providers.usable.iter().filter(gives).find(|provider| names.contains(&provider.name));
    if let (Some(tickets), Some(Cors { credentials: false, .. })) = (tickets, cors) {
        let entry = route.entry("cors").or_else(|| route.entry("auth"));
        let text = format!(
            "`{}` leaves a cookie to come back with, which pages of other origins cannot send; list them in `cors` with `credentials: true`, or write `cors: none`",
            tickets.name
        );
        walk.problem(entry.map_or(route.span(), |entry| entry.key.span), text);
    }
}

/// Reads a provider's name, or a list of them; `Some(None)` is `none`, which takes a default back.
pub(super) fn read_names(
    walk: &Walk<'_>,
    node: &Node,
    providers: &Providers,
) -> Option<Option<Vec<Arc<str>>>> {
    if let Value::Scalar { .. } = &node.value
        && &*walk.text(node, NAME)?.text == "none"
    {
        return Some(None);
    }
    let (mut names, mut whole) = (Vec::<Arc<str>>::new(), true);
    for node in walk.one_or_more(node, NAME)? {
        let Some(scalar) = walk.text(node, NAME) else {
            whole = false;
            continue;
        };
        let known = providers.known.iter().find(|known| ***known == *scalar.text);
        let problem = match known {
            Some(known) if providers.unasked.contains(known) => format!(
                "`{known}` goes by certificates, and clients are not asked for any; add `server.tls.client`"
            ),
            Some(known) if !names.contains(known) => {
                names.push(Arc::clone(known));
                continue;
            }
            Some(_) => format!("{} is listed twice; keep one of them", scalar.shown()),
            None => {
                let known = providers.known.iter().map(|known| &**known);
                let hint = match providers.known.is_empty() {
                    true => "; `auth` at the top of the file names none".to_owned(),
                    false => suggest::hint(&scalar.text, known, "there are"),
                };
                format!("no provider is called {}{hint}", scalar.shown())
            }
        };
        whole = false;
        walk.problem(scalar.span(), problem);
    }
    whole.then_some(Some(names))
}

const NAME: &str = "the name of a provider of `auth`";

/// An `http` or `https` URL.
pub(super) fn read_url(walk: &Walk<'_>, node: &Node) -> Option<Uri> {
    let expected = "a URL such as `https://login.example.com/keys`";
    let scalar = walk.text(node, expected)?;
    let url = scalar.text.parse::<Uri>().ok().filter(|url| {
        let web = matches!(url.scheme_str(), Some("http" | "https"));
        let plain = url.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        web && plain && url.host().is_some_and(hosts::is_host)
    });
    if url.is_none() {
        let text = format!("{} is not {expected}; user and password are not supported in it", scalar.shown());
        walk.problem(scalar.span(), text);
    }
    url
}

/// `ca`: whom to trust in asking at this URL.
pub(super) fn read_ca(walk: &Walk<'_>, fields: &Fields<'_>, url: &Uri) -> Option<client_tls::Roots> {
    let entry = fields.entry("ca")?;
    if url.scheme_str() != Some("https") {
        walk.problem(entry.key.span, "`ca` is for `https://`, and the URL here does not say so");
        return None;
    }
    client_tls::read_roots(walk, fields.node("ca")?)
}

/// The names of some header fields.
fn read_headers(walk: &Walk<'_>, node: &Node) -> Option<Vec<HeaderName>> {
    let read = |node| read_header(walk, node);
    walk.one_or_more(node, HEADER)?.iter().map(read).collect()
}

fn read_header(walk: &Walk<'_>, node: &Node) -> Option<HeaderName> {
    let scalar = walk.text(node, HEADER)?;
    let name = scalar.text.to_ascii_lowercase().parse().ok();
    if name.is_none() {
        walk.problem(scalar.span(), format!("{} is not {HEADER}", scalar.shown()));
    }
    name
}

const HEADER: &str = "the name of a header field such as `authorization`";

/// A name that needs no escaping in a cookie or a query.
fn read_token(walk: &Walk<'_>, node: &Node, what: &str) -> Option<String> {
    let scalar = walk.text(node, what)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    if scalar.text.is_empty() || scalar.text.len() > 64 || !scalar.text.bytes().all(plain) {
        let text = format!("{} is not {what}; use 1 to 64 letters, digits, `_`, `-` and `.`", scalar.shown());
        walk.problem(scalar.span(), text);
        return None;
    }
    Some(scalar.text.into_owned())
}

/// A key that signs, of 32 bytes or more (RFC 7518 section 3.2).
fn read_secret(walk: &Walk<'_>, node: &Node) -> Option<super::model::Secret> {
    let scalar = walk.text(node, "a secret, from a file or the environment")?;
    if scalar.text.len() < 32 {
        walk.problem(
            scalar.span(),
            "this secret is shorter than 32 bytes; make one with `openssl rand -base64 32`",
        );
        return None;
    }
    Some(super::model::Secret::new(scalar.text.into_owned()))
}

#[cfg(test)]
mod tests;
