//! Real browsers, headless and without a driver: each opens one page in a fresh profile.
//!
//! They trust the test CA through an NSS database made with `certutil`, and nothing else of the
//! machine's: home and profile are temporary. What the page sees comes back through
//! [`super::collector`]. Dropping a [`Browser`] kills its process group.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::child::{self, Child};
use super::scratch;
use super::tls::TestCa;

/// A running browser.
pub struct Browser {
    process: Child,
    log: PathBuf,
    /// Removed after the process is gone: fields are dropped in order.
    _home: TempDir,
}

impl Browser {
    /// Opens `page` in Chromium.
    pub async fn chromium(ca: &TestCa, page: &str) -> Self {
        let home = scratch::dir("chromium");
        trust(ca, &home.path().join(".pki/nssdb")).await;
        let mut command = child::command("chromium");
        command
            .args(CHROMIUM_FLAGS)
            .arg(format!("--user-data-dir={}", home.path().join("profile").display()));
        Self::start(command, home, page)
    }

    /// Opens `page` in Firefox ESR.
    pub async fn firefox(ca: &TestCa, page: &str) -> Self {
        let home = scratch::dir("firefox");
        let profile = home.path().join("profile");
        trust(ca, &profile).await;
        fs::write(profile.join("user.js"), FIREFOX_PREFS).expect("write user.js");
        let mut command = child::command("firefox-esr");
        command.args(["--headless", "--no-remote", "--profile"]).arg(&profile);
        Self::start(command, home, page)
    }

    /// Opens Chromium on nothing, to be driven through the pipes of these names in its home (see [`super::devtools`]).
    pub(super) fn driven([to, from]: [&str; 2]) -> (Self, PathBuf) {
        let home = scratch::dir("chromium");
        let path = home.path().to_owned();
        for pipe in [to, from] {
            let made = Command::new("mkfifo").arg(path.join(pipe)).status().expect("mkfifo");
            assert!(made.success(), "mkfifo {pipe}: {made}");
        }
        // What it is told comes in as descriptor 3, and what it says goes out as 4.
        let mut command = child::command("sh");
        command
            .args(["-c", "cd \"$0\" && in=$1 out=$2 && shift 2 && exec chromium \"$@\" 3<\"$in\" 4>\"$out\""])
            .arg(&path)
            .args([to, from])
            .args(CHROMIUM_FLAGS)
            .arg("--remote-debugging-pipe")
            .arg(format!("--user-data-dir={}", path.join("profile").display()));
        (Self::start(command, home, "about:blank"), path)
    }

    fn start(mut command: Command, home: TempDir, page: &str) -> Self {
        let log = home.path().join("browser.log");
        let output = File::create(&log).expect("create the log");
        command
            .arg(page)
            .env("HOME", home.path())
            .env("TMPDIR", home.path())
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_CACHE_HOME")
            .env_remove("XDG_DATA_HOME")
            .env_remove("DBUS_SESSION_BUS_ADDRESS")
            .env_remove("DISPLAY")
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output);
        Self { process: Child::spawn(command), log, _home: home }
    }

    /// What it printed: for the message of a failing test.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_else(|e| format!("no log: {e}"))
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.try_wait().is_none()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.process.kill();
        if std::thread::panicking() {
            eprintln!("the browser's own log:\n{}", self.log());
        }
    }
}

/// Makes an NSS database in `dir` that trusts `ca` for servers.
async fn trust(ca: &TestCa, dir: &Path) {
    fs::create_dir_all(dir).expect("create the profile");
    let database = format!("sql:{}", dir.display());
    let ca = ca.cert_path();
    certutil(&["-N", "--empty-password", "-d", &database]).await;
    let ca = ca.to_str().expect("a path in UTF-8");
    certutil(&["-A", "-n", "ssegate test CA", "-t", "C,,", "-i", ca, "-d", &database]).await;
}

async fn certutil(args: &[&str]) {
    let mut command = child::command("certutil");
    command.args(args);
    let status = Child::spawn(command).wait_exit("certutil").await;
    assert!(status.success(), "certutil {args:?}: {status}");
}

const CHROMIUM_FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox", // It refuses to run as root otherwise, as containers do.
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--metrics-recording-only",
    "--no-default-browser-check",
    "--no-first-run",
    "--password-store=basic",
];

/// Quiet and offline: no update, telemetry, experiments, captive-portal probe, safe browsing or news.
const FIREFOX_PREFS: &str = r#"
user_pref("app.normandy.enabled", false);
user_pref("app.update.disabledForTesting", true);
user_pref("app.update.enabled", false);
user_pref("browser.aboutwelcome.enabled", false);
user_pref("browser.cache.disk.enable", false);
user_pref("browser.discovery.enabled", false);
user_pref("browser.newtabpage.enabled", false);
user_pref("browser.preonboarding.enabled", false);
user_pref("browser.region.network.url", "");
user_pref("browser.safebrowsing.blockedURIs.enabled", false);
user_pref("browser.safebrowsing.downloads.enabled", false);
user_pref("browser.safebrowsing.malware.enabled", false);
user_pref("browser.safebrowsing.phishing.enabled", false);
user_pref("browser.safebrowsing.provider.google4.updateURL", "");
user_pref("browser.safebrowsing.provider.mozilla.updateURL", "");
user_pref("browser.search.update", false);
user_pref("browser.sessionstore.resume_from_crash", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("browser.startup.homepage_override.mstone", "ignore");
user_pref("browser.startup.page", 0);
user_pref("browser.topsites.contile.enabled", false);
user_pref("datareporting.healthreport.uploadEnabled", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("datareporting.policy.dataSubmissionPolicyBypassNotification", true);
user_pref("dom.push.connection.enabled", false);
user_pref("extensions.blocklist.enabled", false);
user_pref("extensions.getAddons.cache.enabled", false);
user_pref("extensions.systemAddon.update.enabled", false);
user_pref("extensions.update.enabled", false);
user_pref("geo.enabled", false);
user_pref("media.gmp-manager.updateEnabled", false);
user_pref("messaging-system.rsexperimentloader.enabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("network.dns.disableIPv6", true);
user_pref("network.http.http3.enable", false);
user_pref("network.lna.enabled", false);
user_pref("network.prefetch-next", false);
user_pref("network.trr.mode", 5);
user_pref("services.settings.server", "https://127.0.0.1:9/");
user_pref("signon.autofillForms", false);
user_pref("toolkit.startup.max_resumed_crashes", -1);
user_pref("toolkit.telemetry.enabled", false);
user_pref("toolkit.telemetry.server", "");
user_pref("toolkit.telemetry.unified", false);
"#;
