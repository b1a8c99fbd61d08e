//! Properties of librdkafka that name a file. It would open them when it connects, where nobody looks; here they are
//! tried at once, and their paths start at the configuration file's folder, as all others do.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use super::tree::Node;
use super::walk::Walk;

/// Whether the value of this property is the path of a file.
pub(super) fn is_path(property: &str) -> bool {
    FILES.contains(&property)
}

/// Reads the path of a file that is there and can be read.
pub(super) fn read(walk: &Walk<'_>, node: &Node, property: &str) -> Option<String> {
    let (scalar, path) = walk.path(node, "the path of a file")?;
    if property == CA && scalar.text == PROBE {
        return Some(PROBE.to_owned());
    }
    let tried = if property == CA && path.is_dir() { fs::read_dir(&path).map(drop) } else { try_file(&path) };
    if let Err(error) = tried {
        walk.unreadable(&scalar, &path, &error.to_string());
        return None;
    }
    // What librdkafka takes is text; of a path that was text, only the folder before it can be none.
    let text = path.to_str().map(str::to_owned);
    if text.is_none() {
        walk.unreadable(&scalar, &path, "the path is not UTF-8");
    }
    text
}

fn try_file(path: &Path) -> io::Result<()> {
    File::open(path)?.read(&mut [0]).map(drop)
}

const FILES: &[&str] =
    &[CA, "ssl.certificate.location", "ssl.key.location", "ssl.keystore.location", "ssl.crl.location"];

/// A file, a directory, or the word that leaves it to librdkafka to look where systems keep theirs.
const CA: &str = "ssl.ca.location";
const PROBE: &str = "probe";

#[cfg(test)]
mod tests {
    use crate::config::UpstreamKind;
    use crate::config::testing::{expect, sound};

    fn with(property: &str) -> String {
        format!(
            "server: {{ tls: none }}\nupstreams:\n  k:\n    kafka:\n      brokers: a:1\n      properties:\n        {property}\nroutes: [{{ path: /k, from: {{ upstream: k, topic: t }} }}]\n"
        )
    }

    #[test]
    fn files_that_are_there() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        for (property, value) in [
            ("ssl.ca.location", file),
            ("ssl.ca.location", env!("CARGO_MANIFEST_DIR")),
            ("ssl.ca.location", "probe"),
            ("ssl.key.location", file),
        ] {
            let mut config = sound(&with(&format!("{property}: {value}")));
            let UpstreamKind::Kafka(kafka) = config.upstreams.remove(0).kind else { panic!("{property}") };
            assert_eq!(kafka.properties[property].expose(), value);
        }
    }

    #[test]
    fn files_that_are_not() {
        for (property, column, text) in [
            ("ssl.ca.location: /no/ca.pem", 26, "cannot read `/no/ca.pem`: No such file or directory"),
            ("ssl.key.location: no.key", 27, "cannot read `no.key`: No such file"),
            ("ssl.certificate.location: /", 35, "cannot read `/`: Is a directory"),
            ("ssl.crl.location: probe", 27, "cannot read `probe`"),
            ("ssl.keystore.location: ${HIDDEN}", 32, "cannot read `${HIDDEN}`: No such file"),
            ("ssl.ca.location: file:/etc/passwd", 26, "this is the path of a file already; remove `file:`"),
            ("ssl.ca.location: ''", 26, "this is not a path; write the path of a file"),
            ("ssl.ca.location: [a]", 26, "expected the path of a file, found a list"),
        ] {
            expect(&with(property), &[(7, column, text)]);
        }
    }
}
