//! Where the admin listener listens: an address, or a Unix socket, whose file goes with the process that has made it.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as Probe;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, fs};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpStream, UnixListener, UnixStream};

use crate::config::AdminListen;
use crate::http::{self, Inherited};

/// A place that is bound and not served yet.
pub enum Bound {
    /// An address.
    Tcp(http::Bound),
    /// A socket with a file.
    Unix(UnixListener, PathBuf),
    /// The same, whose file is systemd's or a predecessor's.
    Passed(UnixListener, PathBuf),
}

/// A connection.
pub(super) enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The file of a socket that this process has made. It goes with this, unless another process has put its own there.
pub struct SocketFile {
    path: PathBuf,
    id: Option<(u64, u64)>,
}

/// Binds it, unless a socket that was `inherited` listens there.
///
/// # Errors
/// The place in words that say what to do, if it is taken or not to be had.
pub fn bind(listen: &AdminListen, inherited: &mut Inherited) -> anyhow::Result<Bound> {
    match listen {
        AdminListen::Tcp(addr) => http::bind(*addr, inherited).map(Bound::Tcp),
        AdminListen::Unix(path) => {
            let bound = match inherited.take_unix(path) {
                Some(listener) => take_over(listener).map(|listener| Bound::Passed(listener, path.clone())),
                None => bind_file(path).map(|listener| Bound::Unix(listener, path.clone())),
            };
            bound.map_err(|error| {
                let advice = match error.kind() {
                    ErrorKind::AddrInUse => "another process listens there; stop it, or choose another path",
                    ErrorKind::AlreadyExists => "this is not a socket; choose another path, or remove it",
                    ErrorKind::NotFound => "its folder is not there; make it, or choose another path",
                    ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                        "its folder is not to be written to; under systemd RuntimeDirectory= makes one below /run"
                    }
                    _ => return anyhow::anyhow!("cannot listen on {listen}: {error}"),
                };
                anyhow::anyhow!("cannot listen on {listen}: {error}; {advice}")
            })
        }
    }
}

fn take_over(listener: std::os::unix::net::UnixListener) -> io::Result<UnixListener> {
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

fn bind_file(path: &Path) -> io::Result<UnixListener> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Before it listens, so that nobody gets in who may not.
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    socket.listen(BACKLOG)?;
    UnixListener::from_std(socket.into())
}

/// Removes what a process has left behind that was killed.
fn remove_stale(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    match Probe::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Ok(_) | Err(_) => Err(ErrorKind::AddrInUse.into()),
    }
}

impl Bound {
    /// The file of a Unix socket, to be kept until nobody is to be let in any more. What is another's outlives a failure
    /// of this process; the last of several leaves its file, and who comes next puts its own there.
    pub fn file(&self) -> Option<SocketFile> {
        let Self::Unix(_, path) = self else { return None };
        Some(SocketFile { path: path.clone(), id: id_of(path).ok() })
    }

    /// The socket once more. The place is taken for as long as it is kept.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn socket(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(bound) => bound.socket(),
            Self::Unix(listener, _) | Self::Passed(listener, _) => listener.as_fd().try_clone_to_owned(),
        }
    }

    /// The address, with the port that was given where 0 was asked for.
    pub fn addr(&self) -> Option<std::net::SocketAddr> {
        match self {
            Self::Tcp(bound) => Some(bound.addr),
            Self::Unix(..) | Self::Passed(..) => None,
        }
    }

    /// The next connection, for which it tries as long as it takes.
    pub(super) async fn accept(&self) -> Accepted {
        match self {
            Self::Tcp(bound) => Accepted::Tcp(bound.accept().await.0),
            Self::Unix(listener, _) | Self::Passed(listener, _) => loop {
                match listener.accept().await {
                    Ok((socket, _)) => return Accepted::Unix(socket),
                    // Descriptors have run out, most likely, which the public listeners log.
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
            },
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(bound) => bound.addr.fmt(f),
            Self::Unix(_, path) | Self::Passed(_, path) => AdminListen::Unix(path.clone()).fmt(f),
        }
    }
}

impl SocketFile {
    /// Leaves it to another process, which listens there.
    pub fn leave(mut self) {
        self.id = None;
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.id.is_some_and(|id| id_of(&self.path).is_ok_and(|there| there == id)) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What tells a file from another one of the same path.
fn id_of(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

/// For its owner and its group.
const MODE: u32 = 0o660;
/// Connections not yet accepted.
const BACKLOG: i32 = 128;
const PAUSE: Duration = Duration::from_millis(250);
