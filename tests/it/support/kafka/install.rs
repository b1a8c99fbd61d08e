//! Where Apache Kafka's jars are: resolved by Maven from `tests/kafka/pom.xml`, once.
//!
//! `target/kafka/cp.txt` keeps the class path and `target/kafka/pom.xml` the description it was
//! resolved from. As long as that equals ours and the jars exist, Maven is not run again.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const POM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kafka/pom.xml");

/// The class path, or why there is none. Blocks, for a minute or more the first time.
pub fn classpath() -> Result<String, String> {
    run("java", &["-version"]).map_err(|e| format!("Java does not run ({e})"))?;
    let dir = dir();
    let resolve = || {
        fs::create_dir_all(&dir)?;
        // Only one of several test binaries asks Maven; the others find its answer.
        let lock = File::create(dir.join("lock"))?;
        lock.lock()?;
        match cached(&dir) {
            Some(classpath) => Ok(classpath),
            None => resolve(&dir),
        }
    };
    resolve().map_err(|e: io::Error| format!("Maven did not resolve it ({e})"))
}

/// Prints to the terminal, past libtest's capturing.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn cached(dir: &Path) -> Option<String> {
    let same_pom = fs::read(dir.join("pom.xml")).ok()? == fs::read(POM).ok()?;
    let classpath = fs::read_to_string(dir.join("cp.txt")).ok()?;
    let jars_exist = classpath.trim().split(':').all(|jar| Path::new(jar).is_file());
    (same_pom && jars_exist).then(|| classpath.trim().into())
}

fn resolve(dir: &Path) -> io::Result<String> {
    say("resolving Apache Kafka from Maven Central, once");
    let output = format!("-Dmdep.outputFile={}", dir.join("cp.txt").display());
    let goal = "dependency:build-classpath";
    run("mvn", &["-B", "-q", "-f", POM, goal, "-DincludeScope=runtime", &output])?;
    // Last, as it vouches for the class path.
    fs::copy(POM, dir.join("pom.xml"))?;
    cached(dir).ok_or_else(|| io::Error::other("its class path names jars that do not exist"))
}

/// Cargo gives integration tests `target/tmp`; ours is beside it.
fn dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("kafka")
}

fn run(program: &str, args: &[&str]) -> io::Result<()> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| io::Error::new(e.kind(), format!("{program}: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    Err(io::Error::other(format!("{program}: {}: {first}", output.status)))
}
