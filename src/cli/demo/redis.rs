//! A Redis as a child of the demo, where one is installed: on a free port of loopback, with a password drawn
//! anew, keeping nothing. It ends with the demo, however the demo ends.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use redis::aio::MultiplexedConnection;
use tokio::time::{Instant, sleep};

/// A running Redis. Ends when dropped.
pub(super) struct Redis {
    server: Server,
    connection: MultiplexedConnection,
}

impl Redis {
    /// Starts one.
    ///
    /// # Errors
    /// That none is installed, or does not start: no reason to do without the rest of the demo.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let program = installed().context("redis-server is not installed")?;
        let mut tried = Self::try_start(&program).await;
        // Another process may have taken the port.
        for _ in 1..TRIES {
            if tried.is_err() {
                tried = Self::try_start(&program).await;
            }
        }
        tried.with_context(|| format!("{} does not start", program.display()))
    }

    async fn try_start(program: &Path) -> anyhow::Result<Self> {
        let server = Server::start(program)?;
        let client = redis::Client::open(&*server.url)?;
        let until = Instant::now() + PATIENCE;
        loop {
            match client.get_multiplexed_async_connection().await {
                Ok(connection) => return Ok(Self { server, connection }),
                Err(error) if until <= Instant::now() => return Err(error.into()),
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Its URL, password included.
    pub(super) fn url(&self) -> &str {
        &self.server.url
    }

    /// A connection to publish on.
    pub(super) fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }
}

/// The child: a shell that runs the server for as long as its input is open. The kernel closes that even for a
/// parent that was killed.
struct Server {
    shell: Child,
    url: String,
}

impl Server {
    fn start(program: &Path) -> anyhow::Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let password = format!("{:032x}", rand::random::<u128>());
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "ssegate-demo-redis"])
            .arg(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C is for the demo, which ends its streams first.
            .process_group(0)
            .spawn()?;
        // Not as arguments, which every user of the machine can read.
        let settings =
            format!("bind 127.0.0.1\nport {port}\nrequirepass {password}\nsave \"\"\nappendonly no\n\n");
        let written = shell.stdin.as_mut().map(|stdin| stdin.write_all(settings.as_bytes()));
        let server = Self { shell, url: format!("redis://:{password}@127.0.0.1:{port}/0") };
        written.transpose()?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// Reads settings up to an empty line, runs the server `$1` with them, and kills it at the end of input.
const SCRIPT: &str = r#"
dir=$(mktemp -d) || exit
settings=
while read -r line && [ "$line" ]; do settings="$settings$line
"; done
printf '%sdir "%s"\n' "$settings" "$dir" | "$1" - &
cat >/dev/null
kill -KILL $!
wait
rm -rf -- "$dir"
"#;

/// The server's program, if the search path has one.
fn installed() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let programs = std::env::split_paths(&path).flat_map(|folder| PROGRAMS.map(|name| folder.join(name)));
    programs.into_iter().find(|program| program.is_file())
}

const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];
const TRIES: usize = 3;
/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
