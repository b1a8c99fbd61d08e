//! `ssegate top`: how a running ssegate is, looked at every second, with what each route sends meanwhile.

mod frame;
mod screen;

use std::io::IsTerminal as _;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::operator::{self, Operator};
use super::status::no_answer;
use frame::{Look, frame};
use screen::Screen;

/// The arguments of `top`.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    operator: operator::Options,
}

/// Shows it until somebody presses `q`.
pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        bail!("`top` draws on a terminal, and this is none; use `ssegate status`");
    }
    let operator = Operator::new(&options.operator)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(watch(&operator));
    runtime.shutdown_background();
    outcome
}

async fn watch(operator: &Operator) -> anyhow::Result<()> {
    // Whoever does not answer at first is most likely not there.
    let first = operator.status().await.with_context(|| no_answer(operator))?;
    let mut look =
        Look { name: operator.name(), document: first, at: Instant::now(), before: None, trouble: None };
    let (mut screen, mut keys) = Screen::open()?;
    let mut resized = signal(SignalKind::window_change())?;
    let (mut ended, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let asked = async || {
        tokio::time::sleep(PACE).await;
        operator.status().await
    };
    let mut next = Box::pin(asked());
    loop {
        screen.draw(&frame(&look, SystemTime::now(), screen.size()))?;
        tokio::select! {
            key = keys.recv() => match key {
                Some(b'q' | b'Q' | CTRL_C | CTRL_D) | None => return Ok(()),
                Some(_) => {}
            },
            _ = resized.recv() => {}
            _ = ended.recv() => return Ok(()),
            _ = interrupted.recv() => return Ok(()),
            answer = &mut next => {
                match answer {
                    Ok(document) => look.next(document, Instant::now()),
                    Err(why) => look.trouble = Some(format!("{why:#}")),
                }
                next.set(asked());
            }
        }
    }
}

const PACE: Duration = Duration::from_secs(1);
/// As keys, since the terminal does not make signals of them meanwhile.
const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
