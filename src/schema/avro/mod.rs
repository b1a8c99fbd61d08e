//! Avro as JSON, written while it is read. Unions are their values alone; bytes are base64, decimals strings, dates, times
//! and timestamps text as [`super::time`] has it. The library parses schemas; it is not what reads payloads, since it
//! allocates what they claim, follows them to any depth, and takes one that was cut off for one that ends early.

mod plan;

use num_bigint::BigInt;

use self::plan::{At, Node, Plan, Unit};
use super::framing::Uuid;
use super::input::Input;
use super::json::Json;
use super::{DEPTH, Undecoded, time};
use crate::config::AvroSchema;

/// A schema that payloads can be read by.
#[derive(Debug)]
pub struct Avro {
    plan: Plan,
    /// What it was made of, where that is a file.
    file: Option<AvroSchema>,
}

impl Avro {
    /// That of a file.
    pub(super) fn of_file(schema: &AvroSchema) -> Self {
        let plan = Plan::new(&schema.schema, &schema.others).expect("the configuration has every name");
        Self { plan, file: Some(schema.clone()) }
    }

    /// Parses a schema, and those that it names.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(schema: &str, others: &[String]) -> Result<Self, String> {
        let parsed = apache_avro::Schema::parse_str_with_list(schema, others);
        let (schema, others) = parsed.map_err(|error| error.to_string())?;
        Ok(Self { plan: Plan::new(&schema, &others)?, file: None })
    }

    /// One value, which is all of the payload.
    pub(super) fn write(&self, payload: &[u8], out: &mut Json) -> Result<(), Undecoded> {
        let mut reader = Reader { plan: &self.plan, input: Input(payload), out };
        reader.value(self.plan.root, DEPTH)?;
        reader.input.end()
    }
}

/// Schemas of files that say the same are the same.
impl PartialEq for Avro {
    fn eq(&self, other: &Self) -> bool {
        self.file == other.file
    }
}

impl Eq for Avro {}

impl std::hash::Hash for Avro {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.file.hash(state);
    }
}

struct Reader<'p, 'o> {
    plan: &'p Plan,
    input: Input<'p>,
    out: &'o mut Json,
}

type Written = Result<(), Undecoded>;

