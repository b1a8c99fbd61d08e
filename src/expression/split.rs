//! Splitting an expression that names what its clients bring, by how often each part is work: what does without them is
//! evaluated once for each record, what does without the record once for each client, and only what needs both, the residual,
//! for each of each. Of that every part which needs one of the two alone is taken out, as large as it can be: its value is a
//! *fact* of the record or a *term* of the client.

#[cfg(test)]
mod tests;

use super::compile::{Fold, Node, Operator, Program, What};
use super::show::show;

/// What of an expression is not evaluated for each record alone.
pub(super) struct Split {
    /// What is evaluated once for each record that the rest of the expression lets pass.
    pub facts: Vec<Node>,
    /// What is evaluated once for each client.
    pub terms: Vec<Node>,
    /// What is evaluated for each record and client, on these values.
    pub residual: Node,
}

/// Splits the expression that `root` is, of `program`. Returns what is evaluated for each record alone, and the rest.
///
/// Conditions that are joined by `&&` may be asked in any order: none of the others makes up for one that does not hold, or
/// fails.
pub(super) fn split(root: Node, program: &Program) -> (Node, Split) {
    let mut all = Vec::new();
    conjuncts(root, &mut all);
    let (of_clients, once): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|node| look(node, &mut Vec::new()).needs.client);
    let mut splitter = Splitter { program, facts: Vec::new(), terms: Vec::new(), items: Vec::new() };
    let residual = splitter.residual(all_of(of_clients));
    let plain = |taken: Vec<(String, Node)>| taken.into_iter().map(|(_, node)| node).collect();
    let split = Split { facts: plain(splitter.facts), terms: plain(splitter.terms), residual };
    (all_of(once), split)
}

fn conjuncts(node: Node, into: &mut Vec<Node>) {
    match node {
        Node::And(pair) => (*pair).into_iter().for_each(|node| conjuncts(node, into)),
        node => into.push(node),
    }
}

/// All of these, as few as can be within one another.
fn all_of(mut nodes: Vec<Node>) -> Node {
    match nodes.len() {
        0 => Node::Bool(true),
        1 => nodes.remove(0),
        count => {
            let rest = nodes.split_off(count / 2);
            Node::And(Box::new([all_of(nodes), all_of(rest)]))
        }
    }
}

/// What the value of a part depends on.
#[derive(Debug, Clone, Copy, Default)]
struct Needs {
    record: bool,
    client: bool,
}

/// What is seen of a part.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    needs: Needs,
    /// Whether it names what a macro goes over, be that within it or around it.
    has_items: bool,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.needs.record |= other.needs.record;
        self.needs.client |= other.needs.client;
        self.has_items |= other.has_items;
    }
}

/// Looks at a part; `items` tells what the items of the macros around it need.
fn look(node: &Node, items: &mut Vec<Needs>) -> Seen {
    let mut seen = Seen::default();
    match node {
        Node::Variable(_) | Node::Fact(_) => seen.needs.record = true,
        Node::Client(_) | Node::Brings(_) | Node::Term(_) => seen.needs.client = true,
        Node::Local(at) => {
            seen = Seen { needs: items.get(*at).copied().unwrap_or_default(), has_items: true };
        }
        Node::Fold(fold) => {
            seen.add(look(&fold.over, items));
            items.push(seen.needs);
            fold.what.parts().for_each(|part| seen.add(look(part, items)));
            items.pop();
        }
        other => other.parts().for_each(|part| seen.add(look(part, items))),
    }
    seen
}

struct Splitter<'p> {
    program: &'p Program,
    /// As they are shown, by which those that are the same are known.
    facts: Vec<(String, Node)>,
    terms: Vec<(String, Node)>,
    /// What the items of the macros need that are gone through.
    items: Vec<Needs>,
}

impl Splitter<'_> {
    fn residual(&mut self, node: Node) -> Node {
        let seen = look(&node, &mut self.items);
        // Items are told by how many macros they are within, which is another number elsewhere.
        let moves = self.items.is_empty() || !seen.has_items;
        match seen.needs {
            Needs { record: true, client: false } if moves => {
                Node::Fact(taken(&mut self.facts, node, self.program))
            }
            Needs { record: false, .. } if moves && !node.is_literal() => {
                Node::Term(taken(&mut self.terms, node, self.program))
            }
            _ => self.within(node),
        }
    }

    /// The same of the parts of one that stays.
    fn within(&mut self, node: Node) -> Node {
        match node {
            Node::Fold(fold) => {
                let Fold { over, item, what } = *fold;
                let needs = look(&over, &mut self.items).needs;
                let over = self.residual(over);
                self.items.push(needs);
                let what = what.with_parts(&mut |part| self.residual(part));
                self.items.pop();
                Node::Fold(Box::new(Fold { over, item, what }))
            }
            node => node.with_parts(&mut |part| self.residual(part)),
        }
    }
}

