//! Templates as values: parsed where they stand, and their fields held against what can fill them.
//! Used by [`super::from`] and [`super::event`].

use super::mask;
use super::place::Span;
use super::suggest;
use super::template::{Field, Template};
use super::walk::{Scalar, Walk};

/// Parses a template. Its parameters must be in `params`, unless the path itself is in doubt;
/// `refusal` says why a field of the record cannot be used, to follow its name.
pub(super) fn read(
    walk: &Walk<'_>,
    scalar: &Scalar<'_>,
    params: Option<&[String]>,
    refusal: impl Fn(&Field) -> Option<String>,
) -> Option<Template> {
    let template = parse(walk, scalar)?;
    for field in template.fields() {
        let Field::Param(name) = field else {
            if let Some(why) = refusal(field) {
                let shown = if scalar.is_indirect() {
                    "a field of this value".to_owned()
                } else {
                    format!("`{field}`")
                };
                walk.problem(place(walk, scalar, field), format!("{shown} {why}"));
            }
            continue;
        };
        if let Some(params) = params
            && !params.iter().any(|param| **param == **name)
        {
            walk.problem(place(walk, scalar, field), unknown_param(scalar, name, params));
        }
    }
    Some(template)
}

fn unknown_param(scalar: &Scalar<'_>, name: &str, params: &[String]) -> String {
    if scalar.is_indirect() {
        return "this value uses a parameter that the path lacks".to_owned();
    }
    let hint = if params.is_empty() {
        format!("; add `{{{name}}}` to the path, or write `{{{{` and `}}}}` for braces")
    } else {
        suggest::hint(name, params.iter().map(String::as_str), "it has")
    };
    format!("the path has no parameter {}{hint}", mask::quotable(name))
}

fn parse(walk: &Walk<'_>, scalar: &Scalar<'_>) -> Option<Template> {
    match Template::parse(&scalar.text) {
        Ok(template) => Some(template),
        Err(_) if scalar.is_indirect() => {
            let text = "this value is not a template: a brace lacks its partner, or a field its name";
            walk.problem(scalar.span(), text);
            None
        }
        Err(error) => {
            walk.problem(walk.part(scalar, error.at, 1), error.what);
            None
        }
    }
}

/// Where a field stands in its template.
fn place(walk: &Walk<'_>, scalar: &Scalar<'_>, field: &Field) -> Span {
    let written = field.to_string();
    scalar.text.find(&written).map_or_else(|| scalar.span(), |at| walk.part(scalar, at, written.len()))
}
