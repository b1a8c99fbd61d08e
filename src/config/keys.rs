//! Every key that a configuration may hold, section by section, with what its value can be and what holds without it.
//! The walk accepts what stands here and nothing else; `explain` and the schema are made of it, and of the comments of
//! the example, which shows all of it.

mod shape;

pub(super) use shape::{Key, Section, Shape, Unset, join, visit};

use Shape::{Count, Duration, Either, Empty, Flag, List, Named, OneOrMore, Ratio, Scalar, Size, Text, Words};
use shape::key;

use super::{
    acme, admin, auth, compress, digest, from, http_server, limits, mqtt, multi, policies, proxy, redis,
    registries, server, table, traces, upstreams,
};

/// Declares the sections; `one of` are keys of which there must be one and no second.
macro_rules! sections {
    ($($name:ident = $shown:literal: [$($group:expr),* $(,)?] $(one of [$($one:literal),*])?;)*) => {
        $(pub(super) const $name: &Section = &Section {
            name: $shown,
            groups: &[$($group),*],
            one_of: &[$($($one),*)?],
        };)*
    };
}

sections! {
    ROOT = "the file": [&[
        key("server", Shape::Section(SERVER)).required(),
        key("admin", Shape::Section(ADMIN)),
        key("log", Shape::Section(LOG)),
        key("limits", Shape::Section(LIMITS)),
        key("traces", Shape::Section(TRACES)).unset(),
        key("auth", Named("names", &Shape::Section(AUTH_KINDS))).unset(),
        key("deny", PATH).unset(),
        key("upstreams", Named("names", &Shape::Section(KINDS))).required(),
        key("defaults", Shape::Section(DEFAULTS)),
        key("routes", List(&Shape::Section(ROUTE))).required(),
        key("schema_registries", Named("names", &Shape::Section(REGISTRY))).unset(),
    ]];
    SERVER = "`server`": [&[
        key("listen", OneOrMore(&ADDRESS)).or(|| server::LISTEN.to_string()),
        key("tls", Either(&[Words(&["self_signed", "none"]), Shape::Section(TLS)])).required(),
        key("drain", Duration(&server::DRAIN)),
        key("control_prefix", Text("the beginning of a name")).or(|| server::CONTROL_PREFIX.to_owned()),
        key("hsts", Either(&[Duration(&server::MAX_AGE), Shape::Section(HSTS)])).unset(),
        key("proxy_protocol", Words(&["v1", "v2", "any"])).unset(),
        key("trusted_proxies", OneOrMore(&Text("an address, or a network such as 10.0.0.0/8"))).unset(),
        key("real_ip_header", Words(&["x-forwarded-for", "forwarded", "none"])),
    ]];
    HSTS = "`hsts`": [&[
        key("max_age", Duration(&server::MAX_AGE)).required().doc("For how long browsers are to come by HTTPS alone."),
        key("subdomains", Flag(false)).doc("Whether that holds for all names below this one."),
        key("preload", Flag(false)).doc("Whether browsers may have it built in (hstspreload.org)."),
    ]];
    TLS = "`tls`": [CERTIFICATE, &[
        key("certificates", List(&Shape::Section(TLS_CERTIFICATE))).unset(),
        key("acme", Shape::Section(TLS_ACME)).unset(),
        key("client", Shape::Section(TLS_CLIENT)).unset(),
        key("tickets", Shape::Section(TLS_TICKETS)).unset(),
    ]];
    TLS_CERTIFICATE = "a certificate": [&[
        key("cert", PEM).required().doc("PEM file of the certificate with its chain."),
        key("key", PEM).required().doc("PEM file of its private key."),
    ]];
    TLS_ACME = "`acme`": [&[
        key("domains", OneOrMore(&Text("a name such as shop.example.com"))).required(),
        key("contact", OneOrMore(&Text("a URL such as mailto:ops@example.com"))).unset(),
        key("directory", URL).or(|| acme::LETS_ENCRYPT.to_owned()),
        key("cache", Text("the path of a folder")).required(),
        key("ca", PEM).unset(),
    ]];
    TLS_CLIENT = "`client`": [&[
        key("ca", PEM).required(),
        key("mode", Words(&["required", "optional"])),
        key("passthrough", Flag(false)),
    ]];
    TLS_TICKETS = "`tickets`": [&[key("keys", PATH).required()]];
    ADMIN = "`admin`": [&[
        key("listen", Either(&[ADDRESS, Text("unix: and the path of a socket"), Words(&["none"])])).or(|| admin::LISTEN.to_string()),
        key("token", SECRET).unset(),
    ]];
    LOG = "`log`": [&[
        key("format", Words(&["text", "json"])),
        key("level", Words(&["error", "warn", "info", "debug", "trace"])).or(|| "info".to_owned()),
        key("access", Flag(false)),
        key("redact", OneOrMore(&Text("the name of a parameter of the query"))).unset(),
    ]];
    LIMITS = "`limits`": [&[
        key("memory", Size(&limits::MEMORY)),
        key("write_stall", Duration(&limits::WRITE_STALL)),
        key("max_event", Size(&limits::MAX_EVENT)),
        key("connections", Count(&limits::CONNECTIONS)).unset(),
        key("connections_per_client", LIMIT),
        key("connection_rate_per_client", Shape::Section(CONNECTION_RATE)).unset(),
        key("handshake_timeout", Duration(&limits::TIMEOUT)),
        key("head", Size(&limits::HEAD)),
        key("head_timeout", Duration(&limits::TIMEOUT)),
        key("streams_per_connection", Count(&limits::STREAMS_PER_CONNECTION)),
        key("idle_connection", Duration(&limits::IDLE_CONNECTION)),
        key("shed", Words(&["retry", "reject"])),
    ]];
    CONNECTION_RATE = "`connection_rate_per_client`": [&[
        key("rate", Count(&limits::RATE)).required(),
        key("burst", Count(&limits::RATE)).unset(),
    ]];
    TRACES = "`traces`": [&[
        key("endpoint", URL).required(),
        key("sample", Ratio(&traces::SAMPLE)),
        key("parent", Words(&["any", "proxies", "none"])),
        key("service_name", Text("a name")).or(|| traces::SERVICE_NAME.to_owned()),
        key("attributes", Named("attributes", &Text("text"))).unset(),
        key("headers", Named("header fields", &SECRET)).unset(),
        key("ca", PEM).unset(),
        key("timeout", Duration(&traces::TIMEOUT)),
    ]];
    AUTH_KINDS = "a provider": [&[
        key("jwt", Shape::Section(JWT)).unset(),
        key("ticket", Shape::Section(TICKET)).unset(),
        key("api_key", Shape::Section(API_KEY)).unset(),
        key("forward", Shape::Section(FORWARD)).unset(),
        key("client_cert", Shape::Section(CLIENT_CERT)).unset(),
    ]] one of ["jwt", "ticket", "api_key", "forward", "client_cert"];
    JWT = "`jwt`": [&[
        key("secret", SECRET).unset().doc("A shared secret of at least 32 bytes, for HS256, HS384 and HS512."),
        key("keys", OneOrMore(&Text("a public key in PEM"))).unset()
            .doc("Public keys that tokens are signed with: RSA, P-256, P-384 and Ed25519."),
        key("jwks", URL).unset(),
        key("ca", PEM).unset(),
        key("refresh", Duration(&auth::REFRESH)),
        key("issuer", OneOrMore(&Text("an issuer"))).unset(),
        key("audience", OneOrMore(&Text("an audience"))).unset(),
        key("leeway", Duration(&auth::LEEWAY)),
        key("cookie", Text("the name of a cookie")).unset(),
        key("query", Text("the name of a query parameter")).unset(),
    ]] one of ["jwks", "keys", "secret"];
    TICKET = "`ticket`": [&[
        key("path", Text("a path such as /tickets")).required().doc("Where tickets are asked for."),
        key("of", OneOrMore(&PROVIDER)).required(),
        key("secret", SECRET).unset(),
        key("ttl", Duration(&auth::TTL)),
        key("bind_address", Flag(false)),
    ]];
    API_KEY = "`api_key`": [&[
        key("header", HEADER).or(|| auth::API_KEY_HEADER.to_owned()),
        key("keys", Named("names", &Text("a hash such as sha256:…"))).required().doc("Who has which key."),
    ]];
    FORWARD = "`forward`": [&[
        key("url", URL).required(),
        key("ca", PEM).unset(),
        key("headers", OneOrMore(&HEADER)).or(|| "[authorization, cookie]".to_owned()),
        key("claims", OneOrMore(&HEADER)).unset(),
        key("cache", Duration(&auth::CACHE)),
        key("timeout", Duration(&auth::TIMEOUT)),
        key("on_error", Words(&["hold", "deny"])),
    ]];
    CLIENT_CERT = "`client_cert`": [];
    KINDS = "an upstream": [&[
        key("redis", Shape::Section(REDIS)).unset(),
        key("kafka", Shape::Section(KAFKA)).unset(),
        key("ticker", Either(&[Shape::Section(TICKER), Empty])).unset(),
        key("push", Either(&[Shape::Section(PUSH), Empty])).unset(),
        key("file", Shape::Section(FILE)).unset(),
        key("stdin", Either(&[Shape::Section(STDIN), Empty])).unset(),
        key("postgres", Shape::Section(POSTGRES)).unset(),
        key("amqp", Shape::Section(AMQP)).unset(),
        key("sse", Shape::Section(SSE)).unset(),
        key("http", Shape::Section(HTTP)).unset(),
        key("nats", Shape::Section(NATS)).unset(),
        key("mqtt", Shape::Section(MQTT)).unset(),
    ]] one of ["redis", "kafka", "ticker", "push", "file", "stdin", "postgres", "amqp", "sse", "http", "nats", "mqtt"];
    REDIS = "`redis`": [&[
        key("url", OneOrMore(&Text("redis://… or rediss://…"))).required(),
        key("sentinels", OneOrMore(&Text("redis://… or rediss://…"))).unset(),
        key("cluster", Flag(false)),
        key("tls", Shape::Section(REDIS_TLS)).unset(),
        key("ping_interval", Duration(&redis::TIME)),
        key("timeout", Duration(&redis::TIME)),
    ]];
    REDIS_TLS = "`tls`": [&[
        key("ca", PEM).unset().doc("PEM file of whom to trust instead of the system's authorities."),
        key("cert", PEM).unset().doc("PEM file of the certificate to show."),
        key("key", PEM).unset().doc("PEM file of its private key."),
    ]];
    KAFKA = "`kafka`": [&[
        key("brokers", OneOrMore(&Text("host:port"))).required(),
        key("properties", Named("properties", &Scalar("what librdkafka takes"))).unset(),
    ]];
    TICKER = "`ticker`": [&[
        key("every", Duration(&upstreams::EVERY)),
        key("data", Text("text")).or(|| upstreams::TICK.to_owned()),
    ]];
    PUSH = "`push`": [];
    FILE = "`file`": [&[key("path", PATH).required()]];
    STDIN = "`stdin`": [];
    NATS = "`nats`": [&[
        key("servers", OneOrMore(&Text("nats://… or tls://…"))).required(),
        key("user", Text("a name")).unset(),
        key("password", SECRET).unset().doc("The password of `user`."),
        key("token", SECRET).unset(),
        key("nkey", SECRET).unset(),
        key("credentials", PATH).unset(),
        key("tls", Shape::Section(REDIS_TLS)).unset(),
        key("ping_interval", Duration(&redis::TIME)),
        key("timeout", Duration(&redis::TIME)),
    ]];
    POSTGRES = "`postgres`": [&[
        key("url", Text("postgres://…")).required(),
        key("password", SECRET).unset(),
        key("tls", Shape::Section(REDIS_TLS)).unset(),
        key("ping_interval", Duration(&redis::TIME)),
        key("timeout", Duration(&redis::TIME)),
    ]];
    AMQP = "`amqp`": [&[
        key("url", Text("amqp://… or amqps://…")).required(),
        key("tls", Shape::Section(REDIS_TLS)).unset(),
        key("ping_interval", Duration(&redis::TIME)),
        key("timeout", Duration(&redis::TIME)),
    ]];
    HTTP = "`http`": [HTTP_SERVER, &[
        key("idle", Duration(&http_server::IDLE)),
        key("stream", Flag(false)),
        key("every", Duration(&http_server::EVERY)),
        key("split", Words(&["none", "lines", "array"])),
    ]];
    SSE = "`sse`": [HTTP_SERVER, &[
        key("idle", Duration(&http_server::IDLE)),
        key("resume", Flag(true)),
        key("relay", Flag(false)),
        key("control_prefix", Text("the beginning of a name")).or(|| server::CONTROL_PREFIX.to_owned()),
    ]];
    MQTT = "`mqtt`": [&[
        key("url", Text("mqtt://… or mqtts://…")).required(),
        key("version", Words(&["5", "3.1.1"])),
        key("client_id", Text("a name")).unset(),
        key("keep_alive", Duration(&mqtt::KEEP_ALIVE)),
        key("timeout", Duration(&redis::TIME)),
        key("tls", Shape::Section(REDIS_TLS)).unset(),
    ]];
    DEFAULTS = "`defaults`": [POLICIES, &[key("replay", Shape::Section(DEFAULT_REPLAY))]];
    ROUTE = "a route": [&[
        key("path", Text("a path such as /events/{room}")).required()
            .doc("What clients ask for. `{NAME}` is a parameter: one segment, or a part of one; `{*NAME}`, of a route with `proxy`, any rest."),
        key("host", Text("a host name")).unset(),
        key("from", Shape::Sections(FROM)).unset(),
        key("multi", Shape::Section(MULTI)).unset(),
        key("params", Named("parameters of the path", &Text("a regular expression"))).unset(),
        key("event", Text("a name, with fields in braces")).unset(),
        key("data", Either(&[Text("a field such as \"{field.payload}\""), Shape::Section(DATA)])).unset(),
        key("tombstone", Either(&[Words(&["skip"]), Shape::Section(TOMBSTONE)])),
        key("allow", Text("an expression in CEL")).unset(),
        key("ended", Flag(false)),
        key("proxy", Either(&[Text("the URL of an application"), Shape::Section(PROXY)])).unset(),
        key("filter", Text("an expression in CEL")).unset(),
        key("wrap", Words(&["none", "envelope", "cloudevents"])),
        key("decode", Either(&[Words(&["text", "json", "msgpack"]), Shape::Section(DECODE)])),
        key("conflate", Shape::Section(CONFLATE)).unset(),
        key("snapshot", Either(&[Flag(false), Shape::Section(SNAPSHOT)])),
        key("sample", Either(&[Text("a percentage such as 10%"), Shape::Section(SAMPLE)])).unset(),
        key("rate", Shape::Section(EVENT_RATE)).unset(),
    ], POLICIES, &[key("replay", Shape::Section(REPLAY))]] one of ["from", "multi", "proxy"];
    DATA = "`data`": [&[
        key("field", Text("the name of a field")).unset().doc("The field of an entry that is meant; without it all are, as one JSON object of strings. For streams alone."),
        key("keep", OneOrMore(&FIELD_PATH)).unset().doc("The fields of a payload in JSON that are sent, in this order; of lists, of each of their values."),
        key("drop", OneOrMore(&FIELD_PATH)).unset().doc("The fields that are not sent."),
        key("map", Text("an expression in CEL")).unset().doc("An expression in CEL, of which the value is sent as JSON."),
    ]];
    MULTI = "`multi`": [&[
        key("of", OneOrMore(&Text("the path of a route of this file"))).required(),
        key("max", Count(&multi::MAX)),
        key("tell", Words(&["event", "envelope"])),
    ]];
    PROXY = "`proxy`": [&[
        key("to", URL).required(),
        key("connections", Count(&proxy::CONNECTIONS)),
        key("connect_timeout", Duration(&proxy::CONNECT_TIMEOUT)),
        key("timeout", Duration(&proxy::TIMEOUT)),
        key("tunnel_timeout", Duration(&proxy::TUNNEL_TIMEOUT)),
    ]];
    TOMBSTONE = "`tombstone`": [&[
        key("event", Text("a name, with fields in braces")).required().doc("What such events are called; their data is the key."),
    ]];
    FROM = "`from`": [&[
        key("upstream", Text("the name of an upstream")).required().doc("One of `upstreams`."),
        key("channel", NAME).unset().doc("A channel of Redis, of Postgres (NOTIFY), or of a `push` upstream."),
        key("pattern", NAME).unset().doc("The channels of Redis that match this, as for PSUBSCRIBE."),
        key("shard_channel", NAME).unset().doc("A shard channel of Redis 7, as for SSUBSCRIBE."),
        key("stream", NAME).unset().doc("A Redis stream, or a stream of RabbitMQ."),
        key("topic", NAME).unset().doc("A topic of Kafka, or a topic filter of MQTT."),
        key("path", NAME).unset().doc("A path of an HTTP server, below its URL; parameters in it are percent-encoded."),
        key("key", NAME).unset().doc("Of a `topic`, the records of this key alone."),
        key("partitioner", Words(&["murmur2", "crc32", "any"]))
            .doc("How producers choose the partition of a `key`: murmur2 as Kafka's own clients, crc32 as librdkafka, or any."),
        key("start", Either(&[Words(&["latest", "earliest"]), Shape::Section(START)]))
            .doc("Where a client without an id begins: latest, earliest, or some time back. For topics, streams, JetStream and tables; for lines latest or earliest, which is the oldest in memory."),
        key("table", Text("the name of a table")).unset().doc("A table of Postgres, as NAME or SCHEMA.NAME."),
        key("columns", Shape::Section(COLUMNS)).doc("What the columns of a `table` mean."),
        key("where", Named("columns", &NAME)).unset().doc("Of a `table`, the rows whose columns have these values, compared as text."),
        key("notify", Text("the name of a channel")).unset().doc("A channel on which is told (NOTIFY) that a `table` has new rows."),
        key("every", Duration(&table::EVERY)).doc("How often a `table` is looked at without being told."),
        key("exchange", NAME).unset().doc("An exchange of RabbitMQ, which must be there."),
        key("routing_key", NAME).unset().doc("By what a queue is bound to an `exchange`; of a topic exchange a pattern."),
        key("arguments", Named("headers", &NAME)).unset().doc("The same for an `exchange` of the kind headers, with x-match."),
        key("subject", NAME).unset().doc("A subject of NATS, wildcards included; beside `jetstream`, which part of the stream."),
        key("jetstream", Text("the name of a stream")).unset().doc("A stream of NATS's JetStream."),
        key("qos", Words(&["0", "1"])).doc("How surely an MQTT broker hands messages over: 0 at most once, 1 at least once."),
    ]];
    COLUMNS = "`columns`": [&[
        key("id", COLUMN).or(|| table::ID.to_owned()).doc("Whole numbers that a sequence gives; the event ids."),
        key("data", COLUMN).or(|| table::DATA.to_owned()).doc("What is sent; a row in which it is NULL makes no event."),
        key("event", COLUMN).unset().doc("The names of events, which go before the route's `event`."),
        key("key", COLUMN).unset().doc("What a row is about: {key} in `event`."),
        key("time", COLUMN).unset().doc("When a row was added; `start: { since }`, ?since= and replay.max_age need it."),
    ]];
    START = "`start`": [&[key("since", Duration(&from::SINCE)).required().doc("How far back a client without an id begins.")]];
    HISTORY = "`history`": [&[
        key("events", Count(&policies::EVENTS)),
        key("bytes", Size(&policies::BYTES)),
        key("age", Duration(&policies::AGE)),
    ]];
    REPLAY = "`replay`": [REPLAYED];
    DEFAULT_REPLAY = "`replay`": [REPLAYED, &[key("concurrency", Count(&policies::CONCURRENCY))]];
    CORS = "`cors`": [&[
        key("origins", OneOrMore(&Either(&[Text("an origin, or \"*\""), Shape::Section(ORIGIN)]))).required(),
        key("credentials", Flag(false)),
    ]];
    ORIGIN = "an origin": [&[key("regex", Text("a regular expression")).required().doc("What an origin must match as a whole.")]];
    COMPRESS = "`compress`": [&[
        key("codings", CODINGS).or(|| "[zstd, gzip]".to_owned()),
        key("level", Count(&compress::LEVEL)),
        key("min_length", Size(&compress::MIN_LENGTH)),
    ]];
    ROUTE_LIMITS = "`limits`": [&[
        key("streams", LIMIT),
        key("streams_per_client", LIMIT),
        key("feeds", Count(&limits::FEEDS)),
    ]];
    CONFLATE = "`conflate`": [&[
        key("by", BY).required().doc("The key of a record: `key`, which is its own, or the channel, subject or topic of what is read by wildcards; or a field of it in braces."),
        key("every", Duration(&digest::EVERY)).required().doc("How long a window is."),
    ]];
    SNAPSHOT = "`snapshot`": [&[
        key("by", BY).or(|| "key".to_owned()),
        key("max_keys", Count(&digest::MAX_KEYS)),
        key("max_bytes", Size(&digest::MAX_BYTES)),
    ]];
    SAMPLE = "`sample`": [&[key("every", Count(&digest::ONE_IN)).required().doc("Of how many one is kept.")]];
    EVENT_RATE = "`rate`": [&[
        key("events", Count(&digest::EVENTS)).required().doc("How many events one client is sent at most."),
        key("every", Duration(&digest::RATE_EVERY)).required().doc("In which time."),
    ]];
    DECODE = "`decode`": [&[
        key("avro", Shape::Section(AVRO)).unset().doc("Payloads are Avro, by a schema of a file, and sent as JSON."),
        key("protobuf", Shape::Section(PROTOBUF)).unset().doc("Payloads are Protobuf, by the description of a file, and sent as JSON."),
        key("registry", Text("the name of one of `schema_registries`")).unset()
            .doc("Payloads begin with the id of a schema, as Confluent's serializers write it, and are sent as JSON."),
    ]] one of ["avro", "protobuf", "registry"];
    AVRO = "`avro`": [&[
        key("schema", OneOrMore(&PATH)).required().doc("The schema in JSON; of a list the first, and the others are what it names."),
    ]];
    PROTOBUF = "`protobuf`": [&[
        key("file", PATH).required().doc("A .proto, or what `protoc --include_imports --descriptor_set_out` writes of one."),
        key("message", Text("a name such as shop.Order")).required().doc("The message, with its package."),
        key("include", OneOrMore(&Text("the path of a folder"))).unset()
            .doc("Folders in which imports are looked for, and the file itself is. Default: the one that it is in."),
    ]];
    REGISTRY = "a schema registry": [&[
        key("url", URL).required(),
        key("auth", Shape::Section(REGISTRY_AUTH)).unset(),
        key("tls", Shape::Section(REDIS_TLS)).unset(),
        key("cache", Count(&registries::CACHE)),
        key("timeout", Duration(&registries::TIMEOUT)),
    ]];
    REGISTRY_AUTH = "`auth`": [&[
        key("user", Text("the name of a user")).unset().doc("The user of HTTP Basic, or the key of an API."),
        key("password", SECRET).unset().doc("The password, or the secret of that key."),
        key("token", SECRET).unset().doc("A bearer token, instead of the two."),
    ]];
}

