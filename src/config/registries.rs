//! `schema_registries:`, who knows the schemas of payloads, each under a name that routes use in `decode`.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{HeaderValue, Uri, uri};

use super::auth;
use super::client_tls;
use super::fields::{Bounds, Fields};
use super::keys;
use super::mask;
use super::model::{ClientTls, Secret};
use super::suggest;
use super::tree::{Entry, Node};
use super::walk::Walk;

/// One entry of `schema_registries:`, Confluent's or one that speaks as it does.
#[derive(Debug, Clone, PartialEq)]
pub struct SchemaRegistry {
    /// Its key in the file.
    pub name: Arc<str>,
    /// `url`: what `/schemas/ids/…` is appended to.
    pub url: Uri,
    /// `auth`: as whom it is asked.
    pub auth: Option<RegistryAuth>,
    /// `tls`: whom to trust and what to show, where that is not the usual.
    pub tls: ClientTls,
    /// `cache`: how many schemas are kept. Default 1000, 1 to 100,000.
    pub cache: usize,
    /// `timeout`: for one answer. Default 5 s, 100 ms to 1 min.
    pub timeout: Duration,
}

/// `auth:` of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryAuth {
    /// `user` and `password`: HTTP Basic.
    Basic {
        /// The user, or the key of an API.
        user: String,
        /// The password, or the secret of that key.
        password: Secret,
    },
    /// `token`: a bearer token.
    Bearer(Secret),
}

impl SchemaRegistry {
    /// What it is shown, if anything. Marked as sensitive.
    pub fn authorization(&self) -> Option<HeaderValue> {
        let text = match self.auth.as_ref()? {
            RegistryAuth::Basic { user, password } => {
                format!("Basic {}", BASE64.encode(format!("{user}:{}", password.expose())))
            }
            RegistryAuth::Bearer(token) => format!("Bearer {}", token.expose()),
        };
        let mut value = HeaderValue::from_str(&text).expect("checked when it was read");
        value.set_sensitive(true);
        Some(value)
    }

    /// What operators see of the URL: what follows the host may be a secret.
    pub fn place(&self) -> String {
        let authority = self.url.authority().map_or("", uri::Authority::as_str);
        format!("{}://{authority}", self.url.scheme_str().unwrap_or_default())
    }
}

/// What `schema_registries` holds: names even where the settings had problems, so that routes are not blamed.
#[derive(Debug, Default)]
pub(super) struct Registries {
    /// Those that can be used.
    pub usable: Vec<SchemaRegistry>,
    known: Vec<Arc<str>>,
}

/// Reads `schema_registries`.
pub(super) fn read(walk: &Walk<'_>, node: &Node) -> Registries {
    let mut registries = Registries::default();
    for entry in walk.entries(node, "a mapping of names to schema registries").unwrap_or_default() {
        check_name(walk, entry);
        let name: Arc<str> = entry.key.text.as_str().into();
        registries.usable.extend(read_one(walk, &entry.value, &name));
        registries.known.push(name);
    }
    registries
}

fn check_name(walk: &Walk<'_>, entry: &Entry) {
    let name = &entry.key.text;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
        let name = mask::quotable(name);
        let text = format!("{name} cannot name a schema registry; use 1 to 64 letters, digits, `_` and `-`");
        walk.problem(entry.key.span, text);
    }
}

fn read_one(walk: &Walk<'_>, node: &Node, name: &Arc<str>) -> Option<SchemaRegistry> {
    let fields = Fields::open(walk, node, keys::REGISTRY)?;
    let url = fields.required("url", "it is where the registry is, such as `https://registry.internal:8081`");
    let url = url.and_then(|node| read_url(walk, node));
    let auth = fields.node("auth").map(|node| read_auth(walk, node));
    let tls = fields.entry("tls").zip(fields.node("tls"));
    if let (Some((entry, _)), Some(url)) = (tls, &url)
        && url.scheme_str() != Some("https")
    {
        walk.problem(entry.key.span, "`tls` is for `https://`, and the URL here does not say so");
    }
    let tls = tls.map_or(Some(ClientTls::default()), |(_, node)| client_tls::read(walk, node));
    let cache = fields.count("cache", &CACHE).unwrap_or(CACHE.default);
    let timeout = fields.duration("timeout", &TIMEOUT).unwrap_or(TIMEOUT.default);
    Some(SchemaRegistry {
        name: Arc::clone(name),
        url: url?,
        auth: auth.unwrap_or(Some(None))?,
        tls: tls?,
        cache,
        timeout,
    })
}

