//! The embedder's process: it opens the socket, keeps the server running and speaks for it to PostgreSQL.

use std::fs::Permissions;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use pgrx::prelude::*;
use pgrx::{check_for_interrupts, pg_sys};

use crate::embedder::server::{self, Log, LogLevel};
use crate::embedder::wire::SOCKET_PATH;
use crate::worker::signals::{self, Terminate};

/// What the postmaster runs as the embedder.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn embedd_embedder_main(_arg: pg_sys::Datum) {
    signals::accept(Terminate::Flag);
    let ended = run();
    // The file goes also when the server failed: a session then sees at once that nobody is there.
    let _ = std::fs::remove_file(SOCKET_PATH);
    if let Err(error) = ended {
        ereport!(
            PgLogLevel::WARNING,
            PgSqlErrorCode::ERRCODE_IO_ERROR,
            format!("the embedder cannot run: {error}")
        );
    }
    // SAFETY: this is the main thread; with 1 the postmaster starts the process again, unless it is shutting down.
    unsafe { pg_sys::proc_exit(1) };
}

/// Serves until PostgreSQL wants the process to end or the server has ended by itself.
fn run() -> io::Result<()> {
    let listener = listen()?;
    let (sender, mut lines) = server::log_channel()?;
    let server = server::spawn(listener, crate::guc::embedder_config(), sender)?;
    loop {
        check_for_interrupts!();
        lines.drain().into_iter().for_each(write);
        if signals::shutdown_requested() {
            server.stop();
            server.save_usage();
            return Ok(());
        }
        if server.has_ended() {
            return Ok(());
        }
        if signals::reload_if_asked() {
            server.reconfigure(crate::guc::embedder_config());
        }
        // For a signal, or for a line to be logged.
        crate::server::wait(Duration::MAX, Some((lines.fd(), false)));
    }
}

/// Opens the socket for the server's own operating system user alone.
fn listen() -> io::Result<UnixListener> {
    match std::fs::remove_file(SOCKET_PATH) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        // An embedder that was killed leaves its file behind, and there is never more than one embedder.
        _ => {}
    }
    // SAFETY: the call takes numbers only, and no other thread runs yet that the mask would count for too.
    let before = unsafe { libc::umask(0o177) };
    let bound = UnixListener::bind(SOCKET_PATH);
    // SAFETY: as above.
    unsafe { libc::umask(before) };
    let listener = bound?;
    std::fs::set_permissions(SOCKET_PATH, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Writes a line to the server's log.
fn write(line: Log) {
    match line.level {
        LogLevel::Debug => debug1!("{}", line.message),
        LogLevel::Log => log!("{}", line.message),
        LogLevel::Warning => warning!("{}", line.message),
    }
}