/// What servers that are read over HTTP have in common.
const HTTP_SERVER: &[Key] = &[
    key("url", URL).required(),
    key("headers", Named("header fields", &SECRET)).unset(),
    key("bearer", SECRET).unset(),
    key("tls", Shape::Section(REDIS_TLS)).unset(),
    key("connections", Count(&http_server::CONNECTIONS)),
    key("timeout", Duration(&http_server::TIMEOUT)),
];

/// What `defaults` and each route can set, but for `replay`.
const POLICIES: &[Key] = &[
    key("keepalive", Duration(&policies::KEEPALIVE)),
    key("retry", Duration(&policies::RETRY)),
    key("linger", Duration(&policies::LINGER)),
    key("buffer", Size(&policies::BUFFER)),
    key("history", Shape::Section(HISTORY)),
    key("idle_timeout", Duration(&policies::IDLE_TIMEOUT)),
    key("on_lag", Words(&["replay", "gap", "disconnect"])),
    key("binary", Words(&["gap", "base64"])),
    key("cors", Either(&[Words(&["none"]), Shape::Section(CORS)])),
    key("compress", Either(&[Words(&["none"]), CODINGS, Shape::Section(COMPRESS)])),
    key("limits", Shape::Section(ROUTE_LIMITS)),
    key("auth", Either(&[Words(&["none"]), OneOrMore(&PROVIDER)])),
    key("expiring", Duration(&policies::EXPIRING)),
    key("max_age", Either(&[Words(&["none"]), Duration(&policies::MAX_STREAM_AGE)])),
    key("max_event", Size(&limits::MAX_EVENT)).unset(),
];

