//! `server.tls.tickets`: keys that replicas share, so that a TLS session begun at one is resumed at any. Never shows a
//! key.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::fields::Fields;
use super::identity::WatchedFile;
use super::keys;
use super::tree::Node;
use super::walk::Walk;

/// `tickets: { keys }`
#[derive(Debug, Clone)]
pub struct Tickets {
    /// The file of the keys.
    pub file: WatchedFile,
    /// What it held.
    pub keys: TicketKeys,
}

/// Secrets that tickets are encrypted with: at least one, the first for new tickets, all for those that come back.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketKeys(Vec<Vec<u8>>);

impl TicketKeys {
    /// Of a file with a secret a line, in base64 or hexadecimal; empty lines and those that begin with `#` are passed
    /// over.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|_| {
            "this file is not text; write a key a line, for example with `openssl rand -base64 48`".to_owned()
        })?;
        let lines = text.lines().map(str::trim).enumerate();
        let keys = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let keys: Vec<Vec<u8>> = keys
            .map(|(at, line)| read_key(line).ok_or_else(|| format!("line {} of this file {WRONG}", at + 1)))
            .collect::<Result<_, _>>()?;
        match keys.len() {
            0 => {
                Err("this file holds no key; write one, for example with `openssl rand -base64 48`"
                    .to_owned())
            }
            1..=MOST => Ok(Self(keys)),
            many => Err(format!("this file holds {many} keys; {MOST} are the most that are tried")),
        }
    }

    /// The secrets, each at least 32 bytes.
    pub fn expose(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(Vec::as_slice)
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} secrets]", self.0.len())
    }
}

/// Reads `tickets`.
pub(super) fn read(walk: &Walk<'_>, node: &Node) -> Option<Tickets> {
    let fields = Fields::open(walk, node, keys::TLS_TICKETS)?;
    let node = fields.required("keys", "it names a file of keys that all replicas have")?;
    let (file, content) = walk.watched(node, "the path of a file of ticket keys")?;
    let keys = TicketKeys::parse(&content).map_err(|what| walk.problem(node.span, what)).ok()?;
    Some(Tickets { file, keys })
}

/// Hexadecimal is looked for first: 64 of its digits are base64, too.
fn read_key(line: &str) -> Option<Vec<u8>> {
    let hex = line.len().is_multiple_of(2) && line.bytes().all(|byte| byte.is_ascii_hexdigit());
    let key = match hex {
        true => (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).ok()).collect(),
        false => STANDARD.decode(line).ok(),
    };
    key.filter(|key: &Vec<u8>| key.len() >= SHORTEST)
}

const SHORTEST: usize = 32;
const MOST: usize = 16;
const WRONG: &str = "is not a key; a key is 32 bytes or more in base64 or hexadecimal";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_file() {
        let hex = "0123456789abcdef".repeat(4);
        let base64 = STANDARD.encode([7; 48]);
        let keys = TicketKeys::parse(format!("# newest first\n\n  {base64}\r\n{hex}\n").as_bytes()).unwrap();
        assert_eq!(keys.expose().map(<[u8]>::len).collect::<Vec<_>>(), [48, 32]);
        assert_eq!(format!("{keys:?}"), "[2 secrets]");
    }

    #[test]
    fn files_that_hold_none() {
        let wrong = |text: &[u8]| TicketKeys::parse(text).unwrap_err();
        assert!(wrong(b"# nothing\n").contains("holds no key"));
        assert!(wrong(&[0xff; 80]).contains("is not text"));
        for short in ["secret", "c2VjcmV0", &"ab".repeat(31), &STANDARD.encode([1; 31])] {
            let found = wrong(format!("\n{short}\n").as_bytes());
            assert!(found.contains("line 2 of this file is not a key") && !found.contains(short), "{found}");
        }
        let many = format!("{}\n", STANDARD.encode([1; 32])).repeat(MOST + 1);
        assert!(wrong(many.as_bytes()).contains("17 keys; 16 are the most"));
    }
}
