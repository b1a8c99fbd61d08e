//! The fields of a Redis stream's entry as the payload of an event: all of them as a JSON object, or one alone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};

use crate::config::Binary;

/// Fields and their values, in order. A name may come more than once: the last one counts.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// The value of one field.
pub fn field<'f>(fields: &'f Fields, name: &str) -> Option<&'f [u8]> {
    fields.iter().rev().find(|(own, _)| own == name.as_bytes()).map(|(_, value)| value.as_slice())
}

/// All of them as an object of strings, in the entry's order; with base64 each value is encoded. `None` if there is
/// something that is not UTF-8 and cannot be shown.
pub(super) fn json(fields: &Fields, binary: Binary) -> Option<String> {
    let mut object = Map::new();
    for (name, value) in fields {
        let value = match binary {
            Binary::Base64 => BASE64.encode(value),
            Binary::Gap => str::from_utf8(value).ok()?.to_owned(),
        };
        object.insert(str::from_utf8(name).ok()?.to_owned(), Value::String(value));
    }
    Some(Value::Object(object).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(fields: &[(&str, &[u8])]) -> Fields {
        fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect()
    }

    #[test]
    fn the_order_is_the_entrys_and_the_last_of_a_name_counts() {
        let fields = fields(&[("z", b"1"), ("a", b"\"\n"), ("z", b"2")]);
        assert_eq!(json(&fields, Binary::Gap).unwrap(), r#"{"z":"2","a":"\"\n"}"#);
        assert_eq!((field(&fields, "z"), field(&fields, "x")), (Some(&b"2"[..]), None));
    }

    #[test]
    fn what_is_not_text_is_encoded_or_refused() {
        let binary = fields(&[("a", b"\xff\x00"), ("b", b"text")]);
        assert_eq!(json(&binary, Binary::Gap), None);
        assert_eq!(json(&binary, Binary::Base64).unwrap(), r#"{"a":"/wA=","b":"dGV4dA=="}"#);
        let name = vec![(b"\xff".to_vec(), b"x".to_vec())];
        assert_eq!((json(&name, Binary::Gap), json(&name, Binary::Base64)), (None, None));
    }
}
