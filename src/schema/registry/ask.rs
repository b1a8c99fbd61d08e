//! Asking a registry: for a schema by its id, and for those that it refers to by subject and version.

use std::collections::{HashMap, HashSet};

use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;

use crate::config::SchemaRegistry;
use crate::fetch::Http;
use crate::schema::avro::Avro;
use crate::schema::{Schema, SchemaId, protobuf};

/// How it is asked.
#[derive(Debug)]
pub(super) struct Asker {
    settings: SchemaRegistry,
    http: Http,
    headers: HeaderMap,
}

/// What it says of an id.
#[derive(Debug)]
pub(super) enum Found {
    Schema(Fetched),
    /// It has none, or one that is not understood: what has this id cannot be decoded.
    Useless(String),
}

/// A schema, with the bytes of all its text.
#[derive(Debug)]
pub(super) struct Fetched {
    pub schema: Schema,
    pub size: usize,
}

/// A schema as it is told.
#[derive(Debug, Deserialize)]
struct Told {
    schema: String,
    #[serde(rename = "schemaType")]
    kind: Option<String>,
    #[serde(default)]
    references: Option<Vec<Reference>>,
}

/// Another schema that one refers to.
#[derive(Debug, Deserialize)]
struct Reference {
    /// What it is called there.
    name: String,
    subject: String,
    version: i64,
}

/// Why a schema could not be had.
enum Why {
    /// It has to be asked for again.
    Unanswered(String),
    Useless(String),
}

impl Asker {
    pub fn new(settings: &SchemaRegistry) -> Self {
        let accept = "application/vnd.schemaregistry.v1+json, application/json";
        let mut headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
        headers.extend(settings.authorization().map(|value| (AUTHORIZATION, value)));
        Self { settings: settings.clone(), http: Http::presenting(&settings.tls), headers }
    }

    pub fn settings(&self) -> &SchemaRegistry {
        &self.settings
    }

    /// What operators are shown: a path may hold a secret.
    pub fn place(&self) -> String {
        self.settings.place()
    }

    /// Asks for a schema, and for what it refers to.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn find(&self, id: SchemaId) -> Result<Found, String> {
        match self.fetch(id).await {
            Ok(fetched) => Ok(Found::Schema(fetched)),
            Err(Why::Useless(why)) => Ok(Found::Useless(why)),
            Err(Why::Unanswered(why)) => Err(why),
        }
    }

    async fn fetch(&self, id: SchemaId) -> Result<Fetched, Why> {
        // Registries count in numbers of Java, and answer anything beyond with what tells nothing.
        if matches!(id, SchemaId::Number(number) if i32::try_from(number).is_err()) {
            return Err(Why::Useless("no registry gives such a number".to_owned()));
        }
        let told = self.ask(match id {
            SchemaId::Number(number) => format!("/schemas/ids/{number}"),
            SchemaId::Uuid(uuid) => format!("/schemas/guids/{uuid}"),
        });
        let told = told.await?;
        let kind = match told.kind.as_deref() {
            None | Some("AVRO") => Kind::Avro,
            Some("PROTOBUF") => Kind::Protobuf,
            Some("JSON") => return Ok(Fetched { schema: Schema::Json, size: told.schema.len() }),
            Some(other) => {
                return Err(Why::Useless(format!("{other} is no type of schema that ssegate knows")));
            }
        };
        let others = self.references(told.references.unwrap_or_default()).await?;
        let size = told.schema.len() + others.values().map(String::len).sum::<usize>();
        // It takes a while, if it is large.
        let parsed = tokio::task::spawn_blocking(move || kind.parse(&told.schema, others));
        let parsed = parsed.await.unwrap_or_else(|panic| Err(format!("parsing it failed: {panic}")));
        Ok(Fetched { schema: parsed.map_err(Why::Useless)?, size })
    }

    /// The text of every schema that is referred to, by what it is called.
    async fn references(&self, mut left: Vec<Reference>) -> Result<HashMap<String, String>, Why> {
        let (mut texts, mut seen) = (HashMap::new(), HashSet::new());
        while let Some(Reference { name, subject, version }) = left.pop() {
            if texts.contains_key(&name) || !seen.insert((subject.clone(), version)) {
                continue;
            }
            if seen.len() > MOST_REFERENCES {
                return Err(Why::Useless(format!("it refers to more than {MOST_REFERENCES} other schemas")));
            }
            let encoded = utf8_percent_encode(&subject, SEGMENT);
            let told = self.ask(format!("/subjects/{encoded}/versions/{version}")).await?;
            left.extend(told.references.unwrap_or_default());
            texts.insert(name, told.schema);
        }
        Ok(texts)
    }

    async fn ask(&self, path: String) -> Result<Told, Why> {
        let url = format!("{}{path}", self.settings.url.to_string().trim_end_matches('/'));
        let url: Uri = url.parse().map_err(|_| Why::Useless(format!("{path} cannot be asked for")))?;
        let answer = self.http.get(url, self.headers.clone(), self.settings.timeout).await;
        let (head, body) = answer.map_err(Why::Unanswered)?;
        match head.status {
            StatusCode::OK => serde_json::from_slice(&body)
                .map_err(|_| Why::Unanswered("the answer is not that of a schema registry".to_owned())),
            status if is_unknown(status, &body) => {
                Err(Why::Useless("the registry does not know it".to_owned()))
            }
            status => Err(Why::Unanswered(format!("the answer is {status}"))),
        }
    }
}

/// Whether the registry says that there is no such schema, and not somebody that there is no registry: it has numbers of its
/// own for that.
fn is_unknown(status: StatusCode, body: &[u8]) -> bool {
    let code = || serde_json::from_slice::<Value>(body).ok()?["error_code"].as_i64();
    match status {
        StatusCode::NOT_FOUND => code().is_some_and(|code| UNKNOWN.contains(&code)),
        StatusCode::UNPROCESSABLE_ENTITY => true,
        _ => false,
    }
}

/// Subject, version or schema not found.
const UNKNOWN: [i64; 3] = [40401, 40402, 40403];

#[derive(Clone, Copy)]
enum Kind {
    Avro,
    Protobuf,
}

impl Kind {
    fn parse(self, schema: &str, others: HashMap<String, String>) -> Result<Schema, String> {
        match self {
            Self::Avro => {
                let others: Vec<_> = others.into_values().collect();
                Avro::parse(schema, &others).map(Schema::Avro)
            }
            Self::Protobuf => protobuf::parse(schema, others).map(Schema::Protobuf),
        }
    }
}

/// One schema may refer to so many others, directly or not.
const MOST_REFERENCES: usize = 200;
/// What needs no encoding in a segment of a path (RFC 3986 section 3.3, the unreserved).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
