//! The supervisor of the embedder: opens the socket, starts the program, sends it the settings, writes its lines to
//! the server log, and restarts it when it ends.

use std::ffi::CString;
use std::fs::Permissions;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use embedd_wire::{Log, LogLevel, Report, SOCKET_PATH, VERSION};
use pgrx::bgworkers::BackgroundWorker;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{check_for_interrupts, function_name};

use super::program::{self, Line, Program, TO_END};
use super::restarts::{End, Restarts};
use super::signals::{self, Terminate};
use crate::guc;
use crate::latch::wait;
use crate::shared::embedder::{self, StartFailure};

/// The entry point of the supervisor.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn embedd_embedder_main(_arg: pg_sys::Datum) {
    signals::accept(Terminate::Flag);
    // Without a database, only to be listed in pg_stat_activity.
    BackgroundWorker::connect_worker_to_spi(None, None);
    // SAFETY: the function is static and guarded.
    unsafe { pg_sys::before_shmem_exit(Some(on_exit), pg_sys::Datum::from(0usize)) };
    let ended = run();
    // The socket file is removed even after a failure, so that a session sees at once that no embedder is running.
    let _ = std::fs::remove_file(SOCKET_PATH);
    if let Err(error) = ended {
        ereport!(
            PgLogLevel::WARNING,
            PgSqlErrorCode::ERRCODE_IO_ERROR,
            format!("the embedder cannot be supervised: {error}")
        );
    }
    // SAFETY: this is the main thread; with 1 the postmaster starts the process again, unless it is shutting down.
    unsafe { pg_sys::proc_exit(1) };
}

#[pg_guard]
unsafe extern "C-unwind" fn on_exit(_code: i32, _arg: pg_sys::Datum) {
    embedder::set_supervised(false);
}

/// Keeps the program running until the supervisor is asked to exit.
fn run() -> io::Result<()> {
    let mut supervisor = Supervisor {
        listener: listen()?,
        program: None,
        restarts: Restarts::default(),
        start_at: Instant::now(),
        reported: None,
    };
    embedder::set_supervised(true);
    loop {
        check_for_interrupts!();
        if signals::shutdown_requested() {
            supervisor.end();
            return Ok(());
        }
        if signals::reload_if_asked() {
            supervisor.reconfigure();
        }
        supervisor.read();
        supervisor.end_if_late();
        supervisor.start_if_due();
        // Wakes for a signal, for output or the end of the program, and for the next start.
        let (timeout, socket) = match &supervisor.program {
            Some(program) => {
                let most = program.time_to_serve().unwrap_or(Duration::MAX);
                (most, Some((program.fd(), false)))
            }
            None => (supervisor.start_at.saturating_duration_since(Instant::now()), None),
        };
        wait(timeout, socket);
    }
}

/// The state of the supervisor.
struct Supervisor {
    /// Open while the supervisor runs: connections wait in it while the program restarts.
    listener: UnixListener,
    program: Option<Program>,
    restarts: Restarts,
    /// When to start the next program.
    start_at: Instant,
    /// The start failure that the log mentioned last.
    reported: Option<StartFailure>,
}

impl Supervisor {
    /// Starts the program if none is running and the pause is over.
    fn start_if_due(&mut self) {
        if self.program.is_some() || self.start_at > Instant::now() {
            return;
        }
        let path = match guc::embedder_path() {
            Some(path) => Ok(path),
            None => program::beside_the_library(),
        };
        let started = path.and_then(|path| {
            Program::start(&path, &self.listener, &guc::embedder_config())
                .map_err(|error| io::Error::new(error.kind(), cannot_start(&path, &error)))
        });
        match started {
            Ok(program) => self.program = Some(program),
            Err(error) => self.could_not_serve(StartFailure {
                message: error.to_string(),
                hint: "Install it next to the library with make install PG_CONFIG=..., or set embedd.embedder_path."
                    .to_string(),
            }),
        }
    }

    /// Reads the program's output, and notices its end.
    fn read(&mut self) {
        let Some(program) = &mut self.program else { return };
        let found = program.read();
        for line in found.lines {
            match line {
                Line::Report(Report::Ready { version }) if version == VERSION => self.serves(),
                Line::Report(Report::Ready { version }) => {
                    return self.is_of_another_version(&version);
                }
                Line::Report(Report::Log(log)) => write(&log),
                Line::Words(words) => log!("embedder: {words}"),
            }
        }
        if found.is_end {
            self.has_ended();
        }
    }

    /// Kills a program that is not ready in time: it hangs, or is another program.
    fn end_if_late(&mut self) {
        let is_late = |program: &Program| program.time_to_serve() == Some(Duration::ZERO);
        if self.program.as_ref().is_some_and(is_late) {
            self.has_ended();
        }
    }

    /// The program is ready.
    fn serves(&mut self) {
        let Some(program) = &mut self.program else { return };
        program.serving_since = Some(Instant::now());
        let pid = program.pid();
        embedder::set_serving(pid);
        self.reported = None;
        log!("embedder process {pid} is ready");
        show(&format!("embedd-embedder {VERSION}, process {pid}"));
    }