fn taken(from: &mut Vec<(String, Node)>, node: Node, program: &Program) -> usize {
    let shown = show(&node, program);
    from.iter().position(|(known, _)| *known == shown).unwrap_or_else(|| {
        from.push((shown, node));
        from.len() - 1
    })
}

impl Node {
    /// Whether it is what it says.
    fn is_literal(&self) -> bool {
        matches!(self, Self::Null | Self::Bool(_) | Self::Int(_) | Self::Double(_) | Self::Text(_))
    }

    /// The nodes that it is made of, but for those of a macro.
    fn parts(&self) -> Box<dyn Iterator<Item = &Self> + '_> {
        match self {
            Self::Select(of, _)
            | Self::Has(of, _)
            | Self::Not(of)
            | Self::Negate(of)
            | Self::Matches(of, _) => Box::new(std::iter::once(&**of)),
            Self::Index(pair) | Self::And(pair) | Self::Or(pair) | Self::Operate(_, pair) => {
                Box::new(pair.iter())
            }
            Self::Choose(three) => Box::new(three.iter()),
            Self::Call(_, parts) | Self::List(parts) => Box::new(parts.iter()),
            Self::Map(entries) => Box::new(entries.iter().flat_map(|(name, value)| [name, value])),
            _ => Box::new(std::iter::empty()),
        }
    }

    /// Whether it names one of these values that a client brings.
    pub(super) fn names(&self, is_it: &dyn Fn(usize) -> bool) -> bool {
        match self {
            Self::Client(at) | Self::Brings(at) => is_it(*at),
            Self::Fold(fold) => fold.over.names(is_it) || fold.what.parts().any(|part| part.names(is_it)),
            other => other.parts().any(|part| part.names(is_it)),
        }
    }

    /// The same, where each of these nodes is what `part` makes of it.
    fn with_parts(self, part: &mut dyn FnMut(Self) -> Self) -> Self {
        match self {
            Self::Select(of, name) => Self::Select(Box::new(part(*of)), name),
            Self::Has(of, name) => Self::Has(Box::new(part(*of)), name),
            Self::Not(of) => Self::Not(Box::new(part(*of))),
            Self::Negate(of) => Self::Negate(Box::new(part(*of))),
            Self::Matches(of, pattern) => Self::Matches(Box::new(part(*of)), pattern),
            Self::Index(pair) => Self::Index(Box::new((*pair).map(part))),
            Self::And(pair) => Self::And(Box::new((*pair).map(part))),
            Self::Or(pair) => Self::Or(Box::new((*pair).map(part))),
            Self::Operate(operator, pair) => Self::Operate(operator, Box::new((*pair).map(part))),
            Self::Choose(three) => Self::Choose(Box::new((*three).map(part))),
            Self::Call(function, parts) => Self::Call(function, parts.into_iter().map(part).collect()),
            Self::List(parts) => Self::List(parts.into_iter().map(part).collect()),
            Self::Map(entries) => {
                Self::Map(entries.into_iter().map(|(name, value)| (part(name), part(value))).collect())
            }
            other => other,
        }
    }

    /// About how many nanoseconds it takes.
    pub(super) fn cost(&self) -> usize {
        let of_parts: usize = self.parts().map(Self::cost).sum();
        match self {
            Self::Operate(Operator::In, _) => OPERATOR + LIST * ITEM + of_parts,
            Self::Matches(..) => PATTERN + of_parts,
            Self::Fold(fold) => {
                let each: usize = fold.what.parts().map(Self::cost).sum();
                OPERATOR + fold.over.cost() + LIST * (each + ROUND)
            }
            Self::Call(..) => CALL + of_parts,
            Self::Index(_) | Self::Operate(..) | Self::List(_) | Self::Map(_) => OPERATOR + of_parts,
            _ => LEAF + of_parts,
        }
    }
}

impl What {
    /// What is evaluated for each item.
    fn parts(&self) -> impl Iterator<Item = &Node> {
        let (one, other) = match self {
            Self::All(test) | Self::Exists(test) | Self::ExistsOne(test) => (Some(test), None),
            Self::Map { only, each } => (only.as_ref(), Some(each)),
        };
        one.into_iter().chain(other)
    }

    fn with_parts(self, part: &mut dyn FnMut(Node) -> Node) -> Self {
        match self {
            Self::All(test) => Self::All(part(test)),
            Self::Exists(test) => Self::Exists(part(test)),
            Self::ExistsOne(test) => Self::ExistsOne(part(test)),
            Self::Map { only, each } => Self::Map { only: only.map(&mut *part), each: part(each) },
        }
    }
}

/// Nanoseconds, of an optimized build on the machine of BENCHMARKS.md; and how long a list is taken to be.
const LEAF: usize = 10;
const OPERATOR: usize = 15;
/// Of a list in which a value is looked for.
const ITEM: usize = 6;
/// Of a macro.
const ROUND: usize = 30;
const CALL: usize = 75;
const PATTERN: usize = 60;
const LIST: usize = 4;
