//! The picture for the README: what a delivery and an idle client cost with each server, as bars.

use std::fmt::Write as _;

use crate::args::Coding;
use crate::report::Report;
use crate::report::row::Row;

/// As SVG. Its colours follow the reader's choice of light or dark; without bars where nothing was measured.
pub fn plot(report: &Report) -> String {
    let (mut body, mut top) = (String::new(), MARGIN);
    for (title, unit, measure) in PANELS {
        let bars = bars(report, *measure);
        if !bars.is_empty() {
            top = panel(&mut body, top, title, unit, &bars);
        }
    }
    let height = top.max(MARGIN * 2);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"What a delivery and an idle client cost\">\n\
         <style>{STYLE}</style>\n{body}</svg>\n"
    )
}

/// The first row of each server that says something; ours first, then by cost.
fn bars(report: &Report, measure: Measure) -> Vec<(&str, f64)> {
    let mut bars: Vec<(&str, f64)> = Vec::new();
    for (server, value) in report.rows.iter().filter_map(measure) {
        if bars.iter().all(|(known, _)| *known != server) {
            bars.push((server, value));
        }
    }
    bars.sort_by(|(a, one), (b, other)| (*a != OURS).cmp(&(*b != OURS)).then(one.total_cmp(other)));
    bars
}

/// Draws one below `top`, and returns where the next begins.
fn panel(out: &mut String, top: u32, title: &str, unit: &str, bars: &[(&str, f64)]) -> u32 {
    let longest = bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    let baseline = top + 14;
    let _ = writeln!(out, "<text class=\"title\" x=\"{MARGIN}\" y=\"{baseline}\">{title}</text>");
    let mut y = top + 26;
    for (server, value) in bars {
        let width = (value / longest * f64::from(BAR)).max(1.0);
        let (class, text) = (if *server == OURS { "ours" } else { "peer" }, y + 14);
        let (label, end) = (LEFT - 8, f64::from(LEFT) + width + 6.0);
        let number = if *value < 10.0 { format!("{value:.2}") } else { format!("{value:.1}") };
        let _ = writeln!(
            out,
            "<text class=\"name\" x=\"{label}\" y=\"{text}\">{server}</text>\
             <rect class=\"{class}\" x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"18\" rx=\"2\"/>\
             <text x=\"{end:.1}\" y=\"{text}\">{number} {unit}</text>"
        );
        y += 24;
    }
    y + 18
}

/// A server and what its bar shows, if the row has that.
type Measure = fn(&Row) -> Option<(&str, f64)>;

const PANELS: &[(&str, &str, Measure)] = &[
    ("CPU a delivery: 10 events/s to 5,000 clients", "µs", |row| delivery(row, "sparse")),
    ("CPU a delivery: 1,000 events/s to 200 clients", "µs", |row| delivery(row, "dense")),
    ("Memory of an idle TLS client", "KiB", |row| match row {
        Row::Idle(row) => Some((&row.server, row.pss_kib_per_client)),
        _ => None,
    }),
];

fn delivery<'a>(row: &'a Row, scenario: &str) -> Option<(&'a str, f64)> {
    match row {
        // The floor does without TLS, and another linger or a coding is another work.
        Row::Fanout(row)
            if row.scenario == scenario
                && row.server != "floor"
                && row.linger_ms > 0
                && row.coding == Coding::Identity =>
        {
            Some((&row.server, row.cpu_us_per_delivery))
        }
        _ => None,
    }
}

const OURS: &str = "ssegate";

const WIDTH: u32 = 720;
const MARGIN: u32 = 16;
/// Where bars begin, and how long the longest is.
const LEFT: u32 = 128;
const BAR: u32 = 480;

const STYLE: &str = "
text { font: 13px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328; }
.title { font-weight: 600; }
.name { text-anchor: end; }
.ours { fill: #0969da; }
.peer { fill: #8c959f; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; }
  .ours { fill: #4493f8; }
  .peer { fill: #656c76; }
}
";
