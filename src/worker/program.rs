//! The embedder's program as a child process: starts it with the listening socket and two pipes, talks to it, and
//! reaps it.

use std::ffi::{CStr, OsStr, c_int};
use std::io::{self, ErrorKind, PipeReader, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use embedd_wire::{Config, Order, Report};

/// The program's file name, in the directory of the library.
const NAME: &str = "embedd-embedder";
/// The longest line accepted from it.
const LONGEST_LINE: usize = 64 << 10;
/// How many bytes are kept of its last line outside the protocol, which may explain its end.
const LAST_WORDS: usize = 300;

/// A started program.
pub struct Program {
    child: Child,
    control: ChildStdin,
    output: PipeReader,
    line: Vec<u8>,
    /// When it was started.
    started: Instant,
    /// When it reported that it is ready.
    pub serving_since: Option<Instant>,
    /// The last line it wrote outside the protocol, such as an abort message or one of the dynamic loader.
    pub last_words: Option<String>,
}

/// A line written by the program.
pub enum Line {
    Report(Report),
    /// A line outside the protocol.
    Words(String),
}

/// The result of a read.
pub struct Lines {
    pub lines: Vec<Line>,
    /// Whether the program has closed its end of the pipe, as it does when it ends.
    pub is_end: bool,
}

impl Program {
    /// Starts the program with the listening socket and these settings.
    pub fn start(path: &Path, listener: &UnixListener, config: &Config) -> io::Result<Program> {
        let (output, writer) = io::pipe()?;
        let socket = listener.as_raw_fd();
        let mut command = Command::new(path);
        command.arg("--socket").arg(socket.to_string());
        command.stdin(Stdio::piped()).stdout(writer.try_clone()?).stderr(writer);
        // SAFETY: between fork and exec the closure makes system calls only and allocates nothing.
        unsafe { command.pre_exec(move || prepare_child(socket)) };
        let mut child = command.spawn()?;
        // Dropped, so that the pipe closes when the program ends.
        drop(command);
        let Some(control) = child.stdin.take() else {
            return Err(io::Error::other("the pipe to it is missing"));
        };
        let mut program = Program {
            child,
            control,
            output,
            line: Vec::new(),
            started: Instant::now(),
            serving_since: None,
            last_words: None,
        };
        let told = set_nonblocking(program.output.as_raw_fd())
            .and_then(|()| set_nonblocking(program.control.as_raw_fd()))
            .and_then(|()| program.configure(config));
        match told {
            Ok(()) => Ok(program),
            // If the program ended at once, its output says why.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(program),
            Err(error) => {
                program.kill();
                Err(error)
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Becomes readable when it has written something or ended.
    pub fn fd(&self) -> RawFd {
        self.output.as_raw_fd()
    }

    /// Sends the settings without blocking; if the program has not read the previous ones, that is an error.
    pub fn configure(&mut self, config: &Config) -> io::Result<()> {
        let mut line = serde_json::to_vec(&Order::Configure(config.clone()))?;
        line.push(b'\n');
        self.control.write_all(&line)
    }

    /// Reads its output without blocking.
    pub fn read(&mut self) -> Lines {
        let mut bytes = [0; 8192];
        let mut found = Lines { lines: Vec::new(), is_end: false };
        loop {
            match self.output.read(&mut bytes) {
                Ok(0) => found.is_end = true,
                Ok(count) => {
                    self.take(&bytes[..count], &mut found.lines);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => found.is_end = true,
            }
            break;
        }
        if found.is_end {
            self.end_line(&mut found.lines);
        }
        found
    }

    fn take(&mut self, bytes: &[u8], lines: &mut Vec<Line>) {
        for byte in bytes {
            match byte {
                b'\n' => self.end_line(lines),
                _ if self.line.len() < LONGEST_LINE => self.line.push(*byte),
                _ => {}
            }
        }
    }

    fn end_line(&mut self, lines: &mut Vec<Line>) {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        if text.trim().is_empty() {
            return;
        }
        lines.push(match serde_json::from_str(&text) {
            Ok(report) => Line::Report(report),
            Err(_) => {
                let words = text.trim();
                let words = words[..words.floor_char_boundary(LAST_WORDS)].to_string();
                self.last_words = Some(words.clone());
                Line::Words(words)
            }
        });
    }

    /// How long it may still take to become ready; None once it is.
    pub fn time_to_serve(&self) -> Option<Duration> {
        match self.serving_since {
            Some(_) => None,
            None => Some(TO_SERVE.saturating_sub(self.started.elapsed())),
        }
    }

    /// Asks it to end by closing the pipe.
    pub fn ask_to_end(self) -> Ending {
        Ending { child: self.child, output: self.output }
    }

    /// Kills it, and returns how it ended.
    pub fn kill(&mut self) -> Option<ExitStatus> {
        let _ = self.child.kill();
        self.child.wait().ok()
    }
}

/// A program that was asked to end.
pub struct Ending {
    child: Child,
    output: PipeReader,
}

impl Ending {
    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        let mut bytes = [0; 8192];
        while matches!(self.output.read(&mut bytes), Ok(count) if count > 0) {}
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a program ended, in PostgreSQL's words.
pub fn describe(status: Option<ExitStatus>) -> String {
    let Some(status) = status else { return "ended".to_string() };
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was terminated by signal {signal}: {}", signal_name(signal)),
        (None, code) => format!("exited with exit code {}", code.unwrap_or_default()),
    }
}

fn signal_name(signal: c_int) -> String {
    // SAFETY: the text is the C library's own, or in a buffer of this thread, and is copied at once.
    unsafe {
        let name = libc::strsignal(signal);
        match name.is_null() {
            true => "unknown signal".to_string(),
            false => CStr::from_ptr(name).to_string_lossy().into_owned(),
        }
    }
}

/// The path of the program: next to the loaded library, wherever that was installed.
pub fn beside_the_library() -> io::Result<PathBuf> {
    // SAFETY: an answer is plain pointers, for which zeros are valid; the name is copied while the library is loaded.
    let library = unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        let here = beside_the_library as *const std::ffi::c_void;
        if libc::dladdr(here, &mut info) == 0 || info.dli_fname.is_null() {
            return Err(io::Error::new(ErrorKind::NotFound, "the library's own file is unknown"));
        }
        PathBuf::from(OsStr::from_bytes(CStr::from_ptr(info.dli_fname).to_bytes()))
    };
    Ok(library.with_file_name(NAME))
}

/// Runs in the child before the program begins.
fn prepare_child(socket: RawFd) -> io::Result<()> {
    end_with_the_supervisor()?;
    hand_over_only(socket)
}

/// Has the kernel kill the child when this process ends, even by kill -9. This holds beyond exec, so it covers a program
/// that hangs or is stopped in its first instructions.
fn end_with_the_supervisor() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    // SAFETY: the call takes numbers only.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // If this process ended before the call, the closed pipe ends the program.
    Ok(())
}

/// Leaves the child the standard descriptors and the socket, and closes everything else of the server.
fn hand_over_only(socket: RawFd) -> io::Result<()> {
    if !close_on_exec_from(3) {
        // SAFETY: calls that take numbers only; a descriptor that is not open is an error that is ignored.
        unsafe {
            let most = libc::sysconf(libc::_SC_OPEN_MAX).clamp(256, 65_536) as RawFd;
            for descriptor in 3..most {
                libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
    // SAFETY: as above.
    match unsafe { libc::fcntl(socket, libc::F_SETFD, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets close-on-exec for all descriptors from this one on; false if the kernel cannot.
#[cfg(target_os = "linux")]
fn close_on_exec_from(first: RawFd) -> bool {
    // SAFETY: the call takes numbers only.
    unsafe {
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
            == 0
    }
}

#[cfg(not(target_os = "linux"))]
fn close_on_exec_from(_first: RawFd) -> bool {
    false
}

fn set_nonblocking(descriptor: RawFd) -> io::Result<()> {
    // SAFETY: calls that take numbers only, on a descriptor that is open.
    let result = unsafe {
        let flags = libc::fcntl(descriptor, libc::F_GETFL);
        libc::fcntl(descriptor, libc::F_SETFL, flags | libc::O_NONBLOCK)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// How long a program may take to become ready. It loads no model before, so that takes milliseconds.
const TO_SERVE: Duration = Duration::from_secs(20);

/// How long a program that was asked to end may take.
pub const TO_END: Duration = Duration::from_secs(2);
