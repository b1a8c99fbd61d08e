//! The command line: thin. Each command reads the configuration, starts the app and says how it went in its
//! exit status: 0, 78 for a configuration with problems (`EX_CONFIG` of sysexits.h), 1 for anything else.

mod demo;
mod logs;
mod serve;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{self, Config};

/// Redis and Kafka to Server-Sent Events, over TLS.
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
    },
    /// Serve example streams with a page that shows them, without any configuration
    Demo(demo::Options),
}

/// Runs the command that the arguments name.
pub fn run() -> ExitCode {
    rustls::crypto::aws_lc_rs::default_provider().install_default().expect("installed once, here");
    let outcome = match Cli::parse().command {
        Command::Serve { config } => with_config(&config, serve::run),
        Command::Check { config } => with_config(&config, |config| {
            print!("{}", config::summary(&config));
            Ok(())
        }),
        Command::Demo(options) => demo::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ssegate: {error:#}");
            ExitCode::from(if error.is::<config::Problems>() { EX_CONFIG } else { 1 })
        }
    }
}

fn with_config(file: &Path, run: impl FnOnce(Config) -> anyhow::Result<()>) -> anyhow::Result<()> {
    run(config::load(file)?)
}

const EX_CONFIG: u8 = 78;
