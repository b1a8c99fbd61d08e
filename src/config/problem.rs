//! What is wrong with a configuration: the list that `serve` and `check` print. Owns the layout of
//! a problem and its snippet; never decides what is a problem. Filled by [`super::walk::Walk`].

use std::fmt::{self, Write as _};

use super::mask::Masks;
use super::place::{Span, Text};

/// Every problem of one configuration file, in the order of its lines; never empty.
///
/// `Display` prints each with its place, its snippet and a way to fix it, then how many there are.
/// Neither it nor `Debug` ever holds a secret.
pub struct Problems {
    file: String,
    rendered: Vec<String>,
}

/// One problem, before its snippet is drawn.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Problem {
    /// Where; `None` when the file as a whole is meant.
    pub at: Option<Span>,
    /// What is wrong and what to do: a sentence without a full stop.
    pub text: String,
    /// Another place that matters, with what it is.
    pub also: Option<(Span, String)>,
}

impl Problems {
    /// Sorts `problems` and draws them, hiding what `masks` covers.
    pub(super) fn draw(file: &str, text: &Text<'_>, masks: &Masks, mut problems: Vec<Problem>) -> Self {
        problems.sort();
        // An alias makes the same value be read in several places.
        problems.dedup();
        let gutter = digits(text, &problems);
        let rendered = problems.iter().map(|problem| draw_one(file, text, masks, gutter, problem)).collect();
        Self { file: file.to_owned(), rendered }
    }

    /// Each of them in a line: where it is, and what.
    pub fn lines(&self) -> Vec<String> {
        let line = |rendered: &String| {
            let (what, rest) = rendered.split_once('\n').unwrap_or((rendered, ""));
            let what = what.strip_prefix("error: ").unwrap_or(what);
            let place = rest.lines().next().unwrap_or_default().trim_start();
            format!("{}: {what}", place.strip_prefix("--> ").unwrap_or(&self.file))
        };
        self.rendered.iter().map(line).collect()
    }

    /// A file that cannot even be read.
    pub(super) fn unreadable(file: &str, why: &str) -> Self {
        Self { file: file.to_owned(), rendered: vec![format!("error: {why}\n  --> {file}\n")] }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.rendered {
            writeln!(f, "{problem}")?;
        }
        let count = self.rendered.len();
        write!(f, "{count} problem{} in {}", if count == 1 { "" } else { "s" }, self.file)
    }
}

impl fmt::Debug for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Problems {}

/// The width of the largest line number that will be printed.
fn digits(text: &Text<'_>, problems: &[Problem]) -> usize {
    let spans = problems.iter().flat_map(|p| p.at.into_iter().chain(p.also.as_ref().map(|(span, _)| *span)));
    spans.map(|span| text.position(span.start).0).max().unwrap_or(1).to_string().len()
}

fn draw_one(file: &str, text: &Text<'_>, masks: &Masks, gutter: usize, problem: &Problem) -> String {
    // Compilers and libraries quote what they choke on as it is.
    let what = problem.text.replace(char::is_control, "\u{fffd}");
    let mut out = format!("error: {what}\n");
    match problem.at {
        Some(span) => draw_place(&mut out, "-->", (file, text, masks), gutter, span, ""),
        None => _ = writeln!(out, "{:gutter$}--> {file}", ""),
    }
    if let Some((span, label)) = &problem.also {
        draw_place(&mut out, ":::", (file, text, masks), gutter, *span, label);
    }
    out
}

