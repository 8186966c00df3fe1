//! The main loop of the program: settings arrive on its standard input, log lines go to its standard output, and
//! clients connect to a socket that the supervisor opened. The program ends with the supervisor: the pipe closes, and on
//! Linux the supervisor has asked the kernel for it before the program began.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::sync::mpsc;

use embedd_wire::{Config, Log, LogLevel, Order, Report, VERSION};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use super::log::{LogReceiver, log_channel};
use super::{memory, server};

/// An event of the main loop.
enum Event {
    /// The supervisor sent changed settings.
    Configure(Box<Config>),
    /// The supervisor closed the pipe, ended, or sent an invalid order.
    ControlEnded(Option<String>),
    Signal(i32),
    /// The server ended by itself.
    ServerEnded,
}

/// Serves until the supervisor asks it to end or ends itself.
pub fn run() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        ["--version"] => {
            println!("embedd-embedder {VERSION}");
            return ExitCode::SUCCESS;
        }
        ["--socket", descriptor] => descriptor.parse().map_err(io::Error::other).and_then(serve),
        _ => Err(io::Error::other(
            "PostgreSQL's background worker \"embedd embedder\" starts this program: embedd-embedder --socket DESCRIPTOR",
        )),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("embedd-embedder: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(socket: RawFd) -> io::Result<()> {
    memory::volunteer_for_the_oom_killer();
    let (sender, events) = mpsc::channel();
    // Before any other thread starts: from here on a signal is an event.
    listen_to_signals(sender.clone())?;
    let listener = listener(socket)?;
    let mut control = BufReader::new(File::from(io::stdin().as_fd().try_clone_to_owned()?));
    let Some(config) = read_order(&mut control)? else { return Ok(()) };
    memory::limit(config.memory_limit)?;

    let (log, lines) = log_channel();
    let ended = sender.clone();
    let server = server::spawn(listener, config, log.clone(), move || {
        let _ = ended.send(Event::ServerEnded);
    })?;
    report(&Report::Ready { version: VERSION.to_string() })?;
    let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new().name(name.to_string()).spawn(work).map(drop)
    };
    spawn("embedd log", Box::new(move || write_lines(&lines)))?;
    spawn("embedd control", Box::new(move || read_orders(control, &sender)))?;

    for event in events {
        match event {
            Event::Configure(config) => {
                if let Err(error) = memory::limit(config.memory_limit) {
                    log.send(LogLevel::Warning, format!("could not limit its memory: {error}"));
                }
                server.reconfigure(*config);
            }
            Event::Signal(SIGHUP | SIGINT) => {}
            // An immediate shutdown: the postmaster signals the whole process group.
            Event::Signal(SIGQUIT) => return Ok(()),
            Event::Signal(_) | Event::ControlEnded(None) => {
                server.stop();
                server.save_usage();
                return Ok(());
            }
            Event::ControlEnded(Some(why)) => return Err(io::Error::other(why)),
            Event::ServerEnded => return Err(io::Error::other("its server has ended")),
        }
    }
    Ok(())
}

/// Turns the signals that the postmaster sends to the process group into events.
fn listen_to_signals(events: mpsc::Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
    let forward = move || {
        for signal in signals.forever() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("embedd signals".to_string()).spawn(forward).map(drop)
}

/// The listening socket inherited from the supervisor.
fn listener(socket: RawFd) -> io::Result<UnixListener> {
    // SAFETY: the call takes numbers only.
    if socket < 3 || unsafe { libc::fcntl(socket, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            "descriptor of the socket is not open",
        ));
    }
    // SAFETY: the descriptor is open, and nothing else in this program uses it.
    let listener = UnixListener::from(unsafe { OwnedFd::from_raw_fd(socket) });
    listener.local_addr()?;
    Ok(listener)
}

/// The next settings; none when the pipe is closed.
fn read_order(control: &mut impl BufRead) -> io::Result<Option<Config>> {
    let mut line = String::new();
    if control.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let Order::Configure(config) = serde_json::from_str(&line)?;
    Ok(Some(config))
}

/// Forwards orders until the pipe is closed.
fn read_orders(mut control: impl BufRead, events: &mpsc::Sender<Event>) {
    loop {
        let event = match read_order(&mut control) {
            Ok(Some(config)) => Event::Configure(Box::new(config)),
            Ok(None) => Event::ControlEnded(None),
            Err(error) => {
                Event::ControlEnded(Some(format!("could not read its settings: {error}")))
            }
        };
        let is_end = matches!(event, Event::ControlEnded(_));
        if events.send(event).is_err() || is_end {
            return;
        }
    }
}

/// Writes log lines as fast as the supervisor reads them.
fn write_lines(lines: &LogReceiver) {
    for Log { level, message } in lines {
        if report(&Report::Log(Log { level, message })).is_err() {
            return;
        }
    }
}

/// Writes one line to the supervisor.
fn report(report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}
