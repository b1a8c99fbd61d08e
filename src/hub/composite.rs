//! The id of several feeds: in one text the ids of all of them, each under the name of its feed, so that a client that comes
//! back goes on in every one, and may ask for others than before. Opaque to clients, as every id.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use super::cursor::Wish;
use super::walk::NOWHERE;
use crate::config::composite::{LONGEST, PREFIX, TAG};

/// What several feeds are asked for by a client that has one wish for all of them.
pub struct Wishes {
    id: Asked,
    /// What else it wishes of each.
    wish: Wish,
}

enum Asked {
    Nothing,
    /// To go on after these.
    After(Composite),
    /// An id that is none of several feeds.
    Unknown,
}

impl Wishes {
    /// Of a client that wishes this.
    pub fn new(mut wish: Wish) -> Self {
        let id = match wish.id.take() {
            None => Asked::Nothing,
            Some(id) => Composite::parse(&id).map_or(Asked::Unknown, Asked::After),
        };
        Self { id, wish }
    }

    /// What it wishes of the feed of this label. Where the id is none of several feeds, each of them is asked for that of no
    /// place, and says that it knows no such id.
    pub fn of(&self, label: &str) -> Wish {
        let id = match &self.id {
            Asked::Nothing => None,
            Asked::After(composite) => composite.of(label).map(str::to_owned),
            Asked::Unknown => Some(NOWHERE.to_owned()),
        };
        Wish { id, ..self.wish.clone() }
    }
}

/// An id of several feeds, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Composite(Vec<(Tag, String)>);

impl Composite {
    /// What `id` says, if it is one.
    pub fn parse(id: &str) -> Option<Self> {
        if id.len() > LONGEST {
            return None;
        }
        let parts = id.strip_prefix(PREFIX)?.strip_prefix(MARK)?.split(MARK);
        let part = |part: &str| {
            let (tag, id) = part.split_at_checked(TAG)?;
            Some((Tag::parse(tag)?, unescaped(id)?))
        };
        parts.map(part).collect::<Option<_>>().map(Self)
    }

    /// The id of the feed of this label, if it has one.
    pub fn of(&self, label: &str) -> Option<&str> {
        let tag = Tag::of(label);
        self.0.iter().find(|(own, _)| *own == tag).map(|(_, id)| &**id)
    }
}

/// The name of a feed within ids: 72 bits of its label's SHA-256, so that nobody who may name a feed can name one that is taken
/// for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag([u8; TAG]);

impl Tag {
    /// Of the feed of this label.
    pub fn of(label: &str) -> Self {
        let mut tag = [0; TAG];
        let hash = digest(&SHA256, label.as_bytes());
        let written = BASE64.encode_slice(&hash.as_ref()[..TAG * 3 / 4], &mut tag);
        debug_assert_eq!(written, Ok(TAG), "four signs say three bytes");
        Self(tag)
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; TAG] = text.as_bytes().try_into().ok()?;
        let sound = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        bytes.iter().all(sound).then_some(Self(bytes))
    }

    /// Appends what an id has of this feed, which stands at `id`: nothing where that is empty, as clients have no empty ids.
    pub fn write(self, id: &[u8], out: &mut String) {
        if id.is_empty() {
            return;
        }
        out.push(MARK);
        out.extend(self.0.map(char::from));
        for &byte in id {
            match is_plain(byte) {
                true => out.push(char::from(byte)),
                false => write!(out, "{ESCAPE}{byte:02X}").expect("writing to memory cannot fail"),
            }
        }
    }
}

/// The text of `escaped`; `None` where nobody has ever written it.
fn unescaped(escaped: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(escaped.len()), escaped.as_bytes());
    while let [first, after @ ..] = rest {
        rest = after;
        if is_plain(*first) {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2).filter(|_| *first == ESCAPE as u8)?;
        // A sign would be taken for a part of the number.
        let digits = digits.iter().all(u8::is_ascii_hexdigit).then_some(digits)?;
        bytes.push(u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    let text = String::from_utf8(bytes).ok()?;
    (!text.is_empty() && !text.contains(['\0', '\r', '\n'])).then_some(text)
}

/// Whether a byte of an id stands for itself: it is visible ASCII, and none of the two signs that mean something.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != MARK as u8 && byte != ESCAPE as u8
}