fn draw_place(
    out: &mut String,
    arrow: &str,
    (file, text, masks): (&str, &Text<'_>, &Masks),
    gutter: usize,
    span: Span,
    label: &str,
) {
    let (line, column) = text.position(span.start);
    let snippet = Snippet::new(text, masks, line, span);
    let carets = "^".repeat(snippet.width);
    let mark = format!("{}{carets} {label}", " ".repeat(snippet.indent));
    _ = writeln!(out, "{:gutter$}{arrow} {file}:{line}:{column}", "");
    _ = writeln!(out, "{:gutter$} |\n{line:>gutter$} | {}", "", snippet.line);
    _ = writeln!(out, "{:gutter$} | {}", "", mark.trim_end());
}

/// One line as it is shown, and where the carets go under it.
struct Snippet {
    line: String,
    indent: usize,
    width: usize,
}

/// A longer line is cut around its spot, which begins this many characters in.
const LINE: usize = 160;
const LEAD: usize = 60;

impl Snippet {
    fn new(text: &Text<'_>, masks: &Masks, line: usize, span: Span) -> Self {
        let whole = text.line(line);
        let mut shown: Vec<char> = Vec::new();
        let (mut from, mut to, mut hidden_until) = (None, None, 0);
        let begin = text.floor(span.start.saturating_sub(REACH).max(whole.start));
        let end = text.floor(span.start.saturating_add(REACH).min(whole.end));
        for (offset, c) in text.slice(Span::new(begin, end)).char_indices() {
            let at = begin + offset;
            if at >= span.start {
                let start =
                    if at < hidden_until { shown.len().saturating_sub(MASK.len()) } else { shown.len() };
                from.get_or_insert(start);
            }
            if at >= span.end {
                to.get_or_insert(shown.len());
            }
            if at < hidden_until || c == '\u{feff}' {
                continue;
            }
            if let Some(mask) = masks.covering(at) {
                hidden_until = mask.end;
                shown.extend(MASK.chars());
            } else {
                shown.push(if c.is_control() { ' ' } else { c });
            }
        }
        let from = from.unwrap_or(shown.len());
        let width = to.unwrap_or(shown.len()).saturating_sub(from).max(1);
        Self::cut(&shown, from, width, begin > whole.start, end < whole.end)
    }

    /// Keeps what fits into a line; `before` and `after` tell whether there is more already.
    fn cut(shown: &[char], indent: usize, width: usize, before: bool, after: bool) -> Self {
        let skip = if before || shown.len() > LINE { indent.saturating_sub(LEAD) } else { 0 };
        let stop = shown.len().min(skip + LINE);
        let lead = if before || skip > 0 { "…" } else { "" };
        let tail = if after || stop < shown.len() { "…" } else { "" };
        let middle: String = shown[skip..stop].iter().collect();
        let indent = indent - skip + lead.chars().count();
        let line = format!("{lead}{middle}{tail}").trim_end().to_owned();
        Self { line, indent, width: width.min(LINE.saturating_sub(indent)).max(1) }
    }
}

/// How many bytes before and after a spot are looked at.
const REACH: usize = 4 * LINE;

/// What stands for a secret, whatever its length.
const MASK: &str = "***";

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(text: &str, problems: Vec<Problem>) -> String {
        let text = Text::new(text);
        Problems::draw("c.yaml", &text, &Masks::of(&text, None), problems).to_string()
    }

    fn problem(start: usize, end: usize, text: &str) -> Problem {
        Problem { at: Some(Span::new(start, end)), text: text.into(), also: None }
    }

    #[test]
    fn layout_order_and_count() {
        let text = "a: 1\nbé:\t2\nc: 3\n";
        let also = Some((Span::new(0, 1), "first here".to_owned()));
        let drawn = draw(text, vec![Problem { also, ..problem(12, 13, "worse") }, problem(10, 11, "bad")]);
        assert_eq!(
            drawn,
            "error: bad\n --> c.yaml:2:5\n  |\n2 | bé: 2\n  |     ^\n\n\
             error: worse\n --> c.yaml:3:1\n  |\n3 | c: 3\n  | ^\n ::: c.yaml:1:1\n  |\n1 | a: 1\n  | ^ first here\n\n\
             2 problems in c.yaml"
        );
    }

    #[test]
    fn one_problem_is_singular_and_the_end_of_the_text_has_a_place() {
        let drawn = draw("a: 1", vec![problem(4, 4, "bad")]);
        assert!(drawn.contains("--> c.yaml:1:5\n"), "{drawn}");
        assert!(drawn.contains("1 | a: 1\n  |     ^\n"), "{drawn}");
        assert!(drawn.ends_with("\n1 problem in c.yaml"), "{drawn}");
    }

    #[test]
    fn in_a_line_each_has_its_place() {
        let text = Text::new("a: 1\nb: 2\n");
        let nowhere = Problem { at: None, text: "empty".into(), also: None };
        let problems =
            Problems::draw("c.yaml", &text, &Masks::of(&text, None), vec![nowhere, problem(8, 9, "bad")]);
        assert_eq!(problems.lines(), ["c.yaml: empty", "c.yaml:2:4: bad"]);
        assert_eq!(Problems::unreadable("c.yaml", "gone").lines(), ["c.yaml: gone"]);
    }

    #[test]
    fn long_lines_are_cut_around_the_spot() {
        let text = format!("a: {}X{}", "y".repeat(500), "z".repeat(500));
        let drawn = draw(&text, vec![problem(503, 504, "bad")]);
        let lines: Vec<&str> = drawn.lines().collect();
        assert!(drawn.contains("--> c.yaml:1:504\n"), "{drawn}");
        assert!(lines[3].starts_with("1 | …yyy") && lines[3].ends_with("zzz…"), "{drawn}");
        let caret = lines[4].chars().position(|c| c == '^').unwrap();
        assert_eq!(lines[3].chars().nth(caret), Some('X'), "{drawn}");
    }

    #[test]
    fn nothing_steers_the_terminal() {
        let drawn = draw("a: \u{1b}[31m", vec![problem(3, 4, "unexpected `\u{1b}[31m`\r\n")]);
        assert!(drawn.starts_with("error: unexpected `\u{fffd}[31m`\u{fffd}\u{fffd}\n --> "), "{drawn:?}");
        assert!(drawn.chars().all(|c| c == '\n' || !c.is_control()), "{drawn:?}");
    }

    #[test]
    fn a_span_inside_a_mask_is_marked_as_the_mask() {
        let text = "sasl.password: hunter2 # x";
        let drawn = draw(text, vec![problem(17, 20, "bad")]);
        assert!(drawn.contains("1 | sasl.password: ***\n  |                ^^^\n"), "{drawn}");
        assert!(!drawn.contains("hunter") && !drawn.contains("nter2"), "{drawn}");
    }
}
