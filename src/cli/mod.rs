//! The command line: thin. A command reads the configuration and starts the app, or asks a running one, and says how it
//! went in its exit status: 0, 78 for a configuration with problems (`EX_CONFIG` of sysexits.h), 1 for anything else;
//! `status` has one more.

mod completions;
mod demo;
mod dial;
mod explain;
#[cfg(debug_assertions)]
mod fault;
mod logs;
mod operator;
mod pipe;
mod reload;
mod schema;
mod serve;
mod status;
mod systemd;
mod tail;
mod text;
mod top;
mod upgrade;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::config;

/// Server-Sent Events over TLS, from Redis, Kafka, NATS, MQTT, RabbitMQ, Postgres, HTTP and files.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the routes of a configuration file until SIGTERM or SIGINT
    Serve {
        /// The YAML file; config.example.yaml shows every key
        #[arg(long, short, value_name = "FILE")]
        config: PathBuf,
    },
    /// Say what a configuration file would serve, or everything that is wrong with it
    Check {
        /// The YAML file
        #[arg(long, short, value_name = "FILE")]
        config: PathBuf,
        /// Say what a reload would change where this file is served
        #[arg(long, value_name = "FILE")]
        against: Option<PathBuf>,
    },
    /// Have a running ssegate read its configuration file again, and say what came of it
    Reload(reload::Options),
    /// Serve example streams with a page that shows them, without any configuration
    Demo(demo::Options),
    /// Serve the lines of standard input as they come: some-command | ssegate pipe
    Pipe(pipe::Options),
    /// Follow an event stream on the terminal, as a browser's EventSource does
    Tail(Box<tail::Options>),
    /// Show how a running ssegate is, as its admin listener tells
    Status(status::Options),
    /// Watch a running ssegate, with what each route sends a second
    Top(top::Options),
    /// Have a running ssegate replaced by the binary and the configuration that are there now, without a refused connection
    Upgrade(upgrade::Options),
    /// Say what a key of the configuration means, its default, its bounds, and how it is written
    Explain {
        /// A key, such as routes.replay.max_events, or the end of one; without it the sections are listed
        #[arg(value_name = "KEY")]
        key: Option<String>,
    },
    /// Print the JSON Schema of configurations, for editors
    Schema,
    /// Print the script by which a shell completes this command line
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, or write a page for each command into a folder
    Man {
        /// Where to write them
        #[arg(value_name = "FOLDER")]
        folder: Option<PathBuf>,
    },
}

/// Runs the command that the arguments name.
pub fn run() -> ExitCode {
    rustls::crypto::aws_lc_rs::default_provider().install_default().expect("installed once, here");
    let done = |()| ExitCode::SUCCESS;
    let outcome = match Cli::parse().command {
        Command::Serve { config } => serve::run(&config).map(done),
        Command::Check { config, against } => check(&config, against.as_deref()).map(done),
        Command::Reload(options) => reload::run(&options),
        Command::Demo(options) => demo::run(&options).map(done),
        Command::Pipe(options) => pipe::run(&options).map(done),
        Command::Tail(options) => tail::run(*options),
        Command::Status(options) => status::run(&options),
        Command::Top(options) => top::run(&options).map(done),
        Command::Upgrade(options) => upgrade::run(&options).map(done),
        Command::Explain { key } => explain::run(key.as_deref()).map(done),
        Command::Schema => schema::run().map(done),
        Command::Completions { shell } => completions::run(shell, Cli::command()).map(done),
        Command::Man { folder } => completions::man(folder.as_deref(), Cli::command()).map(done),
    };
    match outcome {
        Ok(status) => status,
        Err(error) => {
            eprintln!("ssegate: {error:#}");
            upgrade::tell_why_not(&error);
            ExitCode::from(if error.is::<config::Problems>() { EX_CONFIG } else { 1 })
        }
    }
}

/// What a file would serve, or what it would change.
fn check(file: &Path, against: Option<&Path>) -> anyhow::Result<()> {
    let config = config::load(file)?;
    let shown = match against {
        None => config::summary(&config),
        Some(before) => {
            let changes = config::changes(&config::load(before)?, &config);
            match changes.is_empty() {
                true => "nothing changes\n".to_owned(),
                false => changes.iter().map(|change| format!("{change}\n")).collect(),
            }
        }
    };
    text::print(&shown)?;
    config::warnings(&config).iter().for_each(|warning| eprintln!("warning: {warning}"));
    Ok(())
}

const EX_CONFIG: u8 = 78;
