//! The words of a decision: what was proven, what was refused and why, and what cannot be told yet.

use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderValue;
use serde_json::Value;

/// What a client has proven, and for how long it holds.
#[derive(Debug, PartialEq)]
pub struct Grant {
    /// The provider that believes it; of a ticket the one that believed who asked for it.
    pub provider: Arc<str>,
    /// Who it is.
    pub subject: Arc<str>,
    /// What else is known of it.
    pub claims: Value,
    /// The key that it was signed with.
    pub key: Option<KeyName>,
    /// The token's own id, its `jti`.
    pub token: Option<String>,
    /// When it ends; never where the credential does not say.
    pub expires: Option<SystemTime>,
    /// Until when it can be shown again, where that ends before it does itself: a cookie that a ticket has left.
    pub shown_until: Option<SystemTime>,
}

/// A key, as what was signed with it remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyName {
    /// What its issuer calls it.
    pub id: Option<String>,
    /// A hash of the key, which tells it from another of the same name.
    pub print: [u8; 32],
}

impl Grant {
    /// One that has no end of its own.
    pub fn new(provider: &Arc<str>, subject: &str, claims: Value) -> Self {
        Self {
            provider: Arc::clone(provider),
            subject: subject.into(),
            claims,
            key: None,
            token: None,
            expires: None,
            shown_until: None,
        }
    }

    /// Bytes that it takes, about.
    pub fn size(&self) -> usize {
        let token = self.token.as_ref().map_or(0, String::len);
        let key = self.key.as_ref().and_then(|key| key.id.as_ref()).map_or(0, String::len);
        size_of::<Self>() + self.subject.len() + token + key + size(&self.claims)
    }

    /// Whether both are of the same client. One without a name is nobody in particular.
    pub fn is_of_the_same(&self, other: &Self) -> bool {
        !self.subject.is_empty() && (&self.provider, &self.subject) == (&other.provider, &other.subject)
    }
}

fn size(claim: &Value) -> usize {
    size_of::<Value>()
        + match claim {
            Value::String(text) => text.len(),
            Value::Array(values) => values.iter().map(size).sum(),
            Value::Object(members) => {
                members.iter().map(|(name, value)| size_of::<String>() + name.len() + size(value)).sum()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Verdict {
    /// It is let in.
    Allowed(Admitted),
    /// It is not.
    Refused(Refusal),
    /// Whoever has to be asked does not answer. It will be known later; what was proven already need not be once more.
    Undecided(Admitted),
}

impl Verdict {
    /// Its name in metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Allowed(_) => "allowed",
            Self::Refused(why) => why.as_str(),
            Self::Undecided(_) => "undecided",
        }
    }
}

/// With what a request is let in.
#[derive(Debug, Default)]
pub struct Admitted {
    /// What it has proven; nothing where anybody may come.
    pub grant: Option<Arc<Grant>>,
    /// A `set-cookie` with which it comes back.
    pub cookie: Option<HeaderValue>,
}

/// What one provider finds.
#[derive(Debug, Clone)]
pub(super) enum Check {
    /// No credential of its kind is there.
    Absent,
    /// There is one, and it is not good.
    Refused(Refusal),
    /// It cannot be told now.
    Undecided,
    /// It is good, and perhaps a cookie takes its place.
    Known(Arc<Grant>, Option<HeaderValue>),
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It has no credential.
    Missing,
    /// What it has is no credential at all.
    Malformed,
    /// Nobody who is believed has signed it.
    Signature,
    /// It has ended.
    Expired,
    /// It has not begun.
    Early,
    /// It is for somebody else, or by somebody else.
    Audience,
    /// It was used before.
    Replayed,
    /// So many were used lately that one more cannot be remembered. It can be in a moment.
    Full,
    /// It is for another path or host.
    Path,
    /// It is for another address.
    Address,
    /// It came in a cookie, from a page whose origin is not listed.
    Origin,
    /// The endpoint that was asked says 401.
    Unauthorized,
    /// The endpoint that was asked says 403.
    Forbidden,
    /// It is on the deny list.
    Denied,
    /// The rule says no.
    Rule,
    /// The rule cannot be evaluated.
    RuleFailed,
}

impl Refusal {
    /// Its name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::Early => "early",
            Self::Audience => "audience",
            Self::Replayed => "replayed",
            Self::Full => "full",
            Self::Path => "path",
            Self::Address => "address",
            Self::Origin => "origin",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Denied => "denied",
            Self::Rule => "rule",
            Self::RuleFailed => "rule_failed",
        }
    }

    /// Whether it is known who asks, so that another credential of the same would change nothing.
    pub fn is_forbidden(self) -> bool {
        matches!(self, Self::Origin | Self::Forbidden | Self::Denied | Self::Rule | Self::RuleFailed)
    }
}
