//! Writing values as JSON, those of a payload as they stand in it.

use super::fault::Fault;
use super::value::Value;

/// Appends `value` to `out`, which may have so many bytes at most.
///
/// # Errors
/// It has no form in JSON, or is too large.
pub fn write(value: &Value<'_>, out: &mut Vec<u8>, most: usize) -> Result<(), Fault> {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(truth) => out.extend_from_slice(if *truth { b"true" } else { b"false" }),
        Value::Int(whole) => plain(out, whole),
        Value::UInt(whole) => plain(out, whole),
        Value::Double(double) if double.is_finite() => plain(out, double),
        Value::Double(_) => return Err(Fault::NoNumber),
        Value::Text(text) => write_text(text, out),
        Value::Json(json) => out.extend_from_slice(json.raw().as_bytes()),
        Value::List(items) => {
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write(item, out, most)?;
            }
            out.push(b']');
        }
        Value::Map(members) => {
            out.push(b'{');
            for (at, (name, value)) in members.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_text(name, out);
                out.push(b':');
                write(value, out, most)?;
            }
            out.push(b'}');
        }
        // What is known already is for filters alone, whose values nobody writes.
        Value::Kept(_) => return Err(Fault::Type),
    }
    if out.len() > most { Err(Fault::TooLarge) } else { Ok(()) }
}

/// Appends a text with its quotes.
pub fn write_text(text: &str, out: &mut Vec<u8>) {
    plain(out, text);
}

fn plain<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("numbers and texts are JSON, and memory takes them");
}
