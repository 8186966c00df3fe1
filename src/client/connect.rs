//! Connects to the embedder's socket, counting its file descriptor against PostgreSQL's limit.

use std::io::{self, ErrorKind};
use std::os::fd::FromRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use pgrx::pg_sys;

use super::{Client, Deadline, check_startable, is_end, unreachable_because, wait};
use crate::error::Result;
use crate::shared::embedder;

/// How long a session waits for a supervisor to start.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause between two attempts to connect meanwhile.
const START_PAUSE: Duration = Duration::from_millis(50);

/// A file descriptor reserved from PostgreSQL's limit (AcquireExternalFD).
pub struct Descriptor;

impl Descriptor {
    /// Reserves one; an error if PostgreSQL has none left.
    pub fn acquire() -> io::Result<Descriptor> {
        // SAFETY: the call only counts, and closes virtual files of PostgreSQL if there are too many.
        match unsafe { pg_sys::AcquireExternalFD() } {
            true => Ok(Descriptor),
            false => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: the call only counts, and one was acquired.
        unsafe { pg_sys::ReleaseExternalFD() }
    }
}

/// Connects without blocking; a full connection queue of the embedder is an error too.
pub fn connect_nonblocking(path: &str) -> io::Result<UnixStream> {
    // SAFETY: the call takes numbers only.
    let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and has no other owner.
    let stream = unsafe { UnixStream::from_raw_fd(fd) };
    stream.set_nonblocking(true)?;
    // SAFETY: the descriptor is open; programs started by this session must not inherit it.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: an address is plain bytes, for which zeros are valid.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    if path.len() >= address.sun_path.len() {
        return Err(ErrorKind::InvalidInput.into());
    }
    for (to, from) in address.sun_path.iter_mut().zip(path.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: the address lives on this stack, and its path ends with a zero.
    let result = unsafe {
        libc::connect(
            fd,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_un>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(stream) }
}

/// Connects, and waits for an embedder that is starting.
pub fn connect_with_retries(deadline: &Deadline) -> Result<Client> {
    let begin = Instant::now();
    loop {
        let error = match Client::open() {
            Ok(client) => return Ok(client),
            Err(error) => error,
        };
        check_startable()?;
        let is_passing = is_end(&error)
            || matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::WouldBlock
            );
        let is_supervised = embedder::get().is_supervised;
        if !is_passing || (!is_supervised && begin.elapsed() >= START_TIMEOUT) {
            return Err(unreachable_because(&error));
        }
        wait(None, deadline.rest()?.min(START_PAUSE));
    }
}
