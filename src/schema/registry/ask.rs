//! Asking a registry: for a schema by its id, and for those that it refers to by subject and version.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
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
    /// What was said is not what a registry says of schemas, so that it may be somebody else who said it.
    Unclear(String),
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
            Err(Why::Unanswered(why) | Why::Unclear(why)) => Err(why),
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
        let (others, size) = self.references(told.references.unwrap_or_default(), told.schema.len()).await?;
        // It takes a while, if it is large.
        let parsed = tokio::task::spawn_blocking(move || kind.parse(&told.schema, others));
        let parsed = parsed.await.unwrap_or_else(|panic| Err(format!("parsing it failed: {panic}")));
        Ok(Fetched { schema: parsed.map_err(Why::Useless)?, size })
    }

    /// The text of every schema that is referred to, by what it is called; and how many bytes there are with the `size`
    /// before.
    async fn references(
        &self,
        mut left: Vec<Reference>,
        mut size: usize,
    ) -> Result<(HashMap<String, String>, usize), Why> {
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
            size += told.schema.len();
            if size > MOST_BYTES {
                let most = MOST_BYTES >> 20;
                return Err(Why::Useless(format!("with what it refers to it has more than {most} MiB")));
            }
            texts.insert(name, told.schema);
        }
        Ok((texts, size))
    }

    /// Asks, and where the answer is unclear finds out whether a registry is there. If it is, what it says then is its word:
    /// it may have come back just before.
    async fn ask(&self, path: String) -> Result<Told, Why> {
        match self.try_ask(&path).await {
            Err(Why::Unclear(_)) if self.is_there().await => {}
            answered => return answered,
        }
        self.try_ask(&path).await.map_err(|why| match why {
            Why::Unclear(why) => Why::Useless(format!("{why}, though a registry is there")),
            why => why,
        })
    }

    async fn try_ask(&self, path: &str) -> Result<Told, Why> {
        let (status, body) = self.get(path).await?;
        let text = body.as_deref().unwrap_or_default();
        match status {
            StatusCode::OK if body.is_none() => {
                Err(Why::Unclear(format!("the answer has more than {} MiB", MOST_BYTES >> 20)))
            }
            StatusCode::OK => serde_json::from_slice(text)
                .map_err(|_| Why::Unclear("the answer is not that of a schema registry".to_owned())),
            status if is_unknown(status, text) => {
                Err(Why::Useless("the registry does not know it".to_owned()))
            }
            status if may_pass(status) => Err(Why::Unanswered(format!("the answer is {status}"))),
            status => Err(Why::Unclear(format!("the answer is {status}"))),
        }
    }

    /// Whether a registry is there, and nobody who knows nothing of schemas: each tells which types of them it has.
    async fn is_there(&self) -> bool {
        let Ok((StatusCode::OK, Some(body))) = self.get("/schemas/types").await else { return false };
        serde_json::from_slice::<Vec<String>>(&body).is_ok_and(|types| !types.is_empty())
    }

    /// The status of an answer, and its body unless that is too long.
    async fn get(&self, path: &str) -> Result<(StatusCode, Option<Bytes>), Why> {
        let url = format!("{}{path}", self.settings.url.to_string().trim_end_matches('/'));
        let url: Uri = url.parse().map_err(|_| Why::Useless(format!("{path} cannot be asked for")))?;
        let answer = self.http.get_up_to(MOST_BYTES, url, self.headers.clone(), self.settings.timeout).await;
        let (head, body) = answer.map_err(Why::Unanswered)?;
        Ok((head.status, body))
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

/// Whether another answer may come in time, from whoever gave this one: it is too busy or out of order, or does not let in
/// whom it may let in one day.
fn may_pass(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 403 | 407 | 408 | 425 | 429 | 500..)
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
/// Bytes of an answer, and of the text of a schema with those that it refers to.
const MOST_BYTES: usize = 4 << 20;
/// What needs no encoding in a segment of a path (RFC 3986 section 3.3, the unreserved).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
