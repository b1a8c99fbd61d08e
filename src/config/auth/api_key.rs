//! `api_key:`: who has which key, told by its hash.

use std::sync::Arc;

use data_encoding::HEXLOWER_PERMISSIVE;
use http::HeaderName;

use super::super::fields::Fields;
use super::super::keys;
use super::super::tree::{Entry, Node};
use super::super::walk::Walk;
use super::{ApiKey, read_header};

pub(super) fn read(walk: &Walk<'_>, node: &Node) -> Option<ApiKey> {
    let fields = Fields::open(walk, node, keys::API_KEY)?;
    let header = fields
        .node("header")
        .map_or(Some(HeaderName::from_static(API_KEY_HEADER)), |node| read_header(walk, node));
    let keys = fields.required("keys", "it lists who has which key, such as `ci: \"sha256:…\"`")?;
    let entries = walk.entries(keys, "a mapping of names to hashes")?;
    if entries.is_empty() {
        walk.problem(keys.span, "`keys` is empty; it needs at least one");
    }
    let read = |entry: &&Entry| {
        let name: Arc<str> = entry.key.text.as_str().into();
        Some((name, read_hash(walk, &entry.value)?))
    };
    Some(ApiKey { header: header?, keys: entries.iter().map(read).collect::<Option<_>>()? })
}

/// Where it is looked for by default.
pub(in crate::config) const API_KEY_HEADER: &str = "x-api-key";

fn read_hash(walk: &Walk<'_>, node: &Node) -> Option<[u8; 32]> {
    let scalar = walk.text(node, "a hash such as `sha256:…`")?;
    let hash = scalar.text.strip_prefix("sha256:").and_then(digest);
    if hash.is_none() {
        // Not quoted: it may be the key itself.
        let text = "this is not the SHA-256 of a key, `sha256:` and 64 hexadecimal digits; `printf %s KEY | sha256sum` makes it";
        walk.problem(scalar.span(), text);
    }
    hash
}

fn digest(digits: &str) -> Option<[u8; 32]> {
    HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()?.try_into().ok()
}
