//! What an authority gave, as files that only ssegate reads: the account, and each domain's key with its chain. A file is
//! replaced as a whole. What cannot be read is as good as not there.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;

use crate::config::Identity;

/// The folder of one authority.
#[derive(Clone)]
pub(super) struct Cache(PathBuf);

impl Cache {
    /// What came from the authority with this directory, which is named after its host.
    pub fn new(root: &Path, directory: &str) -> Self {
        let host = directory
            .split('/')
            .nth(2)
            .unwrap_or_default()
            .replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let hash = digest(&SHA256, directory.as_bytes());
        Self(root.join(format!("{host}-{}", HEXLOWER.encode(&hash.as_ref()[..4]))))
    }

    /// Sees that something can be kept, and that nobody else reads or replaces it.
    pub fn prepare(&self) -> anyhow::Result<()> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.0);
        let made = made.and_then(|()| self.close());
        let tried =
            made.and_then(|()| self.keep(PROBE, b"")).and_then(|()| fs::remove_file(self.0.join(PROBE)));
        tried.with_context(|| format!("cannot write to `{}`, the folder of `acme.cache`", self.0.display()))
    }

    /// The folder may have been there before.
    fn close(&self) -> io::Result<()> {
        let mut permissions = fs::metadata(&self.0)?.permissions();
        if permissions.mode() & 0o077 != 0 {
            tracing::warn!(path = %self.0.display(), "others could read the cache of ACME; now its owner alone can");
            permissions.set_mode(0o700);
            fs::set_permissions(&self.0, permissions)?;
        }
        Ok(())
    }

    /// A domain's certificate.
    pub fn certificate(&self, domain: &str) -> Option<Identity> {
        let path = self.0.join(file(domain));
        let pem = read(&path)?;
        let identity = Identity::from_pem(&pem, &pem);
        identity.inspect_err(|error| warn(&path, error)).ok()
    }

    /// Keeps a domain's key and chain.
    pub fn keep_certificate(&self, domain: &str, pem: &str) -> anyhow::Result<()> {
        self.keep(&file(domain), pem.as_bytes())
            .with_context(|| format!("the certificate of {domain} cannot be kept"))
    }

    /// The account.
    pub fn account(&self) -> Option<instant_acme::AccountCredentials> {
        let path = self.0.join(ACCOUNT);
        let account = serde_json::from_slice(&read(&path)?);
        account.inspect_err(|error| warn(&path, error)).ok()
    }

    /// Keeps the account.
    pub fn keep_account(&self, account: &instant_acme::AccountCredentials) -> anyhow::Result<()> {
        self.keep(ACCOUNT, &serde_json::to_vec(account)?).context("the account cannot be kept")
    }

    /// Another account is to be made.
    pub fn forget_account(&self) {
        let _ = fs::remove_file(self.0.join(ACCOUNT));
    }

    /// Replaces a file, readable by its owner alone. Two processes may do so at once.
    fn keep(&self, name: &str, content: &[u8]) -> io::Result<()> {
        // A name that nobody knows before: what is there already may be a link that leads elsewhere.
        let new = self.0.join(format!(".{name}.{:016x}", rand::random::<u64>()));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        let kept = file.write_all(content).and_then(|()| file.sync_all());
        let kept = kept.and_then(|()| fs::rename(&new, self.0.join(name)));
        kept.inspect_err(|_| drop(fs::remove_file(&new)))
    }
}

fn read(path: &Path) -> Option<Vec<u8>> {
    match fs::read(path) {
        Ok(content) => Some(content),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            warn(path, &error);
            None
        }
    }
}

fn warn(path: &Path, error: &dyn std::fmt::Display) {
    tracing::warn!(path = %path.display(), %error, "what the cache of ACME holds cannot be used");
}

fn file(domain: &str) -> String {
    format!("{domain}.pem")
}

const ACCOUNT: &str = "account.json";
const PROBE: &str = "probe";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_kept_is_found_by_its_owner_alone() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::new(&root.path().join("acme"), "https://ca.example:14000/dir");
        assert!(cache.certificate("a.example").is_none() && cache.account().is_none());
        cache.prepare().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        let pem = made.signing_key.serialize_pem() + &made.cert.pem();
        cache.keep_certificate("a.example", &pem).unwrap();
        assert_eq!(cache.certificate("a.example").unwrap().names, ["a.example"]);
        let files: Vec<_> = fs::read_dir(&cache.0).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files, [cache.0.join("a.example.pem")], "nothing is left over");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&files[0]), mode(&cache.0)), (0o600, 0o700));
        let name = cache.0.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("ca-example-14000-"), "{name}");
        let other = Cache::new(&root.path().join("acme"), "https://ca.example:14000/other");
        assert!(other.certificate("a.example").is_none());
        cache.keep_certificate("a.example", "no PEM").unwrap();
        assert!(cache.certificate("a.example").is_none());
    }

    #[test]
    fn a_folder_that_was_there_is_closed_and_no_link_in_it_is_followed() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::new(root.path(), "https://ca.example/dir");
        let victim = root.path().join("victim");
        fs::write(&victim, "theirs").unwrap();
        DirBuilder::new().mode(0o777).create(&cache.0).unwrap();
        fs::set_permissions(&cache.0, fs::Permissions::from_mode(0o777)).unwrap();
        for name in ["probe", "a.example.pem"] {
            symlink(&victim, cache.0.join(format!(".{name}.{}", std::process::id()))).unwrap();
        }
        symlink(&victim, cache.0.join("a.example.pem")).unwrap();
        cache.prepare().unwrap();
        cache.keep_certificate("a.example", "ours").unwrap();
        assert_eq!(fs::metadata(&cache.0).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_to_string(&victim).unwrap(), "theirs");
        let kept = cache.0.join("a.example.pem");
        assert_eq!(fs::read_to_string(&kept).unwrap(), "ours");
        assert_eq!(fs::symlink_metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Cache::new(file.path(), "https://ca.example").prepare().unwrap_err();
        assert!(format!("{error:#}").contains("the folder of `acme.cache`"), "{error:#}");
    }
}
