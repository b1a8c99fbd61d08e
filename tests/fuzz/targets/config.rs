//! Whatever the text of a configuration: it can be served, or there is a list of what is wrong with it, in which each
//! problem has a place within the file, and which holds no secret and nothing that could steer a terminal.

use ssegate::config::{Config, Problems, parse, summary};
use ssegate::http::Router;
use ssegate::metrics::Metrics;

/// Takes the text of a file.
pub fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    // Values name files, which are read: not those that never end, or wait for somebody to write.
    if text.contains("/dev") || text.contains("/proc") {
        return;
    }
    match (parse(FILE, &text, &env), parse(FILE, &text, &env)) {
        (Ok(config), Ok(_)) => can_be_served(&config),
        (Err(problems), Err(again)) => {
            assert_eq!(problems.to_string(), again.to_string(), "the same text has the same problems");
            are_told(&problems, &text);
        }
        (one, other) => panic!("once {one:?}, and then {other:?}"),
    }
}

fn can_be_served(config: &Config) {
    assert!(!summary(config).is_empty());
    let router = Router::new(config, &Metrics::new(), 0);
    assert_eq!(router.routes().len(), config.routes.len());
    assert!(!config.routes.is_empty() || !config.proxies.is_empty(), "it serves something");
}

fn are_told(problems: &Problems, text: &str) {
    let told = problems.to_string();
    assert!(told.chars().all(|c| c == '\n' || !c.is_control()), "{told:?}");
    // Told by accident is what stands there in the open as well.
    assert!(text.contains(FROM_ENV) || !told.contains(FROM_ENV), "{told}");
    assert!(!keeps_secret(text) || !told.contains(SECRET), "{told}");

    let mut lines = told.lines();
    let last = lines.next_back().unwrap();
    let (mut count, mut in_all) = (0, 0);
    while let Some(line) = lines.next() {
        if let Some(what) = line.strip_prefix("error: ") {
            assert!(!what.is_empty());
            let place = lines.next().unwrap().trim_start();
            let place = place.strip_prefix("--> ").and_then(|place| place.strip_prefix(FILE)).unwrap();
            in_all += usize::from(place.is_empty());
            assert!(place.is_empty() || is_within(place, text), "{told}");
            count += 1;
        } else if let Some(place) = line.trim_start().strip_prefix("::: ") {
            assert!(is_within(place.strip_prefix(FILE).unwrap(), text), "{told}");
        }
    }
    assert!(count > 0 && (in_all == 0 || count == 1), "{told}");
    assert_eq!(last, format!("{count} problem{} in {FILE}", if count == 1 { "" } else { "s" }));
}

/// Whether `:LINE:COLUMN`, both from 1, is a place in the text or its end.
fn is_within(place: &str, text: &str) -> bool {
    let mut numbers = place.split(':').skip(1).map(|number| number.parse::<usize>().unwrap());
    let (line, column) = (numbers.next().unwrap(), numbers.next().unwrap());
    let found = line.checked_sub(1).and_then(|before| text.split('\n').nth(before));
    numbers.next().is_none() && found.is_some_and(|line| (1..=line.chars().count() + 1).contains(&column))
}

/// Whether the secret stands only where it must be known for one: after a key that says so, or in a URL.
fn keeps_secret(text: &str) -> bool {
    text.match_indices(SECRET).all(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + SECRET.len()..]);
        before.ends_with("password: ") || (before.ends_with("://:") && after.starts_with('@'))
    })
}

/// What comes from the environment is a secret, whatever it is for.
fn env(name: &str) -> Option<String> {
    match name {
        "SECRET" => Some(FROM_ENV.repeat(4)),
        "PORT" => Some("7000".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

const FILE: &str = "c.yaml";
const FROM_ENV: &str = "s3cr3t-of-the-environment";
const SECRET: &str = "hunter2";
