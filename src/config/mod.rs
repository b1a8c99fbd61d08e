//! The configuration: YAML text into types that cannot be wrong, or into a list of everything that
//! is wrong with it. Owns every default and bound; nothing else reads YAML. Uses no other part of
//! ssegate; `cli` and `app` call it, every part reads its types.
//!
//! The way of a file: `tree` keeps what stands where, `walk` and `fields` take values out of
//! it and collect problems, a file for each section gives them their meaning (`keys` lists them),
//! and `problem` draws what was found. What a configuration has in common with the one before it is `same`'s, and
//! `changes` tells the rest.

mod acme;
mod admin;
mod amqp;
mod auth;
mod changes;
mod client_auth;
mod client_tls;
pub mod composite;
mod compress;
mod cors;
mod data;
mod decode;
mod digest;
mod endpoint;
mod event;
mod example;
mod exchange;
mod expression;
mod fields;
mod from;
mod hosts;
mod http_server;
mod identity;
mod interpolate;
mod kafka;
mod kafka_files;
mod keys;
mod limits;
mod logging;
pub mod longest;
mod mask;
mod model;
mod mqtt;
mod multi;
mod nats;
mod network;
mod nkey;
mod paths;
mod place;
mod policies;
mod postgres;
mod problem;
mod proxies;
mod proxy;
mod records;
mod redis;
mod reference;
mod registries;
mod routes;
mod same;
mod schema;
mod server;
mod service_url;
mod subject;
mod suggest;
mod summary;
mod syntax;
mod table;
mod template;
mod templates;
mod tickets;
mod tls;
mod tombstone;
mod traces;
mod tree;
mod units;
mod upstreams;
mod walk;
mod warnings;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::path::Path;

pub use auth::{
    ApiKey, AuthKind, AuthProvider, Deny, DenyList, Forward, Jwt, JwtKeys, OnError, PublicKey, Reads, Rule,
    Ticket,
};
pub use changes::{Change, applied, changes};
pub use decode::{AvroSchema, Decode, ProtobufMessage};
pub use model::*;
pub use problem::Problems;
pub use reference::{Explained, reference, suggest_key};
#[cfg(test)]
pub(crate) use registries::testing_registry;
pub use registries::{RegistryAuth, SchemaRegistry};
pub use same::{Follows, continued};
pub use schema::schema;
pub use summary::summary;
pub use template::{Field, Part, Template, TemplateError};
pub use warnings::warnings;

use fields::Fields;
use interpolate::MAX_FILE;
use mask::Masks;
use place::{Span, Text};
use problem::Problem;
use tree::Node;
use walk::Walk;

/// Reads and checks a configuration file; `${NAME}` comes from the process's environment.
///
/// # Errors
/// Every problem of the file, or that it cannot be read.
pub fn load(path: &Path) -> Result<Config, Problems> {
    let name = path.display().to_string();
    let bytes = interpolate::read_bounded(path)
        .map_err(|why| Problems::unreadable(&name, &format!("cannot read the configuration file: {why}")))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let line =
            1 + error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
        Problems::unreadable(
            &format!("{name}:{line}"),
            "the file is not UTF-8 text; save it in that encoding",
        )
    })?;
    parse_in(&name, path.parent().unwrap_or(Path::new("")), &text, &|name| std::env::var(name).ok())
}

/// Checks the text of a configuration. `file_name` stands in problems, and relative paths in values
/// start at its folder; `env` gives the value of a variable. Reads nothing but the files that values
/// name.
///
/// # Errors
/// Every problem of the text.
pub fn parse(file_name: &str, text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Problems> {
    parse_in(file_name, Path::new(file_name).parent().unwrap_or(Path::new("")), text, env)
}

fn parse_in(
    file_name: &str,
    folder: &Path,
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Problems> {
    if text.len() > MAX_FILE {
        return Err(Problems::unreadable(file_name, "the configuration is larger than 1 MiB"));
    }
    let text = Text::new(text);
    let mut problems = Vec::new();
    let root = tree::parse(text.whole(), &mut |problem| problems.push(problem));
    let masks = Masks::of(&text, root.as_ref());
    let walk = Walk::new(&text, &masks, env, folder);
    let config = root.as_ref().and_then(|root| read(&walk, root));
    problems.append(&mut walk.into_problems());
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => {
            if problems.is_empty() {
                problems.push(Problem { at: None, text: EMPTY.to_owned(), also: None });
            }
            Err(Problems::draw(file_name, &text, &masks, problems))
        }
    }
}

const EMPTY: &str = "the configuration is empty; it needs at least `server`, `upstreams` and `routes`";

/// Reads the whole tree. What it returns holds only if no problem was reported.
fn read(walk: &Walk<'_>, root: &Node) -> Option<Config> {
    if root.value == tree::Value::Null {
        return None;
    }
    let fields = Fields::open(walk, root, keys::ROOT)?;
    let start = Span::new(root.span.start, root.span.start);
    let (server, mut taken) = server::read(walk, fields.node("server"), start);
    let admin = admin::read(walk, fields.node("admin"), &mut taken);
    let log = logging::read(walk, fields.node("log"));
    let limits = limits::read(walk, fields.node("limits"));
    let traces = fields.node("traces").and_then(|node| traces::read(walk, node));
    let auth = auth::read(walk, fields.node("auth"), fields.node("server"));
    let deny = fields.node("deny").and_then(|node| auth::read_deny(walk, node));
    let upstreams = fields.required("upstreams", "it names the systems that routes read from");
    let upstreams =
        upstreams.map(|node| upstreams::read(walk, node, admin.listen.is_some())).unwrap_or_default();
    let registries = fields.node("schema_registries");
    let registries = registries.map(|node| registries::read(walk, node)).unwrap_or_default();
    let defaults = policies::read_defaults(walk, fields.node("defaults"), &auth, limits.max_event);
    let routes = fields.required("routes", "it needs at least one route");
    let given = routes::Given {
        upstreams: &upstreams,
        defaults: &defaults,
        auth: &auth,
        prefix: &server.control_prefix,
        max_event: limits.max_event,
        registries: &registries,
    };
    let (routes, proxies) = routes.map(|node| routes::read(walk, node, &given)).unwrap_or_default();
    Some(Config {
        server,
        admin,
        log,
        limits,
        traces,
        auth: auth.usable,
        deny,
        upstreams: upstreams.usable,
        replay_concurrency: defaults.replay_concurrency,
        routes,
        proxies,
        schema_registries: registries.usable,
    })
}
