//! An expression as text again, for operators who want to know which part of it is work how often.

use std::fmt::Write as _;

use super::compile::{Fold, Node, Operator, Program, What};

/// What `node`, a part of `program`, says.
pub(super) fn show(node: &Node, program: &Program) -> String {
    let mut shower = Shower { program, items: Vec::new(), out: String::new() };
    shower.at(node, ANY);
    shower.out
}

struct Shower<'p> {
    program: &'p Program,
    /// What the macros around call what they go over.
    items: Vec<&'p str>,
    out: String,
}

/// How tightly an expression is held together, from a choice to a name: what is looser than it must be stands in brackets.
type Level = u8;

const ANY: Level = 0;
const OR: Level = 1;
const AND: Level = 2;
const RELATION: Level = 3;
const SUM: Level = 4;
const PRODUCT: Level = 5;
const UNARY: Level = 6;
const PRIMARY: Level = 7;

impl<'p> Shower<'p> {
    fn at(&mut self, node: &'p Node, least: Level) {
        let level = self.level(node);
        if level < least {
            self.out.push('(');
        }
        self.node(node, level);
        if level < least {
            self.out.push(')');
        }
    }

    fn node(&mut self, node: &'p Node, level: Level) {
        match node {
            Node::Null => self.out.push_str("null"),
            Node::Bool(truth) => self.write(truth),
            Node::Int(whole) => self.write(whole),
            Node::UInt(whole) => _ = write!(self.out, "{whole}u"),
            Node::Double(double) => _ = write!(self.out, "{double:?}"),
            Node::Text(text) => self.quoted(text),
            Node::Variable(at) => {
                let reads = &self.program.reads;
                let name = reads.iter().find(|(known, _)| known == at).map_or("?", |(_, name)| &**name);
                self.out.push_str(name);
            }
            Node::Param(at) => {
                self.out.push_str("params.");
                self.out.push_str(self.program.params.get(*at).map_or("?", |name| &**name));
            }
            Node::Local(at) => self.out.push_str(self.items.get(*at).copied().unwrap_or("?")),
            Node::Client(at) => self.brought(*at),
            Node::Brings(at) => {
                self.out.push_str("has(");
                self.brought(*at);
                self.out.push(')');
            }
            Node::Fact(_) | Node::Term(_) => {
                if let Some(node) = self.taken(node) {
                    // It stood outside of all macros, and so do the names within it.
                    let items = std::mem::take(&mut self.items);
                    self.at(node, ANY);
                    self.items = items;
                }
            }
            Node::Select(of, name) => {
                self.at(of, PRIMARY);
                _ = write!(self.out, ".{name}");
            }
            Node::Has(of, name) => {
                self.out.push_str("has(");
                self.at(of, PRIMARY);
                _ = write!(self.out, ".{name})");
            }
            Node::Index(pair) => {
                self.at(&pair[0], PRIMARY);
                self.within('[', std::slice::from_ref(&pair[1]), ']');
            }
            Node::Not(of) => self.before("!", of),
            Node::Negate(of) => self.before("-", of),
            Node::And(pair) => self.between(&pair[0], "&&", &pair[1], level),
            Node::Or(pair) => self.between(&pair[0], "||", &pair[1], level),
            Node::Operate(operator, pair) => self.between(&pair[0], sign(*operator), &pair[1], level),
            Node::Choose(three) => {
                self.at(&three[0], OR);
                self.out.push_str(" ? ");
                self.at(&three[1], OR);
                self.out.push_str(" : ");
                self.at(&three[2], ANY);
            }
            Node::Call(function, args) => match args.split_first() {
                Some((of, args)) if function.is_method() => {
                    self.at(of, PRIMARY);
                    _ = write!(self.out, ".{}", function.name());
                    self.within('(', args, ')');
                }
                _ => {
                    self.out.push_str(function.name());
                    self.within('(', args, ')');
                }
            },
            Node::Matches(of, pattern) => {
                self.at(of, PRIMARY);
                self.out.push_str(".matches(");
                self.quoted(pattern.as_str());
                self.out.push(')');
            }
            Node::List(items) => self.within('[', items, ']'),
            Node::Map(entries) => {
                self.out.push('{');
                for (at, (name, value)) in entries.iter().enumerate() {
                    self.out.push_str(if at > 0 { ", " } else { "" });
                    self.at(name, ANY);
                    self.out.push_str(": ");
                    self.at(value, ANY);
                }
                self.out.push('}');
            }
            Node::Fold(fold) => self.fold(fold),
        }
    }

