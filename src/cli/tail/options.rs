//! What `ssegate tail` takes.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use http::{HeaderName, HeaderValue, Uri};

/// The arguments of `tail`.
#[derive(Debug, Args)]
#[command(after_help = STATUS)]
pub(in crate::cli) struct Options {
    /// Where the stream is: https://… or http://…
    #[arg(value_name = "URL", value_parser = url)]
    pub url: Uri,
    /// Begin in the past: so long ago (15m, 2h), or at a time (2026-01-31T12:00:00Z)
    #[arg(long, value_name = "TIME", conflicts_with = "last_event_id")]
    pub since: Option<String>,
    /// Begin after the event that has this id
    #[arg(long, value_name = "ID", value_parser = id)]
    pub last_event_id: Option<String>,
    /// Send this header field, 'name: value', or those in @FILE, one a line; can be given again
    #[arg(short = 'H', long = "header", value_name = "FIELD")]
    pub headers: Vec<String>,
    /// Show events of this name alone, `message` for those without one; can be given again
    #[arg(long = "event", value_name = "NAME")]
    pub events: Vec<String>,
    /// Print the data of events and nothing else
    #[arg(long, conflicts_with = "json")]
    pub data: bool,
    /// Print a JSON object for each event, a line each: time, event, id and data; gaps as well
    #[arg(long)]
    pub json: bool,
    /// End after so many events
    #[arg(long, short = 'n', value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Try again also when the first attempt fails, and after a 5xx
    #[arg(long)]
    pub retry: bool,
    /// Trust the authorities of this PEM file instead of the system's
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub cacert: Option<PathBuf>,
    /// Believe any certificate: for self-signed ones
    #[arg(long, short = 'k')]
    pub insecure: bool,
    /// Speak HTTP/1.1 alone
    #[arg(long)]
    pub http1: bool,
    /// Use no colours, as with NO_COLOR in the environment
    #[arg(long)]
    pub no_color: bool,
    /// What the names of the server's own events begin with
    #[arg(long, value_name = "PREFIX", default_value = "stream.")]
    pub control_prefix: String,
    /// Tell also of positions and of each connection
    #[arg(long, short)]
    pub verbose: bool,
}

const STATUS: &str = "It comes back by itself when the stream ends or the connection is lost, and resumes after the \
last event. Exit status: 0 when the server says that the stream is over (204), after --count events, or when nobody \
reads its output any more; 1 when the server refuses; 130 after Ctrl-C.";

fn url(text: &str) -> Result<Uri, String> {
    let url: Uri =
        text.parse().map_err(|_| "write a URL such as https://localhost:8443/events".to_owned())?;
    match (url.scheme_str(), url.authority()) {
        (Some("http" | "https"), Some(authority)) if authority.as_str().contains('@') => {
            Err("leave out user and password; say who you are with -H 'authorization: …'".to_owned())
        }
        (Some("http" | "https"), Some(_)) => Ok(url),
        _ => Err("it begins with https:// or http://".to_owned()),
    }
}

fn id(text: &str) -> Result<String, String> {
    match HeaderValue::from_str(text) {
        Ok(_) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err("an id is one line of text, and not empty".to_owned()),
    }
}

impl Options {
    /// The header fields to send.
    pub fn header_fields(&self) -> anyhow::Result<Vec<(HeaderName, HeaderValue)>> {
        let mut fields = Vec::new();
        for given in &self.headers {
            let Some(file) = given.strip_prefix('@') else {
                // Not quoted: it may be a credential.
                fields.push(field(given).context("-H takes 'name: value', or @FILE")?);
                continue;
            };
            let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
            for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
                // What it holds is a secret, most likely.
                fields.push(field(line).with_context(|| format!("{file}:{}: write name: value", at + 1))?);
            }
        }
        Ok(fields)
    }
}

fn field(text: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':')?;
    Some((name.trim().parse().ok()?, value.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        assert!(url("https://localhost:8443/events?x=1").is_ok() && url("http://[::1]:1/").is_ok());
        for (text, why) in [
            ("localhost:8443/x", "a URL such as"),
            ("ftp://localhost/", "begins with https://"),
            ("/events", "begins with https://"),
            ("https://user:hunter2@localhost/", "leave out user and password"),
        ] {
            assert!(url(text).unwrap_err().contains(why), "{text}");
        }
    }

    #[test]
    fn header_fields() {
        let (name, value) = field("Authorization:  Bearer x:y ").unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("authorization", "Bearer x:y"));
        assert!(field("no colon").is_none() && field("bad name: x").is_none() && field("a: b\0").is_none());
    }
}
