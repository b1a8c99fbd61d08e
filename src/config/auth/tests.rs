//! Providers and rules, right and wrong.

use std::time::Duration;

use super::super::testing::{HEAD, expect, sound};
use super::*;

const SECRET: &str = "hunter2-hunter2-hunter2-hunter2-hunter2";

/// A file with these providers from line 2 on, and one route that names some of them.
fn with(providers: &str, route: &str) -> String {
    let rest = HEAD.strip_prefix("server: { tls: none }\n").unwrap();
    format!(
        "auth: {providers}\nserver: {{ tls: none }}\n{rest}  - {{ path: '/x/{{p}}', from: {{ upstream: t }}, {route} }}\n"
    )
}

fn problem(provider: &str, column: usize, text: &str) {
    // The provider's settings begin in column 14.
    expect(&with(&format!("{{ one: {provider} }}"), ""), &[(1, column, text)]);
}

#[test]
fn providers_and_their_defaults() {
    let text = with(
        &format!(
            "{{ users: {{ jwt: {{ secret: {SECRET}, issuer: [a, b] }} }}, tickets: {{ ticket: {{ path: /t, of: users }} }}, app: {{ forward: {{ url: 'http://h/auth' }} }}, certs: {{ client_cert: {{}} }} }}"
        ),
        "auth: [users, tickets], allow: claims.a == params.p",
    );
    let config = sound(&text);
    let kinds: Vec<_> = config.auth.iter().map(|one| (&*one.name, one.kind.as_str())).collect();
    assert_eq!(
        kinds,
        [("users", "jwt"), ("tickets", "ticket"), ("app", "forward"), ("certs", "client_cert")]
    );
    let AuthKind::Jwt(jwt) = &config.auth[0].kind else { panic!() };
    assert_eq!(
        (&*jwt.issuer, jwt.audience.len(), jwt.leeway.as_secs()),
        (&["a".to_owned(), "b".to_owned()][..], 0, 30)
    );
    let AuthKind::Ticket(ticket) = &config.auth[1].kind else { panic!() };
    assert_eq!((&*ticket.path, ticket.ttl.as_secs(), ticket.bind_address), ("/t", 30, false));
    let AuthKind::Forward(forward) = &config.auth[2].kind else { panic!() };
    assert_eq!((forward.cache, forward.timeout), (Duration::from_secs(10), Duration::from_secs(2)));
    assert_eq!((forward.headers.len(), forward.on_error), (2, OnError::Hold));
    let route = &config.routes[0];
    assert_eq!(route.auth.iter().map(|name| &**name).collect::<Vec<_>>(), ["users", "tickets"]);
    assert_eq!(&*route.allow.as_ref().unwrap().text, "claims.a == params.p");
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn defaults_name_providers_and_routes_take_them_back() {
    let text = |route: &str| {
        with("{ app: { forward: { url: 'http://h' } } }", route)
            .replace("routes:", "defaults: { auth: app, max_age: 1h }\nroutes:")
    };
    let route = |keys| sound(&text(keys)).routes.remove(0);
    assert_eq!((route("").auth.len(), route("").max_age.map(|age| age.as_secs())), (1, Some(3_600)));
    assert_eq!((route("auth: none, max_age: none").auth.len(), route("max_age: none").max_age), (0, None));
}

#[test]
fn what_is_wrong_with_a_provider() {
    for (provider, column, text) in [
        ("", 9, "the provider `one` has no kind; give it one of `jwt`"),
        ("{}", 14, "has no kind"),
        ("{ jvt: {} }", 16, "unknown key `jvt` in a provider; did you mean `jwt`?"),
        ("{ client_cert: {}, jwt: {} }", 33, "a provider is of one kind, this one is `client_cert` already"),
        ("{ jwt: {} }", 21, "`jwt` lacks what signatures are checked with"),
        ("{ jwt: { secret: short } }", 31, "this secret is shorter than 32 bytes"),
        ("{ jwt: { jwks: 'ftp://h' } }", 29, "`ftp://h` is not a URL such as"),
        ("{ jwt: { jwks: 'https://u:hunter2@h' } }", 29, "is not a URL such as"),
        ("{ jwt: { keys: abc } }", 29, "this is not a public key in PEM"),
        ("{ jwt: { jwks: 'https://h', keys: abc } }", 42, "signatures are checked with `jwks` already"),
        ("{ jwt: { jwks: 'https://h', leeway: 6m } }", 50, "from 0 to 5m"),
        ("{ jwt: { jwks: 'http://h', ca: /dev/null } }", 41, "`ca` is for `https://`"),
        ("{ jwt: { jwks: 'https://h', ca: /dev/null } }", 46, "this file holds no certificate"),
        ("{ forward: { url: 'http://h', ca: /nowhere } }", 44, "`ca` is for `https://`"),
        ("{ jwt: { jwks: 'https://h', cookie: 'a b' } }", 50, "`a b` is not the name of a cookie"),
        ("{ ticket: { of: [] , path: /t } }", 30, "this list is empty"),
        ("{ ticket: { of: two, path: /t } }", 30, "no provider is called `two`"),
        ("{ ticket: { of: none, path: /t } }", 30, "tickets for everybody protect nothing"),
        ("{ api_key: { keys: { ci: abc } } }", 39, "this is not the SHA-256 of a key"),
        ("{ api_key: { keys: {} } }", 33, "`keys` is empty"),
        ("{ forward: { url: /auth } }", 32, "`/auth` is not a URL"),
        ("{ forward: { url: 'http://h', headers: 'a b' } }", 53, "`a b` is not the name of a header field"),
        (
            "{ forward: { url: 'http://h', on_error: allow } }",
            54,
            "`on_error` cannot be `allow`; write `hold` or `deny`",
        ),
    ] {
        problem(provider, column, text);
    }
    expect(&with("{ none: { client_cert: {} } }", ""), &[(1, 9, "`none` cannot name a provider")]);
    expect(&with("{ 'a b': { client_cert: {} } }", ""), &[(1, 9, "`a b` cannot name a provider")]);
    let tickets = "{ a: { ticket: { path: /t, of: b } }, b: { ticket: { path: /t, of: a } } }";
    expect(
        &with(tickets, ""),
        &[(1, 7, "`/t` is the path of two kinds of tickets"), (1, 7, "`a` gives tickets for `b`")],
    );
}

#[test]
fn routes_name_providers_that_there_are() {
    // the value of `auth` stands in column 52 of line 9.
    let route = |auth: &str| with("{ users: { forward: { url: 'http://h' } } }", &format!("auth: {auth}"));
    expect(&route("user"), &[(9, 52, "no provider is called `user`; did you mean `users`?")]);
    expect(&route("[users, users]"), &[(9, 60, "`users` is listed twice")]);
    expect(&route("[users, none]"), &[(9, 60, "no provider is called `none`")]);
    expect(&with("{}", "auth: users"), &[(9, 52, "`auth` at the top of the file names none")]);
}

#[test]
fn certificates_that_nobody_is_asked_for_let_nobody_in() {
    let providers = "{ certs: { client_cert: {} }, tickets: { ticket: { path: /t, of: certs } } }";
    let text = "`certs` goes by certificates, and clients are not asked for any; add `server.tls.client`";
    expect(&with(providers, "auth: certs"), &[(1, 72, text), (9, 52, text)]);
    sound(&with("{ certs: { client_cert: {} } }", ""));
    // What is wrong with the authorities is told, and nothing else.
    let asked =
        with(providers, "auth: certs").replace("tls: none", "tls: { cert: a, key: b, client: { ca: c } }");
    assert!(super::super::testing::problems(&asked).iter().all(|(line, ..)| *line == 2));
}

#[test]
fn no_route_stands_where_tickets_are_asked_for() {
    let tickets = "{ app: { forward: { url: 'http://h' } }, tickets: { ticket: { path: /t, of: app } } }";
    let taken = "tickets are asked for at this path, on every host, so that nothing would reach the route";
    for route in [
        "{ path: /t, from: { upstream: t } }",
        "{ path: /t, host: a.example, from: { upstream: t } }",
        "{ path: /t, proxy: 'http://a' }",
    ] {
        let text = with(tickets, "") + "  - " + route + "\n";
        expect(&text, &[(10, 13, taken)]);
        let drawn = super::super::parse("c.yaml", &text, &|_| None).unwrap_err().to_string();
        assert!(drawn.contains("::: c.yaml:1:75\n"), "{drawn}");
    }
    // It is one of many that the route has.
    for route in ["{ path: '/{x}', from: { upstream: t } }", "{ path: '/{*rest}', proxy: 'http://a' }"] {
        sound(&(with(tickets, "") + "  - " + route + "\n"));
    }
}

#[test]
fn a_page_of_another_origin_can_come_back() {
    let tickets = "{ app: { forward: { url: 'http://h' } }, tickets: { ticket: { path: /t, of: app } } }";
    let text = "`tickets` leaves a cookie to come back with, which pages of other origins cannot send";
    for cors in ["{ origins: 'https://a' }", "{ origins: '*' }"] {
        expect(&with(tickets, &format!("auth: tickets, cors: {cors}")), &[(9, 61, text)]);
        let defaults = with(tickets, "auth: tickets")
            .replace("routes:", &format!("defaults: {{ cors: {cors} }}\nroutes:"));
        expect(&defaults, &[(10, 46, text)]);
        sound(&with(tickets, &format!("auth: app, cors: {cors}")));
    }
    sound(&with(tickets, "auth: tickets"));
    sound(&with(tickets, "auth: tickets, cors: { origins: 'https://a', credentials: true }"));
}

#[test]
fn rules_are_compiled_and_know_their_words() {
    let rule = |allow: &str| with("{}", &format!("allow: \"{allow}\""));
    for sound_rule in [
        "claims.tenant == params.p",
        "'admin' in claims.roles || query.a == headers['x-a']",
        "claims.roles.exists(role, role == 'a' && role.size() > 0)",
        "client.address.startsWith('10.') && has(client.certificate)",
        "true",
    ] {
        sound(&rule(sound_rule));
    }
    for (wrong, column, text) in [
        ("claims.a ==", 65, "this is not an expression in CEL"),
        ("claims.a = 1", 63, "this is not an expression in CEL"),
        ("claim.a == 1", 54, "a rule knows nothing called `claim`; did you mean `claims`?"),
        ("claims.a == parms.p", 66, "a rule knows nothing called `parms`; did you mean `params`?"),
        (&format!("1{} > 0", "+1".repeat(600)), 53, "this rule is longer than 1024 bytes"),
    ] {
        let found = super::super::testing::problems(&rule(wrong));
        assert_eq!((found[0].0, found[0].1), (9, column), "{wrong}: {found:?}");
        assert!(found[0].2.contains(text), "{wrong}: {found:?}");
    }
}

/// What a variable or a file holds may be a secret.
#[test]
fn rules_show_as_they_stand_in_the_file() {
    let file = std::env::temp_dir().join(format!("ssegate-rule-{}", std::process::id()));
    std::fs::write(&file, "query.k == 'hunter2'\n").unwrap();
    for (rule, shown) in [
        ("query.k == '${HIDDEN}'".to_owned(), "query.k == '${HIDDEN}'".to_owned()),
        (format!("file:{}", file.display()), format!("file:{}", file.display())),
    ] {
        let config = sound(&with("{}", &format!("allow: \"{rule}\"")));
        assert!(super::super::summary(&config).contains(&format!("allow {shown}")));
        let all = format!("{config:?}{}", super::super::summary(&config));
        assert!(!all.contains("s3cr3t") && !all.contains("hunter2"), "{all}");
    }
    std::fs::remove_file(&file).unwrap();
    expect(&with("{}", "allow: \"${HIDDEN}\""), &[(9, 53, "this rule names what none knows")]);
}

#[test]
fn what_routes_read_of_a_request() {
    let config = sound(&with(
        &format!(
            "{{ users: {{ jwt: {{ secret: {SECRET}, cookie: s }} }}, tickets: {{ ticket: {{ path: /t, of: keys }} }}, keys: {{ api_key: {{ header: x-key, keys: {{ a: 'sha256:{}' }} }} }}, app: {{ forward: {{ url: 'http://h', headers: [x-a, cookie] }} }} }}",
            "0".repeat(64)
        ),
        "",
    ));
    let reads = |names: &[&str], rule: &str| {
        let names: Vec<Arc<str>> = names.iter().map(|name| (*name).into()).collect();
        let rule = Rule::new(cel::Program::compile(rule).unwrap(), rule);
        let reads = Reads::of(&config.auth, &names, Some(&rule));
        (
            reads.headers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            reads.any_header,
            reads.query,
        )
    };
    assert_eq!(reads(&["users"], "true"), ("authorization cookie".into(), false, false));
    assert_eq!(reads(&["users"], "headers.a == query.b"), ("authorization cookie".into(), true, true));
    assert_eq!(reads(&["tickets"], "claims.a"), ("cookie x-key".into(), false, true));
    assert_eq!(reads(&["keys", "app"], "true"), ("x-key x-a cookie".into(), false, true));
    assert_eq!(reads(&[], "client.address == 'a'"), (String::new(), false, false));
}

#[test]
fn the_deny_list_is_looked_at() {
    let folder = std::env::temp_dir().join(format!("ssegate-deny-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("deny");
    let text = with("{}", "").replacen("auth: {}", &format!("deny: {}", file.display()), 1);
    expect(&text, &[(1, 7, "No such file")]);
    std::fs::write(&file, "sub:alice\nalice\n").unwrap();
    expect(&text, &[(1, 7, "line 2 of this file says nothing")]);
    std::fs::write(&file, "sub:alice\n").unwrap();
    let deny = sound(&text).deny.unwrap();
    assert_eq!((&*deny.file.path, deny.list.len()), (&*file, 1));
    std::fs::write(&file, b"sub:\xff\n").unwrap();
    expect(&text, &[(1, 7, "this file is not UTF-8 text")]);
    std::fs::remove_dir_all(&folder).unwrap();
}
