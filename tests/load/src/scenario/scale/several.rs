//! More connections than a process has descriptors for: several servers, each with a tool of its own, at the same time.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, ChildStdout, Stdio};

use anyhow::Context as _;

use crate::args::Options;
use crate::report::noise::Noise;
use crate::scenario::scale::point::Point;
use crate::server::child::Child;

/// A tool that measures its own server.
struct Part {
    stdin: ChildStdin,
    lines: BufReader<ChildStdout>,
    _child: Child,
}

/// Holds clients on that many servers at once, and sends to all of them.
///
/// # Errors
/// Where one cannot do its work.
pub fn run(options: &Options, servers: usize, clients: usize, rate: u32) -> anyhow::Result<Point> {
    let mut parts = Vec::new();
    for _ in 0..servers {
        let mut part = Part::start(options, clients, rate)?;
        // One after the other, so that each tells the kernel's memory of its own clients.
        part.told().context("a part ended before its clients stood")?;
        parts.push(part);
    }
    for part in &mut parts {
        writeln!(part.stdin, "go")?;
    }
    let points = parts.iter_mut().map(Part::told).collect::<anyhow::Result<Vec<_>>>()?;
    points.into_iter().reduce(|whole, point| sum(whole, &point)).context("no server")
}

impl Part {
    fn start(options: &Options, clients: usize, rate: u32) -> anyhow::Result<Self> {
        let own = std::env::current_exe()?;
        let (own, server) = (own.to_str().context("a path is not UTF-8")?, options.server()?);
        let cores: Vec<_> = options.server_core.iter().map(usize::to_string).collect();
        let numbers = [clients.to_string(), rate.to_string(), options.seconds.unwrap_or(10).to_string()];
        let core = options.load_core.to_string();
        let (cores, server) = (cores.join(","), server.to_str().context("a path is not UTF-8")?);
        let mut arguments = vec![
            own,
            "scale-part",
            "--server",
            server,
            "--server-core",
            &cores,
            "--load-core",
            &core,
            "--clients",
            &numbers[0],
            "--rate",
            &numbers[1],
            "--seconds",
            &numbers[2],
        ];
        if options.no_pin {
            arguments.push("--no-pin");
        }
        let mut child =
            Child::start(&arguments, &[], |command| command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let process = child.process();
        let stdin = process.stdin.take().context("no pipe")?;
        let lines = BufReader::new(process.stdout.take().context("no pipe")?);
        Ok(Self { stdin, lines, _child: child })
    }

    fn told(&mut self) -> anyhow::Result<Point> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        serde_json::from_str(&line).context("a part does not tell what it measured")
    }
}

/// Both as one. Latencies are the later ones': their clients read on the same core.
fn sum(one: Point, other: &Point) -> Point {
    let deliveries = one.deliveries + other.deliveries;
    let share = one.deliveries as f64 / deliveries.max(1) as f64;
    let mean = |one: f64, other: f64| one * share + other * (1.0 - share);
    let noise = |one: Noise, other: Noise| Noise {
        server: one.server + other.server,
        // What each takes for others are the parts themselves.
        others: 0.0,
        tool: one.tool + other.tool,
    };
    Point {
        servers: one.servers + other.servers,
        clients: one.clients + other.clients,
        feeds: one.feeds + other.feeds,
        connect_cpu_us: one.connect_cpu_us + other.connect_cpu_us,
        opened_in_s: one.opened_in_s + other.opened_in_s,
        pss_kib: one.pss_kib + other.pss_kib,
        kernel_kib: one.kernel_kib + other.kernel_kib,
        queued_kib: one.queued_kib + other.queued_kib,
        deliveries,
        cpu_us_per_delivery: mean(one.cpu_us_per_delivery, other.cpu_us_per_delivery),
        cpu_us_per_event: one.cpu_us_per_event + other.cpu_us_per_event,
        bytes_per_delivery: mean(one.bytes_per_delivery, other.bytes_per_delivery),
        latency_ms: [0, 1, 2].map(|at| one.latency_ms[at].max(other.latency_ms[at])),
        lost: one.lost + other.lost,
        connecting: noise(one.connecting, other.connecting),
        noise: noise(one.noise, other.noise),
        ..one
    }
}
