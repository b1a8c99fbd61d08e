//! A real Postgres of the test's own, to publish to, kill, pause and bring back. It runs as an unprivileged user, as it
//! demands, in a folder of its own.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;
use tokio_postgres::{Client, Config, NoTls};

use super::child::{self, Child};
use super::tls::Leaf;
use super::wait::{DEADLINE, eventually, within};
use super::{ports, scratch};

/// A running (or killed) server. Whoever enters is believed, unless told otherwise.
pub struct Postgres {
    server: Option<Child>,
    port: u16,
    /// Further settings, as `name=value`.
    settings: Vec<String>,
    dir: TempDir,
}

impl Postgres {
    /// Starts a server on a free port and waits until it answers.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with further settings.
    pub async fn start_with(settings: &[&str]) -> Self {
        let dir = scratch::dir("postgres");
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        copy_template(&data(dir.path()));
        Self::start_in(dir, settings).await
    }

    /// One that speaks TLS, shows `leaf`, and lets in who has a password; the user `postgres` comes by the Unix socket.
    pub async fn start_tls(leaf: &Leaf) -> Self {
        let dir = scratch::dir("postgres");
        let data = data(dir.path());
        copy_template(&data);
        for (from, to) in [(&leaf.cert, "server.crt"), (&leaf.key, "server.key")] {
            let to = data.join(to);
            fs::copy(from, &to).expect("copy");
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).expect("chmod");
            own(&to);
        }
        let rules = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\nhostssl all all ::1/128 scram-sha-256\n";
        fs::write(data.join("pg_hba.conf"), rules).expect("write");
        Self::start_in(dir, vec!["ssl=on".into()]).await
    }

    async fn start_in(dir: TempDir, settings: Vec<String>) -> Self {
        let mut postgres = Self { server: None, port: 0, settings, dir };
        for _ in 0..3 {
            postgres.port = ports::free();
            if postgres.launch().await {
                return postgres;
            }
        }
        panic!("postgres does not start: {}", postgres.log());
    }

    /// For the configuration: the database `postgres`, as its owner.
    pub fn url(&self) -> String {
        self.url_at("postgres", self.port)
    }

    /// The same for another user, or at the port of a [`super::proxy::Proxy`].
    pub fn url_at(&self, user: &str, port: u16) -> String {
        format!("postgres://{user}@127.0.0.1:{port}/postgres?sslmode=disable")
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of its Unix socket.
    pub fn socket(&self) -> &Path {
        self.dir.path()
    }

    /// SIGKILL for all of its processes.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.server = None;
    }

    /// Starts it (again) on the same port and waits until it answers.
    pub async fn restart(&mut self) {
        self.kill();
        eventually("postgres to start again", async || match self.launch().await {
            true => Ok(()),
            // Of the one before some memory is in use until the last of its processes has ended.
            false => Err(self.log()),
        })
        .await;
    }

    /// What it holds now, as a replica has it that follows no further. The server is away for a moment.
    pub async fn copy(&mut self) -> TempDir {
        self.kill();
        let copy = scratch::dir("postgres-copy");
        copy_data(&data(self.dir.path()), &data(copy.path()));
        self.restart().await;
        copy
    }

    /// Kills it, and starts in its place what was copied.
    pub async fn restart_as(&mut self, copy: TempDir) {
        self.kill();
        let own = data(self.dir.path());
        fs::remove_dir_all(&own).expect("to make room");
        fs::rename(data(copy.path()), own).expect("to move the copy");
        self.restart().await;
    }

    /// SIGSTOP: connections stay open and new ones are accepted by the kernel, but nothing answers.
    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT after [`Self::pause`].
    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    /// Runs statements, each in a transaction of its own unless they say otherwise.
    pub async fn run(&self, statements: &str) {
        let client = self.connect().await;
        within("postgres to answer", client.batch_execute(statements)).await.expect("postgres does it");
    }

    /// A number that postgres is asked for.
    pub async fn number(&self, question: &str) -> i64 {
        let client = self.connect().await;
        within("postgres to answer", client.query_one(question, &[])).await.expect("an answer").get(0)
    }

    /// A connection of the test's own; what it has begun and not committed ends with it.
    pub async fn connect(&self) -> Client {
        within("a connection to postgres", self.try_connect()).await.expect("a connection")
    }

    /// The same where the server may be down.
    pub async fn try_connect(&self) -> Result<Client, tokio_postgres::Error> {
        Self::enter(&self.config()).await
    }

    /// How the rig itself enters: by the Unix socket.
    pub fn config(&self) -> Config {
        let mut config = Config::new();
        config.user("postgres").dbname("postgres").host_path(self.dir.path()).port(self.port);
        config.connect_timeout(DEADLINE);
        config
    }

    /// Enters so.
    pub async fn enter(config: &Config) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = config.connect(NoTls).await?;
        // Ends with the client.
        tokio::spawn(connection);
        Ok(client)
    }

    /// Waits until so many connections of ssegate listen.
    pub async fn until_listening(&self, count: i64) {
        let question = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ssegate' AND query LIKE 'LISTEN%'";
        eventually(&format!("{count} connections that listen"), async || {
            let now = self.number(question).await;
            if now >= count { Ok(()) } else { Err(format!("{now} so far")) }
        })
        .await;
    }

    /// False where the server ended at once, as it does when the port is taken.
    async fn launch(&mut self) -> bool {
        let server = Child::spawn(self.server_command());
        self.server = server.once_up("postgres", async || self.try_connect().await.map(drop)).await;
        self.server.is_some()
    }

    fn server_command(&self) -> Command {
        let mut command = unprivileged("postgres");
        command.arg("-D").arg(data(self.dir.path())).args(["-p", &self.port.to_string()]);
        let folder = format!("unix_socket_directories={}", self.dir.path().display());
        // Durable as far as a SIGKILL goes, which leaves what the kernel has.
        for setting in ["listen_addresses=127.0.0.1,::1", &folder, "fsync=off", "shared_buffers=16MB"] {
            command.args(["-c", setting]);
        }
        self.settings.iter().for_each(|setting| _ = command.args(["-c", setting]));
        let log = fs::File::create(self.log_file()).expect("a log");
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        command
    }

    /// Every process of a server leads a group of its own.
    fn signal(&mut self, signal: Signal) {
        let Some(server) = &mut self.server else { return };
        let leader = server.id();
        for pid in children(leader).into_iter().chain([leader]) {
            let pid = Pid::from_raw(pid as i32).expect("a process id");
            // One of them may have ended since.
            let _ = kill_process(pid, signal);
        }
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("postgres.log")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_else(|e| format!("no log: {e}"))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The processes whose parent is this one.
fn children(parent: u32) -> Vec<u32> {
    let of = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // After the name, which may hold anything: the state, and then the parent.
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok()
    };
    let names = fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.file_name());
    let pids = names.filter_map(|name| name.to_str()?.parse().ok());
    pids.filter(|&pid| of(pid) == Some(parent)).collect()
}

