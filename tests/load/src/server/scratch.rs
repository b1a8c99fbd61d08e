//! A folder for the files of one run. What a server logged of trouble is shown when it goes.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;

/// A folder, removed when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    /// An empty folder.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn new() -> anyhow::Result<Self> {
        let name = format!("ssegate-load-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    ///
    /// # Errors
    /// Where that is not UTF-8.
    pub fn path(&self) -> anyhow::Result<&str> {
        self.0.to_str().context("the path of temporary files is not UTF-8")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let log = fs::read_to_string(self.0.join(LOG)).unwrap_or_default();
        let news = log.lines().filter(|line| line.contains(r#""WARN""#) || line.contains(r#""ERROR""#));
        news.take(SHOWN).for_each(|line| eprintln!("the server's log: {line}"));
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The file that a server logs to.
pub const LOG: &str = "log";

/// Lines of trouble that are shown of it.
const SHOWN: usize = 5;