impl<'p> Reader<'p, '_> {
    fn value(&mut self, at: At, depth: usize) -> Written {
        let depth = depth.checked_sub(1).ok_or(Undecoded::Malformed)?;
        let plan = self.plan;
        match &plan[at] {
            Node::Null => self.out.raw("null"),
            Node::Boolean => match self.input.byte()? {
                0 => self.out.raw("false"),
                1 => self.out.raw("true"),
                _ => Err(Undecoded::Malformed),
            },
            Node::Int => {
                let number = self.int()?;
                self.out.number(number)
            }
            Node::Long => {
                let number = self.input.zigzag()?;
                self.out.number(number)
            }
            Node::Float => {
                let number = f32::from_le_bytes(self.input.array()?);
                self.out.single(number)
            }
            Node::Double => {
                let number = f64::from_le_bytes(self.input.array()?);
                self.out.float(number)
            }
            Node::Bytes => {
                let bytes = self.bytes()?;
                self.out.bytes(bytes)
            }
            Node::String => {
                let len = self.input.len()?;
                let text = self.input.text(len)?;
                self.out.string(text)
            }
            Node::Fixed(size) => {
                let bytes = self.input.take(*size)?;
                self.out.bytes(bytes)
            }
            Node::Enum(symbols) => {
                let symbol = symbols.get(self.input.len()?).ok_or(Undecoded::Malformed)?;
                self.out.raw(symbol)
            }
            Node::Union(variants) => {
                let variant = variants.get(self.input.len()?).ok_or(Undecoded::Malformed)?;
                self.value(*variant, depth)
            }
            Node::Array(items) => self.blocks("[", "]", |reader| reader.value(*items, depth)),
            Node::Map(values) => self.blocks("{", "}", |reader| {
                let len = reader.input.len()?;
                let key = reader.input.text(len)?;
                reader.out.string(key)?;
                reader.out.raw(":")?;
                reader.value(*values, depth)
            }),
            Node::Record(fields) => {
                self.out.raw("{")?;
                for (at, (name, value)) in fields.iter().enumerate() {
                    if at > 0 {
                        self.out.raw(",")?;
                    }
                    self.out.raw(name)?;
                    self.value(*value, depth)?;
                }
                self.out.raw("}")
            }
            Node::Decimal { size, scale } => {
                let bytes = match size {
                    Some(size) => self.input.take(*size)?,
                    None => self.bytes()?,
                };
                self.decimal(bytes, *scale as i64)
            }
            Node::BigDecimal => {
                let mut own = Input(self.bytes()?);
                let len = own.len()?;
                let (bytes, scale) = (own.take(len)?, own.zigzag()?);
                own.end()?;
                self.decimal(bytes, scale)
            }
            Node::Uuid(size) => {
                let bytes = match size {
                    Some(size) => self.input.take(*size)?,
                    None => self.bytes()?,
                };
                let bytes = <[u8; 16]>::try_from(bytes).map_err(|_| Undecoded::Malformed)?;
                self.out.quoted(Uuid(bytes))
            }
            Node::Date => {
                let days = self.int()?;
                self.out.quoted(time::date(days))
            }
            Node::Time(unit) => {
                let number = match unit {
                    Unit::Millis => self.int()?,
                    Unit::Micros | Unit::Nanos => self.input.zigzag()?,
                };
                let (seconds, nanos) = unit.split(number);
                if !(0..time::DAY).contains(&seconds) {
                    return Err(Undecoded::Malformed);
                }
                self.out.quoted(time::time_of_day(seconds, nanos))
            }
            Node::Timestamp { unit, zone } => {
                let (seconds, nanos) = unit.split(self.input.zigzag()?);
                self.out.quoted(format_args!("{}{zone}", time::date_and_time(seconds, nanos)))
            }
            Node::Duration => {
                let mut part = || self.input.array().map(u32::from_le_bytes);
                let (months, days, millis) = (part()?, part()?, part()?);
                self.out.raw(&format!("{{\"months\":{months},\"days\":{days},\"millis\":{millis}}}"))
            }
        }
    }

    /// Arrays and maps come in blocks, of which an empty one is the last; a negative count is followed by the bytes of the
    /// block, for those who skip it.
    fn blocks(&mut self, open: &str, close: &str, mut item: impl FnMut(&mut Self) -> Written) -> Written {
        self.out.raw(open)?;
        let mut first = true;
        loop {
            let count = self.input.zigzag()?;
            if count < 0 {
                self.input.zigzag()?;
            }
            if count == 0 {
                return self.out.raw(close);
            }
            // Items may have no bytes, and any number of them may be claimed: each has text, of which there is a bound.
            for _ in 0..count.unsigned_abs() {
                if !std::mem::take(&mut first) {
                    self.out.raw(",")?;
                }
                item(self)?;
            }
        }
    }

    fn int(&mut self) -> Result<i64, Undecoded> {
        let number = self.input.zigzag()?;
        i32::try_from(number).map(i64::from).map_err(|_| Undecoded::Malformed)
    }

    fn bytes(&mut self) -> Result<&'p [u8], Undecoded> {
        let len = self.input.len()?;
        self.input.take(len)
    }

    /// A string, since the numbers of most readers are not exact.
    fn decimal(&mut self, unscaled: &[u8], scale: i64) -> Written {
        // Making digits of it takes time that grows with the square of its length, and a scale stands for any number of
        // zeros.
        if unscaled.len() > MOST_BYTES || scale.unsigned_abs() > MOST_SCALE {
            return Err(Undecoded::Malformed);
        }
        let number = BigInt::from_signed_bytes_be(unscaled);
        let (sign, digits) = (number.sign(), number.magnitude().to_string());
        let sign = if sign == num_bigint::Sign::Minus { "-" } else { "" };
        let Ok(scale) = usize::try_from(scale) else {
            let zeros = if digits == "0" { 0 } else { scale.unsigned_abs() as usize };
            return self.out.quoted(format_args!("{sign}{digits}{:0<zeros$}", ""));
        };
        if scale == 0 {
            return self.out.quoted(format_args!("{sign}{digits}"));
        }
        let digits = format!("{digits:0>width$}", width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        self.out.quoted(format_args!("{sign}{whole}.{fraction}"))
    }
}

/// Bytes of a decimal: some 2,400 digits.
const MOST_BYTES: usize = 1_000;
const MOST_SCALE: u64 = 2_000;

#[cfg(test)]
mod tests;