    /// The program's version does not match the library.
    fn is_of_another_version(&mut self, version: &str) {
        if let Some(mut program) = self.program.take() {
            program.kill();
        }
        self.could_not_serve(StartFailure {
            message: format!("the embedder has version {version}, and the library has {VERSION}"),
            hint: "Install both from one version with make install PG_CONFIG=..., and restart the server."
                .to_string(),
        });
    }

    /// The program ended by itself.
    fn has_ended(&mut self) {
        let Some(mut program) = self.program.take() else { return };
        // It has closed its pipe, so it has ended or is about to.
        let status = program.kill();
        let how = program::describe(status);
        let words = program.last_words.take();
        let Some(since) = program.serving_since else {
            let words = words.map(|words| format!(" ({words})")).unwrap_or_default();
            return self.could_not_serve(StartFailure {
                message: format!("the embedder {how} before it was ready{words}"),
                hint: "See its output in the server log. make install PG_CONFIG=... installs the matching program next to the library."
                    .to_string(),
            });
        };
        embedder::set_ended(None);
        let pause = self.restarts.pause(End::Served(since.elapsed()));
        self.start_at = Instant::now() + pause;
        report_end(program.pid(), &how, status);
        show("embedd-embedder is restarting");
    }

    /// The program failed to start: sessions get the reason, and the supervisor retries with backoff.
    fn could_not_serve(&mut self, failure: StartFailure) {
        embedder::set_ended(Some(&failure));
        let pause = self.restarts.pause(End::NeverServed);
        self.start_at = Instant::now() + pause;
        if self.reported.as_ref() != Some(&failure) {
            let report = warning(PgSqlErrorCode::ERRCODE_SYSTEM_ERROR, failure.message.clone());
            let detail = "Until it starts, no text is embedded and no new question is answered. The supervisor keeps trying.";
            report.set_detail(detail).set_hint(failure.hint.clone()).report(PgLogLevel::WARNING);
            show("embedd-embedder cannot be started");
            self.reported = Some(failure);
        }
    }

    /// The configuration files were reloaded.
    fn reconfigure(&mut self) {
        match &mut self.program {
            Some(program) => {
                if let Err(error) = program.configure(&guc::embedder_config()) {
                    // The other pipe reports a program that has ended; one that does not read its settings is killed.
                    log!("could not send the embedder its settings: {error}");
                    program.kill();
                }
            }
            None => {
                self.restarts.forget_failures();
                self.start_at = Instant::now();
            }
        }
    }

    /// Asks the program to end, and waits briefly: it writes its usage counts.
    fn end(&mut self) {
        let Some(program) = self.program.take() else { return };
        let until = Instant::now() + TO_END;
        let mut ending = program.ask_to_end();
        while !ending.has_ended() {
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return;
            }
            // The pipe closes a moment before the process has exited.
            wait(rest.min(Duration::from_millis(20)), None);
        }
    }
}

/// Why a program cannot be started, in PostgreSQL's words.
fn cannot_start(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    match error.kind() {
        ErrorKind::NotFound => format!("embedder program \"{path}\" does not exist"),
        _ => format!("could not start embedder program \"{path}\": {error}"),
    }
}

/// Logs how the program ended.
fn report_end(pid: i32, how: &str, status: Option<ExitStatus>) {
    use std::os::unix::process::ExitStatusExt;
    let message = format!("embedder process {pid} {how}");
    let limit = guc::embedder_memory_limit();
    let is_abort = status.and_then(|status| status.signal()) == Some(libc::SIGABRT);
    let restarted = "No session is affected. The supervisor restarts it.";
    let report = match limit.filter(|_| is_abort) {
        Some(bytes) => warning(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, message)
            .set_detail(format!(
                "It may have reached embedd.embedder_memory_limit, which is {} MB. {restarted}",
                bytes >> 20
            ))
            .set_hint("Raise embedd.embedder_memory_limit if this happens again."),
        None => warning(PgSqlErrorCode::ERRCODE_SYSTEM_ERROR, message).set_detail(restarted),
    };
    report.report(PgLogLevel::WARNING);
}

/// A log message of level WARNING.
fn warning(sqlstate: PgSqlErrorCode, message: String) -> ErrorReport {
    ErrorReport::new(sqlstate, message, function_name!())
}

/// Shows the state of the program in pg_stat_activity.
fn show(text: &str) {
    let Ok(text) = CString::new(text) else { return };
    // SAFETY: the text is terminated and copied.
    unsafe { pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, text.as_ptr()) };
}

/// Opens a socket that only the server's own operating system user can use.
fn listen() -> io::Result<UnixListener> {
    match std::fs::remove_file(SOCKET_PATH) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        // A killed supervisor leaves the file behind, and there is only one supervisor at a time.
        _ => {}
    }
    // SAFETY: the call takes numbers only, and this process has one thread.
    let before = unsafe { libc::umask(0o177) };
    let bound = UnixListener::bind(SOCKET_PATH);
    // SAFETY: as above.
    unsafe { libc::umask(before) };
    let listener = bound?;
    std::fs::set_permissions(SOCKET_PATH, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Writes a line to the server log.
fn write(line: &Log) {
    match line.level {
        LogLevel::Debug => debug1!("{}", line.message),
        LogLevel::Log => log!("{}", line.message),
        LogLevel::Warning => warning!("{}", line.message),
    }
}