const REPLAYED: &[Key] = &[
    key("max_events", Count(&policies::MAX_EVENTS)),
    key("max_age", Duration(&policies::MAX_AGE)),
    key("max_bytes", Size(&policies::MAX_BYTES)),
    key("timeout", Duration(&policies::TIMEOUT)),
];

const CERTIFICATE: &[Key] = &[
    key("cert", PEM).unset(),
    key("key", PEM).unset().doc("PEM file of the private key of the certificate in `cert`."),
];

const LIMIT: Shape = Either(&[Words(&["none"]), Count(&limits::COUNT)]);
const CODINGS: Shape = OneOrMore(&Words(&["zstd", "gzip"]));
const ADDRESS: Shape = Text("an address and port such as 0.0.0.0:8443");
const PATH: Shape = Text("the path of a file");
const PEM: Shape = Text("the path of a PEM file");
const URL: Shape = Text("a URL");
const HEADER: Shape = Text("the name of a header field");
const SECRET: Shape = Text("a secret, or \"file:PATH\"");
const PROVIDER: Shape = Text("the name of a provider");
const BY: Shape = Text("`key`, or a field in braces");
const FIELD_PATH: Shape = Text("the path of a field, such as customer.name");
const COLUMN: Shape = Text("the name of a column");
const NAME: Shape = Text("a name, with parameters of the path in braces");

/// Every key with its path: `*` is any name, `[]` any entry of a list.
pub(super) fn all() -> Vec<(String, &'static Key)> {
    let mut all = Vec::new();
    visit(ROOT, "", &mut |path, key| all.push((path.to_owned(), key)));
    all
}
