//! `ssegate reload`: has a running ssegate read its file again, and says what came of it, also where systemd asks. Where the
//! admin listener cannot be asked, a signal does, and then the log tells.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use http::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::operator::{self, Operator};
use super::status::{entries, no_answer, word};
use super::text;

/// The arguments of `reload`.
#[derive(Debug, Args)]
#[command(after_help = STATUS)]
pub(super) struct Options {
    #[command(flatten)]
    operator: operator::Options,
    /// Send SIGHUP to this process where the admin listener cannot be asked, or the file has problems
    #[arg(long, value_name = "PID")]
    pid: Option<i32>,
}

const STATUS: &str = "Exit status: 0 when it was done, or was asked for by a signal; 1 when it was refused, or nobody \
answers; 78 when the file has problems.";

/// Asks, and prints the answer.
pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let operator = match Operator::new(&options.operator) {
        Ok(operator) => operator,
        // The process is to know it, too: it logs, counts and shows it.
        Err(problems) if problems.is::<crate::config::Problems>() => {
            hang_up(options)?;
            return Err(problems);
        }
        Err(error) => return instead(options, error),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(operator.reload()) {
        Ok((StatusCode::OK, answer)) => {
            let changes: String = told(&answer, "changes").map(|change| format!("{change}\n")).collect();
            text::print(&format!("{changes}reloaded, generation {}\n", word(&answer["generation"])))?;
            Ok(ExitCode::SUCCESS)
        }
        Ok((StatusCode::UNPROCESSABLE_ENTITY | StatusCode::CONFLICT, answer)) => {
            let problems: Vec<_> = told(&answer, "problems").collect();
            bail!(
                "{}",
                [word(&answer["detail"])].into_iter().chain(problems).collect::<Vec<_>>().join("\n  ")
            )
        }
        Ok((status, _)) => instead(options, anyhow::anyhow!("it answers {status}")),
        Err(error) => instead(options, error.context(no_answer(&operator))),
    }
}

/// Asks by a signal, if that may be.
fn instead(options: &Options, why: anyhow::Error) -> anyhow::Result<ExitCode> {
    if !hang_up(options)? {
        return Err(why);
    }
    eprintln!("ssegate: {why:#}");
    text::print("asked by SIGHUP instead; the log of the process tells what came of it\n")?;
    Ok(ExitCode::SUCCESS)
}

fn hang_up(options: &Options) -> anyhow::Result<bool> {
    let Some(pid) = options.pid else { return Ok(false) };
    let process = Pid::from_raw(pid).with_context(|| format!("{pid} is no process"))?;
    kill_process(process, Signal::HUP).with_context(|| format!("SIGHUP cannot be sent to {pid}"))?;
    Ok(true)
}

fn told<'d>(answer: &'d Value, name: &str) -> impl Iterator<Item = String> + use<'d> {
    entries(answer, name).map(word)
}
