//! `allow:`: an expression in CEL (the Common Expression Language, as Envoy and Kubernetes have it), compiled here so
//! that a mistake in it is told before anything is served.

use super::super::suggest;
use super::super::tree::Node;
use super::super::walk::{Scalar, Walk};
use super::Rule;

/// Bytes of an expression. It is evaluated as deep as it is long: so much of `1+1+1…` takes 0.9 of the 2 MiB of stack that
/// a thread which serves requests has.
const LONGEST: usize = 1024;

/// Reads `allow`.
pub(in super::super) fn read(walk: &Walk<'_>, node: &Node) -> Option<Rule> {
    // A lone `true` or `false` is an expression, too.
    let scalar = walk.scalar(node, "an expression such as `claims.tenant == params.tenant`")?;
    if scalar.text.len() > LONGEST {
        let text = format!(
            "this rule is longer than {LONGEST} bytes; let `claims` say more, or ask an endpoint (`forward`)"
        );
        walk.problem(scalar.span(), text);
        return None;
    }
    let program = match cel::Program::compile(&scalar.text) {
        Ok(program) => program,
        Err(errors) => {
            for error in errors.errors {
                let (at, length) = place(&scalar, error.pos);
                let what = error.msg.lines().next().unwrap_or_default().to_owned();
                // It may quote the rule.
                let text = match scalar.is_indirect() || walk.is_masked(node) {
                    true => "this is not an expression in CEL".to_owned(),
                    false => format!("this is not an expression in CEL: {what}"),
                };
                walk.problem(walk.part(&scalar, at, length), text);
            }
            return None;
        }
    };
    let unknown: Vec<String> = {
        let references = program.references();
        let names = references.variables().into_iter();
        names
            .filter(|name| !Rule::VARIABLES.contains(name) && !binds(&scalar.text, name))
            .map(str::to_owned)
            .collect()
    };
    for name in &unknown {
        let at = word(&scalar.text, name).unwrap_or(0);
        let text = match scalar.is_indirect() {
            // It may be what a variable holds.
            true => format!(
                "this rule names what none knows; it knows {}",
                suggest::list(&Rule::VARIABLES, "and")
            ),
            false => {
                let hint = suggest::hint(name, Rule::VARIABLES, "it knows");
                format!("a rule knows nothing called `{name}`{hint}")
            }
        };
        walk.problem(walk.part(&scalar, at, name.len()), text);
    }
    unknown.is_empty().then(|| Rule::new(program, scalar.raw()))
}

/// Whether a macro such as `exists(x, …)` binds this name.
fn binds(text: &str, name: &str) -> bool {
    let macros = ["all", "exists", "exists_one", "map", "filter"];
    macros.iter().any(|of| {
        text.match_indices(of).any(|(at, _)| {
            let rest = text[at + of.len()..].trim_start().strip_prefix('(').map(str::trim_start);
            rest.and_then(|rest| rest.strip_prefix(name))
                .is_some_and(|rest| rest.trim_start().starts_with(','))
        })
    })
}

/// Where a whole word stands.
fn word(text: &str, name: &str) -> Option<usize> {
    let letter = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(name).map(|(at, _)| at).find(|&at| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        !before.is_some_and(|c| letter(c) || c == '.') && !after.is_some_and(letter)
    })
}

/// Line and column of the compiler, both from 1, as bytes of the text.
fn place(scalar: &Scalar<'_>, (line, column): (isize, isize)) -> (usize, usize) {
    let line = usize::try_from(line).unwrap_or(1).max(1);
    let column = usize::try_from(column).unwrap_or(1).max(1);
    let begin: usize = scalar.text.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let rest = scalar.text.get(begin..).unwrap_or_default();
    let at = begin + rest.char_indices().nth(column - 1).map_or(rest.len(), |(at, _)| at);
    let length = scalar.text[at..].chars().next().map_or(0, char::len_utf8);
    (at.min(scalar.text.len()), length)
}
