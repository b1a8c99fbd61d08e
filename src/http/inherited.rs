//! Sockets that listen already: systemd's, which holds them while the service restarts, or those of the process before
//! this one, which serves them until this one is ready. The protocol is that of sd_listen_fds(3); a predecessor cannot know
//! this process's id, and leaves `LISTEN_PID` out.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use listenfd::ListenFd;

/// Listening sockets that this process was started with.
#[derive(Debug, Default)]
pub struct Inherited {
    tcp: Vec<(SocketAddr, TcpListener)>,
    unix: Vec<(PathBuf, UnixListener)>,
}

impl Inherited {
    /// Those that the environment names. To be asked once, before there is a second thread: the variables go.
    ///
    /// # Errors
    /// One that does not listen.
    pub fn from_env() -> anyhow::Result<Self> {
        let mut passed = ListenFd::from_env();
        let mut inherited = Self::default();
        for at in 0..passed.len() {
            // What is of another kind is left where it is.
            if let Ok(Some(listener)) = passed.take_tcp_listener(at) {
                inherited.tcp.push((listener.local_addr()?, listener));
                continue;
            }
            let taken = passed.take_unix_listener(at).with_context(|| {
                let nth = at + 1;
                format!(
                    "socket {nth} of those that were passed (LISTEN_FDS) is of no use; pass listeners alone"
                )
            })?;
            if let Some(listener) = taken {
                let path = listener.local_addr()?.as_pathname().map(PathBuf::from).unwrap_or_default();
                inherited.unix.push((path, listener));
            }
        }
        Ok(inherited)
    }

    /// The one that listens on `addr`, if there is one. Where port 0 is asked for, any port of the address is meant.
    pub(super) fn take(&mut self, addr: SocketAddr) -> Option<TcpListener> {
        let is_it =
            |listens: &SocketAddr| *listens == addr || (addr.port() == 0 && listens.ip() == addr.ip());
        let at = self.tcp.iter().position(|(listens, _)| is_it(listens))?;
        Some(self.tcp.remove(at).1)
    }

    /// The one whose file is `path`, if there is one.
    pub fn take_unix(&mut self, path: &Path) -> Option<UnixListener> {
        let at = self.unix.iter().position(|(listens, _)| listens == path)?;
        Some(self.unix.remove(at).1)
    }

    /// Where those listen that nobody has taken.
    pub fn places(&self) -> impl Iterator<Item = String> {
        let tcp = self.tcp.iter().map(|(addr, _)| addr.to_string());
        tcp.chain(self.unix.iter().map(|(path, _)| format!("unix:{}", path.display())))
    }
}
