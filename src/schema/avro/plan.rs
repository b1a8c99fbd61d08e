//! A schema made ready for reading: every name is looked up, and what becomes text is text already.

use std::collections::{HashMap, VecDeque};
use std::ops::Index;

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, Name, UuidSchema};

/// All nodes of a schema.
#[derive(Debug)]
pub(super) struct Plan {
    nodes: Vec<Node>,
    /// Where reading begins.
    pub root: At,
}

/// The place of a node. A schema may lie within itself, so that nodes know each other by place.
#[derive(Debug, Clone, Copy)]
pub(super) struct At(usize);

/// How one value is read.
#[derive(Debug)]
pub(super) enum Node {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    /// The symbols, each in quotes.
    Enum(Vec<String>),
    Union(Vec<At>),
    Array(At),
    Map(At),
    /// The fields, each by its name in quotes and a colon.
    Record(Vec<(String, At)>),
    /// Of so many bytes, if they are fixed.
    Decimal {
        size: Option<usize>,
        scale: usize,
    },
    BigDecimal,
    /// Of so many bytes, if they are fixed. One that is a string is a [`Node::String`].
    Uuid(Option<usize>),
    Date,
    Time(Unit),
    /// What stands for its zone is `Z`, or nothing for a time that has none.
    Timestamp {
        unit: Unit,
        zone: &'static str,
    },
    Duration,
}

/// What times are counted in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unit {
    Millis,
    Micros,
    Nanos,
}

impl Unit {
    /// Seconds, and nanoseconds of the next one.
    pub fn split(self, number: i64) -> (i64, u32) {
        let of_second = match self {
            Self::Millis => 1_000,
            Self::Micros => 1_000_000,
            Self::Nanos => 1_000_000_000,
        };
        let rest = number.rem_euclid(of_second) * (1_000_000_000 / of_second);
        (number.div_euclid(of_second), rest as u32)
    }
}

impl Index<At> for Plan {
    type Output = Node;

    fn index(&self, at: At) -> &Node {
        &self.nodes[at.0]
    }
}

impl Plan {
    /// Reading goes by `schema`; `others` are what it names.
    ///
    /// # Errors
    /// A name that none of them has.
    pub fn new(schema: &Schema, others: &[Schema]) -> Result<Self, String> {
        let mut builder = Builder::default();
        [schema].into_iter().chain(others).for_each(|schema| builder.define(schema, None));
        let root = builder.add(schema, None)?;
        while let Some((at, definition)) = builder.left.pop_front() {
            builder.nodes[at.0] = builder.named(definition)?;
        }
        Ok(Self { nodes: builder.nodes, root })
    }
}

#[derive(Default)]
struct Builder<'s> {
    nodes: Vec<Node>,
    defined: HashMap<String, Definition<'s>>,
    /// Where the nodes of names are.
    made: HashMap<String, At>,
    /// Those that are not filled in yet. Not done at once: names can be a long way within each other.
    left: VecDeque<(At, Definition<'s>)>,
}

/// A schema with a name, and the namespace of what lies within it.
#[derive(Clone)]
struct Definition<'s> {
    schema: &'s Schema,
    within: Option<String>,
}

impl<'s> Builder<'s> {
    /// Takes down everything that has a name.
    fn define(&mut self, schema: &'s Schema, namespace: Option<&str>) {
        match schema {
            Schema::Array(array) => return self.define(&array.items, namespace),
            Schema::Map(map) => return self.define(&map.types, namespace),
            Schema::Union(union) => {
                return union.variants().iter().for_each(|variant| self.define(variant, namespace));
            }
            _ => {}
        }
        let Some(name) = own_name(schema) else { return };
        let full = name.fully_qualified_name(namespace);
        let within = full.namespace().map(str::to_owned);
        let definition = Definition { schema, within: within.clone() };
        self.defined.entry(full.fullname(None)).or_insert(definition);
        if let Schema::Record(record) = schema {
            record.fields.iter().for_each(|field| self.define(&field.schema, within.as_deref()));
        }
    }