    fn write(&mut self, value: &dyn std::fmt::Display) {
        _ = write!(self.out, "{value}");
    }

    fn before(&mut self, sign: &str, of: &'p Node) {
        self.out.push_str(sign);
        self.at(of, PRIMARY);
    }

    fn between(&mut self, one: &'p Node, sign: &str, other: &'p Node, level: Level) {
        self.at(one, level);
        _ = write!(self.out, " {sign} ");
        // What stands to the left is done first, where that matters.
        let is_logical = level == OR || level == AND;
        self.at(other, if is_logical { level } else { level + 1 });
    }

    fn within(&mut self, open: char, nodes: &'p [Node], close: char) {
        self.out.push(open);
        for (at, node) in nodes.iter().enumerate() {
            self.out.push_str(if at > 0 { ", " } else { "" });
            self.at(node, ANY);
        }
        self.out.push(close);
    }

    fn fold(&mut self, fold: &'p Fold) {
        let (name, parts): (_, [Option<&Node>; 2]) = match &fold.what {
            What::All(test) => ("all", [Some(test), None]),
            What::Exists(test) => ("exists", [Some(test), None]),
            What::ExistsOne(test) => ("exists_one", [Some(test), None]),
            What::Map { only, each } => ("map", [only.as_ref(), Some(each)]),
        };
        self.at(&fold.over, PRIMARY);
        _ = write!(self.out, ".{name}({}", fold.item);
        self.items.push(&fold.item);
        for part in parts.into_iter().flatten() {
            self.out.push_str(", ");
            self.at(part, ANY);
        }
        self.items.pop();
        self.out.push(')');
    }

    fn brought(&mut self, at: usize) {
        let Some(member) = self.program.client.get(at) else { return };
        let is_name = member.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !member.name.starts_with(|c: char| c.is_ascii_digit());
        self.out.push_str(&member.of);
        match is_name && !member.name.is_empty() {
            true => _ = write!(self.out, ".{}", member.name),
            false => {
                self.out.push('[');
                self.quoted(&member.name);
                self.out.push(']');
            }
        }
    }

    /// What has been taken out where this stands, if it has.
    fn taken(&self, node: &Node) -> Option<&'p Node> {
        let split = self.program.split.as_ref()?;
        match node {
            Node::Fact(at) => split.facts.get(*at),
            Node::Term(at) => split.terms.get(*at),
            _ => None,
        }
    }

    fn level(&self, node: &Node) -> Level {
        self.taken(node).map_or_else(|| level(node), level)
    }

    fn quoted(&mut self, text: &str) {
        self.out.push('\'');
        for c in text.chars() {
            match c {
                '\'' | '\\' => self.out.extend(['\\', c]),
                c if c.is_control() => _ = write!(self.out, "\\u{:04x}", u32::from(c)),
                c => self.out.push(c),
            }
        }
        self.out.push('\'');
    }
}

fn level(node: &Node) -> Level {
    match node {
        Node::Choose(_) => ANY,
        Node::Or(_) => OR,
        Node::And(_) => AND,
        Node::Operate(operator, _) => match operator {
            Operator::Add | Operator::Subtract => SUM,
            Operator::Multiply | Operator::Divide | Operator::Remainder => PRODUCT,
            _ => RELATION,
        },
        // `1.n` is no member of a number.
        Node::Not(_) | Node::Negate(_) | Node::Int(_) | Node::UInt(_) | Node::Double(_) => UNARY,
        _ => PRIMARY,
    }
}

fn sign(operator: Operator) -> &'static str {
    match operator {
        Operator::Add => "+",
        Operator::Subtract => "-",
        Operator::Multiply => "*",
        Operator::Divide => "/",
        Operator::Remainder => "%",
        Operator::Equals => "==",
        Operator::Differs => "!=",
        Operator::Less => "<",
        Operator::AtMost => "<=",
        Operator::Greater => ">",
        Operator::AtLeast => ">=",
        Operator::In => "in",
    }
}