fn read_url(walk: &Walk<'_>, node: &Node) -> Option<Uri> {
    let url = auth::read_url(walk, node)?;
    if url.query().is_some() {
        walk.problem(
            node.span,
            "the URL of a schema registry ends with its path; remove the `?` and what follows",
        );
        return None;
    }
    Some(url)
}

fn read_auth(walk: &Walk<'_>, node: &Node) -> Option<Option<RegistryAuth>> {
    let fields = Fields::open(walk, node, keys::REGISTRY_AUTH)?;
    if let Some(token) = fields.entry("token") {
        if let Some(user) = fields.entry("user").or_else(|| fields.entry("password")) {
            let text = "a registry is shown a token, or a user with a password; keep one of the two";
            walk.conflict(user.key.span, text, token.key.span, "the token");
        }
        let token = walk.text(fields.node("token")?, "a token, from a file or the environment")?;
        return Some(Some(RegistryAuth::Bearer(sendable(walk, token.span(), &token.text)?)));
    }
    let user = fields.required("user", "write `user` and `password`, or `token`");
    let password = fields.required("password", "write `user` and `password`, or `token`");
    let (user, password) = (user?, password?);
    let (user, password) = (
        walk.text(user, "the name of a user")?,
        walk.text(password, "a password, from a file or the environment")?,
    );
    if user.text.contains(':') {
        walk.problem(user.span(), "the user of HTTP Basic cannot hold a `:` (RFC 7617 section 2)");
    }
    let password = Secret::new(password.text);
    Some(Some(RegistryAuth::Basic { user: user.text.into_owned(), password }))
}

/// A token that can stand in a header field.
fn sendable(walk: &Walk<'_>, at: super::place::Span, token: &str) -> Option<Secret> {
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        walk.problem(
            at,
            "this token is empty, or holds what a header field cannot have; check where it comes from",
        );
        return None;
    }
    Some(Secret::new(token))
}

impl Registries {
    /// Reads the name of one of them.
    pub fn read_name(&self, walk: &Walk<'_>, node: &Node) -> Option<Arc<str>> {
        let scalar = walk.text(node, "the name of one of `schema_registries`")?;
        let found = self.known.iter().find(|known| ***known == *scalar.text);
        if found.is_none() {
            let hint = match self.known.is_empty() {
                true => "; `schema_registries` at the top of the file names none".to_owned(),
                false => suggest::hint(&scalar.text, self.known.iter().map(|name| &**name), "there are"),
            };
            walk.problem(scalar.span(), format!("no schema registry is called {}{hint}", scalar.shown()));
        }
        found.cloned()
    }
}

pub(super) const CACHE: Bounds<usize> = Bounds { default: 1_000, min: 1, max: 100_000 };
pub(super) const TIMEOUT: Bounds<Duration> =
    Bounds { default: Duration::from_secs(5), min: Duration::from_millis(100), max: Duration::from_secs(60) };

