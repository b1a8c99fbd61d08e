//! Evaluating a route's rule on one request: an expression without side effects, whose only input is what the request
//! brings. Its macros (`exists`, `all`, `map`, `filter`) go over what they are given, and its patterns are compiled each
//! time: how much work a rule is depends on who wrote it and on the size of a head (`limits.head`), and nothing cuts it off.

use std::collections::HashMap;

use cel::{Context, ExecutionError, Value as Cel};
use serde_json::{Value, json};

use super::asked::Asked;
use crate::config::Rule;

/// Whether the rule holds. Only what it speaks of is made for it.
///
/// # Errors
/// Why it cannot be told, for the log. It says nothing of what the request brings.
pub(super) fn holds(rule: &Rule, asked: &Asked, claims: &Value) -> Result<bool, String> {
    let mut context = Context::default();
    for variable in Rule::VARIABLES.into_iter().filter(|variable| rule.reads(variable)) {
        let value = match variable {
            "claims" => value(claims),
            "params" => texts(asked.params.iter().cloned()),
            "query" => texts(form_urlencoded::parse(asked.query.as_bytes()).into_owned()),
            "headers" => texts(headers(asked)),
            _ => value(&client(asked)),
        };
        context.add_variable_from_value(variable, value);
    }
    match rule.program.execute(&context) {
        Ok(Cel::Bool(holds)) => Ok(holds),
        Ok(other) => Err(format!("it says {:?}, which is neither true nor false", other.type_of())),
        Err(error) => Err(kind(&error)),
    }
}

/// What went wrong, without the values and patterns that cel quotes: they are the client's. Names of keys, functions and
/// types are the rule's own.
fn kind(error: &ExecutionError) -> String {
    use ExecutionError as E;
    match error {
        E::NoSuchOverload(overload) => {
            format!("`{}` does not take {}", overload.function(), overload.argument_types().join(", "))
        }
        E::FunctionError { function, .. } => format!("`{function}` fails"),
        E::UndeclaredReference(name) => format!("nothing is called `{name}`"),
        E::NoSuchKey(_) => "a key is not there".to_owned(),
        E::UnexpectedType { got, want } => format!("a value is {got}, and should be {want}"),
        E::InvalidArgumentCount { expected, actual } => {
            format!("a function takes {expected} arguments, and is given {actual}")
        }
        E::NotSupportedAsMethod { method, .. } => format!("a value has no method `{method}`"),
        E::DivisionByZero(_) | E::RemainderByZero(_) => "a division by zero".to_owned(),
        E::Overflow(..) => "a number is too large".to_owned(),
        E::IndexOutOfBounds(_) => "an index is out of bounds".to_owned(),
        E::ValuesNotComparable(..) => "two values cannot be compared".to_owned(),
        E::UnsupportedKeyType(_) | E::UnsupportedIndex(..) => "a value cannot be a key or index".to_owned(),
        _ => "a value is of a type that does not fit".to_owned(),
    }
}

/// A mapping of texts; of several of a name the first counts.
fn texts(pairs: impl IntoIterator<Item = (String, String)>) -> Cel {
    let mut map: HashMap<String, Cel> = HashMap::new();
    for (name, text) in pairs {
        map.entry(name).or_insert_with(|| text.into());
    }
    map.into()
}

fn headers(asked: &Asked) -> impl Iterator<Item = (String, String)> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    asked.headers.iter().map(move |(name, value)| (name.to_string(), text(value)))
}

fn client(asked: &Asked) -> Value {
    let mut client = json!({ "address": asked.client.to_string() });
    if let Some(certificate) = &asked.certificate {
        let (subject, sans, fingerprint) =
            (&certificate.subject, certificate.sans(), &certificate.fingerprint);
        client["certificate"] = json!({ "subject": subject, "sans": sans, "fingerprint": fingerprint });
    }
    client
}

/// JSON as CEL has it; whole numbers are of one type, so that `claims.level >= 3` compares.
fn value(json: &Value) -> Cel {
    match json {
        Value::Null => Cel::Null,
        Value::Bool(bool) => Cel::Bool(*bool),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Cel::Int(whole),
            (None, Some(float)) => Cel::Float(float),
            (None, None) => Cel::Null,
        },
        Value::String(text) => text.clone().into(),
        Value::Array(items) => items.iter().map(value).collect::<Vec<_>>().into(),
        Value::Object(fields) => {
            fields.iter().map(|(name, field)| (name.clone(), value(field))).collect::<HashMap<_, _>>().into()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::asked::testing::asked;
    use super::super::certificate::Certificate;
    use super::*;

    fn says(text: &str) -> Result<bool, String> {
        let mut request = asked(&[("x-tenant", "acme")], "room=a&room=b");
        request.certificate = Some(Arc::new(Certificate {
            subject: "CN=robot".into(),
            dns: vec!["robot.example".into()],
            uris: vec!["spiffe://example/robot".into()],
            emails: vec!["root.example".into()],
            addresses: vec!["2001:db8::1".parse().unwrap()],
            fingerprint: "00".into(),
            expires: std::time::SystemTime::now(),
        }));
        let claims = json!({ "tenant": "acme", "level": 3, "share": 0.5, "roles": ["admin", "dev"], "deep": { "a": null } });
        holds(&Rule::new(cel::Program::compile(text).unwrap(), text), &request, &claims)
    }

    #[test]
    fn rules_see_what_the_request_brings() {
        for text in [
            "true",
            "claims.tenant == headers['x-tenant']",
            "claims.level >= 3 && claims.share < 1.0",
            "'admin' in claims.roles",
            "claims.roles.exists(role, role == 'dev')",
            "query.room == 'a' && params.room == 'a'",
            "client.address.startsWith('192.0.2.')",
            "has(client.certificate) && client.certificate.sans.dns.exists(name, name.endsWith('.example'))",
            "'spiffe://example/robot' in client.certificate.sans.uri && '2001:db8::1' in client.certificate.sans.ip",
            // An authority may let people choose their e-mail addresses.
            "!('root.example' in client.certificate.sans.dns)",
            "client.certificate.subject == 'CN=robot'",
            "claims.deep.a == null",
            "!has(claims.nothing)",
        ] {
            assert_eq!(says(text), Ok(true), "{text}");
        }
        assert_eq!(says("claims.tenant == 'other'"), Ok(false));
    }

    #[test]
    fn what_cannot_be_told_is_an_error() {
        for text in [
            "claims.nothing == 'a'",
            "claims.tenant",
            "claims.level + 'a' == 'b'",
            "nothing(claims)",
            "1 / 0 == 1",
        ] {
            assert!(says(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_told_says_nothing_of_what_the_request_brings() {
        for text in [
            "claims.tenant + 1 == 2",
            "claims.tenant > 1",
            "claims.tenant.matches('(' + claims.tenant)",
            "claims[claims.tenant] == 1",
            "int(claims.tenant) == 1",
            "claims.roles[claims.tenant] == 1",
            "claims.tenant.tenant == 1",
            "claims.tenant.nothing()",
            "duration(claims.tenant) == duration('1s')",
            "{claims.tenant: 1, claims.tenant: 2}.size() == 1",
        ] {
            let error = says(text).unwrap_err();
            assert!(!error.contains("acme"), "{text}: {error}");
        }
    }
}