fn data(dir: &Path) -> PathBuf {
    dir.join("data")
}

/// A copy of an empty cluster, which is made once.
fn copy_template(to: &Path) {
    own(to.parent().expect("a folder"));
    copy_data(&TEMPLATE, to);
}

fn copy_data(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp");
    assert!(copied.success(), "cp");
}

static TEMPLATE: LazyLock<PathBuf> = LazyLock::new(|| {
    let dir = scratch::dir("postgres-template").keep();
    // Whoever runs the server has to get there, and nobody else needs to look around.
    fs::set_permissions(dir.parent().expect("a folder"), fs::Permissions::from_mode(0o711)).expect("chmod");
    own(&dir);
    let mut command = unprivileged("initdb");
    command.args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "-D"]);
    let made = command.arg(data(&dir)).output().expect("initdb");
    assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
    data(&dir)
});

/// A program of Postgres, which refuses to run as root.
fn unprivileged(program: &str) -> Command {
    let program = bin().join(program);
    if !geteuid().is_root() {
        return child::command(program);
    }
    let mut command = child::command("setpriv");
    // Once more, since a process that changes its user loses it.
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--pdeathsig", "KILL", "--"]);
    command.arg(program);
    command
}

/// Gives a file to whoever runs the server.
fn own(path: &Path) {
    if geteuid().is_root() {
        let id = NOBODY.parse().ok();
        chown(path, id, id).expect("chown");
    }
}

/// Where its programs are: Debian has those of each version in a folder of its own.
fn bin() -> PathBuf {
    let of_versions = || -> io::Result<Option<PathBuf>> {
        let versions = fs::read_dir("/usr/lib/postgresql")?.flatten();
        let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
        let bins = versions.map(|entry| entry.path()).max_by_key(number);
        Ok(bins.map(|version| version.join("bin")))
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).find(|dir| dir.join("initdb").is_file());
    found.or_else(|| of_versions().ok().flatten()).expect("Postgres is installed: scripts/need.sh test")
}

const NOBODY: &str = "65534";