/// A registry at this URL, for tests of what asks it.
#[cfg(test)]
pub(crate) fn testing_registry(url: &str) -> SchemaRegistry {
    SchemaRegistry {
        name: "main".into(),
        url: url.parse().expect("a URL"),
        auth: None,
        tls: ClientTls::default(),
        cache: CACHE.default,
        timeout: TIMEOUT.default,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{TAIL, expect, sound};
    use crate::config::{summary, warnings};

    fn with(keys: &str) -> String {
        format!("server: {{ tls: none }}\nschema_registries: {{ main: {{ {keys} }} }}\n{TAIL}")
    }

    fn read(keys: &str) -> SchemaRegistry {
        sound(&with(keys)).schema_registries.remove(0)
    }

    #[test]
    fn defaults_and_values() {
        assert!(sound(&format!("server: {{ tls: none }}\n{TAIL}")).schema_registries.is_empty());
        let registry = read("url: 'http://r:8081'");
        assert_eq!(
            (registry.url.to_string().as_str(), registry.place().as_str()),
            ("http://r:8081/", "http://r:8081")
        );
        assert_eq!((registry.cache, registry.timeout), (1_000, Duration::from_secs(5)));
        assert!(registry.authorization().is_none());
        let registry = read(
            "url: 'https://r/apis/ccompat/v7', cache: 7, timeout: 1s, auth: { user: u, password: hunter2 }",
        );
        assert_eq!(
            (registry.cache, registry.timeout.as_secs(), registry.place().as_str()),
            (7, 1, "https://r")
        );
        let shown = registry.authorization().unwrap();
        assert!(shown.is_sensitive() && !format!("{registry:?}").contains("hunter2"));
        assert_eq!(shown, format!("Basic {}", BASE64.encode("u:hunter2")));
        let token = read("url: 'https://r', auth: { token: hunter2 }").authorization().unwrap();
        assert_eq!(token, "Bearer hunter2");
    }

    #[test]
    fn what_is_wrong_with_them() {
        expect(&with("cache: 1"), &[(2, 28, "a schema registry lacks `url`; it is where the registry is")]);
        for (keys, at, text) in [
            ("url: 'r:8081'", "'r", "is not a URL such as"),
            ("url: 'http://u:hunter2@r'", "'http", "user and password are not supported in it"),
            ("url: 'http://r?a'", "'http", "ends with its path; remove the `?`"),
            ("url: 'http://r', tls: {}", "tls", "`tls` is for `https://`"),
            ("url: 'http://r', cache: 0", "0", "from 1 to 100000"),
            ("url: 'http://r', timeout: 61s", "61s", "from 100ms to 1m"),
            (
                "url: 'http://r', auth: { user: u }",
                "{ user",
                "`auth` lacks `password`; write `user` and `password`, or `token`",
            ),
            ("url: 'http://r', auth: { user: 'u:v', password: hunter2 }", "'u:v'", "cannot hold a `:`"),
            ("url: 'http://r', auth: { token: 'hunter2 x' }", "'hunter2", "this token is empty, or holds"),
            ("url: 'http://r', auth: { token: hunter2, user: u }", "user", "keep one of the two"),
            ("url: 'http://r', users: u", "users", "unknown key `users` in a schema registry"),
        ] {
            let column = "schema_registries: { main: { ".len() + keys.find(at).unwrap() + 1;
            expect(&with(keys), &[(2, column, text)]);
        }
        let text = with("url: 'http://r'").replace("main:", "'a b':");
        expect(&text, &[(2, 22, "`a b` cannot name a schema registry")]);
    }

    #[test]
    fn a_password_in_the_open_is_warned_of_and_none_is_shown() {
        let told = |keys: &str| warnings(&sound(&with(keys)));
        assert!(told("url: 'http://r'").is_empty());
        assert!(told("url: 'http://localhost:8081', auth: { token: hunter2 }").is_empty());
        let text = told("url: 'http://r', auth: { token: hunter2 }");
        assert!(
            text.len() == 1 && text[0].contains("`schema_registries.main` is shown its `auth`"),
            "{text:?}"
        );
        let shown = summary(&sound(&with("url: 'https://r/hunter2', auth: { user: u, password: hunter2 }")));
        assert!(shown.contains("schema registries\n  main  https://r  with a password\n"), "{shown}");
        assert!(!shown.contains("hunter2"));
    }
}