/// What each part begins with.
const MARK: char = '~';
/// What a byte begins with that stands in base 16.
const ESCAPE: char = '%';

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::composite::longest;

    fn composite(parts: &[(&str, &str)]) -> String {
        let mut id = PREFIX.to_owned();
        parts.iter().for_each(|(label, own)| Tag::of(label).write(own.as_bytes(), &mut id));
        id
    }

    /// It stands in ids that clients keep.
    #[test]
    fn ids_stay_what_they_are() {
        let id = composite(&[("/rooms/a", "0a-7"), ("/rooms/ä", "~%\u{e9} x"), ("/none", "")]);
        assert_eq!(id, "m1~IdawAKBUqEIn0a-7~_ggMz-zmBmN-%7E%25%C3%A9%20x");
    }

    #[test]
    fn each_feed_finds_its_own_and_no_other() {
        let inner = composite(&[("a", "1-0"), ("b", "2-0")]);
        let id = composite(&[("/list", &inner), ("/news", "17")]);
        let parsed = Composite::parse(&id).unwrap();
        assert_eq!(
            (parsed.of("/list"), parsed.of("/news"), parsed.of("/new")),
            (Some(&*inner), Some("17"), None)
        );
        assert_eq!(Composite::parse(&inner).unwrap().of("b"), Some("2-0"));
    }

    #[test]
    fn what_is_none_of_several_feeds_is_unknown_to_each() {
        let wish = |id: Option<&str>| {
            Wishes::new(Wish { id: id.map(str::to_owned), ..Wish::default() }).of("/news").id
        };
        assert_eq!(wish(None), None);
        let id = composite(&[("/news", "17")]);
        assert_eq!(wish(Some(&id)), Some("17".into()));
        assert_eq!(wish(Some(&composite(&[("/rooms/a", "1")]))), None, "begins as its route says");
        let tag = &id[PREFIX.len() + 1..][..TAG];
        for foreign in [
            "".into(),
            "17".into(),
            "m1".into(),
            "m1~".into(),
            format!("m1{tag}17"),
            format!("m2~{tag}17"),
            format!("m1~{tag}"),
            format!("m1~{tag}17~"),
            format!("m1~{tag}%"),
            format!("m1~{tag}%4"),
            format!("m1~{tag}%+4"),
            format!("m1~{tag}%ff"),
            format!("m1~{tag}%0A"),
            format!("m1~{tag}%00"),
            format!("m1~{tag}a b"),
            format!("m1~{tag}é"),
            format!("m1~{}é17", &tag[1..]),
            format!("m1~{}+17", &tag[1..]),
            format!("m1~{tag}{}", "x".repeat(LONGEST)),
        ] {
            assert_eq!(wish(Some(&foreign)).as_deref(), Some(NOWHERE), "{foreign}");
        }
    }

    #[test]
    fn the_longest_is_as_long_as_the_configuration_has_it() {
        let ids = ["x".repeat(41), "y".repeat(37), "z".repeat(9)];
        let all: Vec<_> = ["a", "b", "c"].into_iter().zip(&ids).map(|(label, id)| (label, &**id)).collect();
        let inner = composite(&all);
        assert_eq!(inner.len(), longest([41, 37, 9].into_iter()));
        assert_eq!(composite(&[("/list", &inner)]).len(), longest([inner.len() + 2 * 3].into_iter()));
    }

    proptest! {
        #[test]
        fn whatever_ids_hold_they_come_back_and_are_safe_in_a_header(
            ids in prop::collection::vec("[^\0\r\n]{0,30}", 1..8),
        ) {
            let labels: Vec<_> = (0..ids.len()).map(|n| format!("/{n}")).collect();
            let parts: Vec<_> = labels.iter().zip(&ids).map(|(label, id)| (&**label, &**id)).collect();
            let id = composite(&parts);
            prop_assert!(id.bytes().all(|byte| byte.is_ascii_graphic()));
            let wishes = Wishes::new(Wish { id: Some(id), ..Wish::default() });
            let any = ids.iter().any(|id| !id.is_empty());
            for (label, id) in parts {
                let expected = if any { Some(id).filter(|id| !id.is_empty()) } else { Some(NOWHERE) };
                let wished = wishes.of(label).id;
                prop_assert_eq!(wished.as_deref(), expected);
            }
        }

        #[test]
        fn garbage_is_no_id_of_several_feeds_or_a_sound_one(garbage in "(m1)?[~%A-Fa-f0-9\\PC]{0,60}") {
            if let Some(Composite(parts)) = Composite::parse(&garbage) {
                let mut id = PREFIX.to_owned();
                parts.iter().for_each(|(tag, own)| tag.write(own.as_bytes(), &mut id));
                prop_assert_eq!(Composite::parse(&id), Some(Composite(parts)));
            }
        }
    }
}
