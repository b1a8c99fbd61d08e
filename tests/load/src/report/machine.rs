//! Where and when it was measured, and what.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::args::Options;

/// Where and when it was measured, and what.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_mib: u64,
    pub kernel: String,
    pub distribution: String,
    /// In UTC.
    pub date: String,
    pub command: String,
    /// Of each server.
    pub versions: BTreeMap<String, String>,
}

impl Machine {
    /// This one, now.
    pub fn this(options: &Options) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (info, memory, release) = (read("/proc/cpuinfo"), read("/proc/meminfo"), read("/etc/os-release"));
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let total = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next());
        let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        Self {
            cpu: model.map_or("unknown", |(_, model)| model).to_owned(),
            cores: info.lines().filter(|line| line.starts_with("processor")).count(),
            memory_mib: total.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            distribution: name.unwrap_or("unknown").trim_matches('"').to_owned(),
            date: told("date", &["-u", "+%Y-%m-%d %H:%M"]),
            command: std::env::args().collect::<Vec<_>>().join(" "),
            versions: versions(options),
        }
    }

    /// As a table.
    pub fn markdown(&self) -> String {
        let Self { cpu, cores, memory_mib, kernel, distribution, date, command, versions } = self;
        let servers = versions.iter().map(|(name, version)| format!("| {name} | {version} |\n"));
        format!(
            "| | |\n|---|---|\n| machine | {cores} cores of {cpu}, {memory_mib} MiB, Linux {kernel}, {distribution} |\n\
             | date | {date} UTC |\n| command | `{command}` |\n{}",
            servers.collect::<String>()
        )
    }
}

fn versions(options: &Options) -> BTreeMap<String, String> {
    let peers = options.peer.iter().filter(|peer| peer.installed(options).is_ok());
    let mut versions: BTreeMap<_, _> =
        peers.map(|peer| (peer.name().to_owned(), peer.version(options))).collect();
    if let Some(server) = options.server.as_ref().and_then(|path| path.to_str()) {
        versions.insert("ssegate".to_owned(), told(server, &["--version"]));
    }
    versions
}

fn told(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
