//! A straight line through what was measured, and how far from it the measurements are.

use serde::{Deserialize, Serialize};

use crate::scenario::scale::point::Point;

/// What grows, as a straight line of what it grows with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fit {
    /// What grows, and with what.
    pub what: String,
    /// The unit of both.
    pub unit: String,
    pub from: f64,
    pub to: f64,
    #[serde(flatten)]
    pub line: Line,
}

/// A straight line by least squares.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub intercept: f64,
    pub slope: f64,
    /// How far the worst point is from the line, as a share of the line there.
    pub worst: f64,
    pub r2: f64,
}

impl Line {
    /// Through these points; `None` where they are fewer than three, or all above one another.
    pub fn through(points: &[(f64, f64)]) -> Option<Self> {
        let count = points.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
        let sum = |of: &dyn Fn(f64, f64) -> f64| points.iter().map(|&(x, y)| of(x, y)).sum::<f64>();
        let spread = sum(&|x, _| (x - mean_x).powi(2));
        if points.len() < 3 || spread == 0.0 {
            return None;
        }
        let slope = sum(&|x, y| (x - mean_x) * (y - mean_y)) / spread;
        let line = |x: f64| mean_y + slope * (x - mean_x);
        let (left, all) = (sum(&|x, y| (y - line(x)).powi(2)), sum(&|_, y| (y - mean_y).powi(2)));
        let off = points.iter().map(|&(x, y)| ((y - line(x)) / line(x)).abs());
        Some(Self {
            intercept: line(0.0),
            slope,
            worst: off.fold(0.0, f64::max),
            r2: if all == 0.0 { 1.0 } else { 1.0 - left / all },
        })
    }
}

/// What grows, its unit, and what a point says of it.
type Grows = (&'static str, &'static str, fn(&Point) -> f64);

/// What grows with the points of one part.
pub fn fits(part: &str, points: &[Point]) -> Vec<Fit> {
    let with = if part == "feeds" { "feed" } else { "client" };
    let grows: [Grows; 6] = [
        ("memory of the process", "KiB", |point| point.pss_kib),
        ("memory of the kernel, server's half", "KiB", |point| point.kernel_kib),
        ("CPU of connecting", "µs", |point| point.connect_cpu_us),
        ("CPU of an event to all", "µs", |point| point.cpu_us_per_event),
        ("latency p50", "µs", |point| point.latency_ms[0] * 1e3),
        ("latency p99", "µs", |point| point.latency_ms[1] * 1e3),
    ];
    // An event goes to one feed, however many there are; and servers that share a core share its time.
    let take = match part {
        "feeds" => 3,
        "servers" => 4,
        _ => grows.len(),
    };
    let fit = |&(what, unit, of): &Grows| {
        let points: Vec<_> = points.iter().map(|point| (point.clients as f64, of(point))).collect();
        let (from, to) = (points.first()?.0, points.last()?.0);
        let line = Line::through(&points)?;
        Some(Fit { what: format!("{part}: {what}, a {with}"), unit: unit.to_owned(), from, to, line })
    };
    grows[..take].iter().filter_map(fit).collect()
}

pub const HEAD: &str = "| scale: a straight line | from, to | slope | intercept | worst point | R² |";

impl Fit {
    /// Its line of the table.
    pub fn line(&self) -> String {
        let Self { what, unit, from, to, line: Line { intercept, slope, worst, r2 } } = self;
        let worst = worst * 100.0;
        format!(
            "| {what} | {from:.0}, {to:.0} | {slope:.2} {unit} | {intercept:.0} {unit} | {worst:.1} % off | {r2:.5} |"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_and_what_is_off_it_told() {
        let line = Line::through(&[(1.0, 5.0), (2.0, 7.0), (4.0, 11.0)]).expect("there is one");
        assert_eq!((line.intercept, line.slope, line.r2), (3.0, 2.0, 1.0));
        assert!(line.worst < 1e-9);
        // The mean is off by a third of what each lacks: by hand 1, 2, 2 -> 0.5 x + 2/3.
        let line = Line::through(&[(1.0, 1.0), (2.0, 2.0), (3.0, 2.0)]).expect("there is one");
        assert!((line.slope - 0.5).abs() < 1e-9 && (line.intercept - 2.0 / 3.0).abs() < 1e-9);
        assert!((line.r2 - 0.75).abs() < 1e-9);
        assert!(Line::through(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]).is_none());
    }
}