    fn add(&mut self, schema: &'s Schema, namespace: Option<&str>) -> Result<At, String> {
        let timestamp = |unit, zone| Node::Timestamp { unit, zone };
        let node = match schema {
            Schema::Ref { name } => return self.by_name(name, namespace),
            schema if own_name(schema).is_some() => {
                return self.by_name(own_name(schema).expect("it has one"), namespace);
            }
            Schema::Array(array) => Node::Array(self.add(&array.items, namespace)?),
            Schema::Map(map) => Node::Map(self.add(&map.types, namespace)?),
            Schema::Union(union) => {
                let variants = union.variants().iter().map(|variant| self.add(variant, namespace));
                Node::Union(variants.collect::<Result<_, _>>()?)
            }
            Schema::Null => Node::Null,
            Schema::Boolean => Node::Boolean,
            Schema::Int => Node::Int,
            Schema::Long => Node::Long,
            Schema::Float => Node::Float,
            Schema::Double => Node::Double,
            Schema::Bytes => Node::Bytes,
            Schema::String | Schema::Uuid(UuidSchema::String) => Node::String,
            Schema::Decimal(decimal) => Node::Decimal { size: None, scale: decimal.scale },
            Schema::BigDecimal => Node::BigDecimal,
            Schema::Uuid(_) => Node::Uuid(None),
            Schema::Date => Node::Date,
            Schema::TimeMillis => Node::Time(Unit::Millis),
            Schema::TimeMicros => Node::Time(Unit::Micros),
            Schema::TimestampMillis => timestamp(Unit::Millis, "Z"),
            Schema::TimestampMicros => timestamp(Unit::Micros, "Z"),
            Schema::TimestampNanos => timestamp(Unit::Nanos, "Z"),
            Schema::LocalTimestampMillis => timestamp(Unit::Millis, ""),
            Schema::LocalTimestampMicros => timestamp(Unit::Micros, ""),
            Schema::LocalTimestampNanos => timestamp(Unit::Nanos, ""),
            // They have names.
            Schema::Record(_) | Schema::Enum(_) | Schema::Fixed(_) | Schema::Duration(_) => Node::Null,
        };
        self.nodes.push(node);
        Ok(At(self.nodes.len() - 1))
    }

    fn by_name(&mut self, name: &Name, namespace: Option<&str>) -> Result<At, String> {
        let name = name.fullname(namespace);
        if let Some(&at) = self.made.get(&name) {
            return Ok(at);
        }
        let definition = self.defined.get(&name).ok_or_else(|| format!("nothing is called {name}"))?;
        let at = At(self.nodes.len());
        self.nodes.push(Node::Null);
        self.left.push_back((at, definition.clone()));
        self.made.insert(name, at);
        Ok(at)
    }

    fn named(&mut self, Definition { schema, within }: Definition<'s>) -> Result<Node, String> {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        Ok(match schema {
            Schema::Record(record) => {
                let fields = record.fields.iter().map(|field| {
                    let at = self.add(&field.schema, within.as_deref())?;
                    Ok((quoted(&field.name) + ":", at))
                });
                Node::Record(fields.collect::<Result<_, String>>()?)
            }
            Schema::Enum(symbols) => {
                Node::Enum(symbols.symbols.iter().map(|symbol| quoted(symbol)).collect())
            }
            Schema::Fixed(fixed) => Node::Fixed(fixed.size),
            Schema::Decimal(decimal) => {
                let size = match &decimal.inner {
                    InnerDecimalSchema::Fixed(fixed) => Some(fixed.size),
                    InnerDecimalSchema::Bytes => None,
                };
                Node::Decimal { size, scale: decimal.scale }
            }
            Schema::Uuid(UuidSchema::Fixed(fixed)) => Node::Uuid(Some(fixed.size)),
            Schema::Duration(fixed) if fixed.size == 12 => Node::Duration,
            Schema::Duration(fixed) => Node::Fixed(fixed.size),
            // Nothing else has a name.
            _ => Node::Null,
        })
    }
}

/// The name that a schema gives to itself.
fn own_name(schema: &Schema) -> Option<&Name> {
    match schema {
        Schema::Record(record) => Some(&record.name),
        Schema::Enum(symbols) => Some(&symbols.name),
        Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
            Some(&fixed.name)
        }
        Schema::Decimal(decimal) => match &decimal.inner {
            InnerDecimalSchema::Fixed(fixed) => Some(&fixed.name),
            InnerDecimalSchema::Bytes => None,
        },
        _ => None,
    }
}
