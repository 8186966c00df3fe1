//! Asks the embedder, from a session or a worker, without ever waiting where PostgreSQL cannot interrupt.

mod connect;

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use embedd_wire::{
    Embeddings, Failure, FailureClass, FrameBuffer, InputType, MAX_FRAME, Model, Priority,
    Provider, Reply, Request, SOCKET_PATH, Status, WireError, decode_reply, decode_status,
    encode_request, encode_status_request,
};
use pgrx::check_for_interrupts;

use self::connect::{Descriptor, connect_nonblocking};
use crate::error::{Error, Result};
use crate::shared::embedder;

/// How long a supervisor that is not there is waited for: it may be starting again.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// How often the embedder may end while it works on one text, before the text is blamed for it.
const MOST_ENDS: u32 = 6;

/// Longest pause before a text is sent once more after the second end; it doubles with each further one. The pauses are
/// random, so that a question is not always at work together with the text that makes the embedder end.
const RESEND_PAUSE: Duration = Duration::from_millis(100);

/// How long a status is waited for: a program that does not answer by then hangs or is very busy.
const STATUS_PATIENCE: Duration = Duration::from_secs(2);

/// How often it is looked for meanwhile.
const START_PAUSE: Duration = Duration::from_millis(50);

/// The longest single wait: after it the session looks whether the embedder can start at all.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// Bytes taken in by one call, so that the caller looks for interrupts now and then.
const RECEIVE_BYTES: usize = 16 << 20;

/// A connection to the embedder; dropping it cancels what it asked for.
pub struct Client {
    stream: UnixStream,
    /// Bytes to be sent, and how many of them have been.
    output: Vec<u8>,
    sent: usize,
    input: FrameBuffer,
    _descriptor: Descriptor,
}

impl Client {
    /// Connects; an error at once if the embedder is not there.
    pub fn connect() -> Result<Client> {
        Client::open().map_err(|error| unreachable_because(&error))
    }

    fn open() -> io::Result<Client> {
        let descriptor = Descriptor::acquire()?;
        let stream = connect_nonblocking(SOCKET_PATH)?;
        let input = FrameBuffer::default();
        Ok(Client { stream, output: Vec::new(), sent: 0, input, _descriptor: descriptor })
    }

    /// Sends a request as far as the socket takes it; the rest goes with the next call of [`Client::receive`].
    pub fn send(&mut self, request: Request) -> Result<()> {
        let frame = encode_request(&request).map_err(too_large)?;
        self.output.extend_from_slice(&frame);
        self.flush().map_err(|error| broken(&error))
    }

    /// Sends what waits to be sent, and takes in the replies that have arrived; an error when the connection broke.
    pub fn receive(&mut self) -> Result<Vec<Reply>> {
        self.exchange().map_err(|error| broken(&error))
    }

    /// Whether there is more to be sent, so that the socket has to be waited for in that direction too.
    pub fn wants_write(&self) -> bool {
        self.sent < self.output.len()
    }

    /// The socket, to be waited for.
    pub fn fd(&self) -> i32 {
        self.stream.as_raw_fd()
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.wants_write() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // A buffer that was large once must not stay with the session for ever.
        self.output = Vec::new();
        self.sent = 0;
        Ok(())
    }

    fn exchange(&mut self) -> io::Result<Vec<Reply>> {
        // A broken pipe may still hold replies that came before it broke.
        let flushed = self.flush();
        let read = self.read();
        let mut replies = Vec::new();
        while let Some(body) = self.input.next_frame().map_err(io::Error::other)? {
            replies.push(decode_reply(body).map_err(io::Error::other)?);
        }
        // After the last replies a closed socket stays readable, so the next call tells.
        if replies.is_empty() {
            read.and(flushed)?;
        }
        Ok(replies)
    }

    fn read(&mut self) -> io::Result<()> {
        let mut bytes = vec![0; 64 << 10];
        let mut taken = 0;
        while taken < RECEIVE_BYTES {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.input.extend(&bytes[..count]);
                    taken += count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Embeds one text and waits for the vector; the wait ends with the timeout, or with any interrupt.
///
/// A model of 0 dimensions gives as many as it has.
pub fn embed_now(
    provider: &Provider,
    model: &Model,
    input_type: InputType,
    text: &str,
    timeout: Duration,
) -> Result<Vec<f32>> {
    embed_together(provider, model, input_type, &[text], false, timeout)
        .map(|embeddings| embeddings.values)
}

/// The same for several texts. A test shows what the provider makes of them in one request: nothing is mended that goes wrong.
pub fn embed_together(
    provider: &Provider,
    model: &Model,
    input_type: InputType,
    texts: &[&str],
    is_test: bool,
    timeout: Duration,
) -> Result<Embeddings> {
    thread_local! {
        // Never dropped: at the end of the process PostgreSQL is no longer there to be told.
        static CACHED: RefCell<ManuallyDrop<Option<Client>>> =
            const { RefCell::new(ManuallyDrop::new(None)) };
        static LAST_ID: Cell<u64> = const { Cell::new(0) };
    }
    let deadline = Deadline::after(timeout);
    let request = Request {
        id: LAST_ID.replace(LAST_ID.get().wrapping_add(1)),
        provider: provider.clone(),
        model: model.clone(),
        input_type,
        priority: Priority::Question,
        more: false,
        patience_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        is_test,
        texts: texts.iter().map(ToString::to_string).collect(),
    };
    let frame = encode_request(&request).map_err(too_large)?;
    // The connection is taken out while it is used: an interrupt unwinds, drops it, and so cancels the request.
    let mut client = CACHED.with_borrow_mut(|cached| cached.take());
    let mut ends = 0;
    let (client, reply) = loop {
        // A connection that was kept may be one to an embedder that has ended long ago: that counts for nothing.
        let was_kept = client.is_some();
        let mut connected = match client.take() {
            Some(kept) => kept,
            None => connect_patiently(&deadline)?,
        };
        match connected.ask(&frame, request.id, &deadline)? {
            Ok(reply) => break (connected, reply),
            Err(_) if was_kept => {}
            Err(error) => {
                ends += 1;
                if ends >= MOST_ENDS || !is_end(&error) {
                    return Err(broken(&error));
                }
                if ends > 1 {
                    let longest = RESEND_PAUSE * (1 << (ends - 2));
                    pause(random_part(longest).min(deadline.rest()?));
                }
            }
        }
    };
    CACHED.with_borrow_mut(|cached| **cached = Some(client));
    let embeddings = reply.outcome?;
    if let Some((_, reason)) = embeddings.refused.first() {
        let message = format!("provider \"{}\" refuses the text", provider.name);
        let failure = Failure::new(FailureClass::Refused, message);
        return Err(Error::Provider(failure.with_detail(format!("It says: {reason}."))));
    }
    let wanted = model.dimensions as usize;
    if embeddings.count() != texts.len() || (wanted != 0 && embeddings.dimensions != wanted) {
        let message = format!(
            "provider \"{}\" returned {} vectors of {} dimensions, not {} of {wanted}",
            provider.name,
            embeddings.count(),
            embeddings.dimensions,
            texts.len()
        );
        return Err(Error::Provider(Failure::new(FailureClass::BadReply, message)));
    }
    Ok(embeddings)
}

/// Asks the embedder how it is; none when it does not answer soon.
pub fn status() -> Option<Status> {
    let deadline = Deadline::after(STATUS_PATIENCE);
    let mut client = Client::open().ok()?;
    client.output = encode_status_request();
    loop {
        client.flush().ok()?;
        let read = client.read();
        if let Ok(Some(body)) = client.input.next_frame() {
            return decode_status(body).ok();
        }
        read.ok()?;
        wait(Some(&client), deadline.rest().ok()?);
    }
}

impl Client {
    /// Sends a frame and waits for the reply to it; the inner error is a broken connection.
    fn ask(
        &mut self,
        frame: &[u8],
        id: u64,
        deadline: &Deadline,
    ) -> Result<std::result::Result<Reply, io::Error>> {
        self.output.extend_from_slice(frame);
        loop {
            match self.exchange() {
                Err(error) => return Ok(Err(error)),
                Ok(replies) => {
                    if let Some(reply) = replies.into_iter().find(|reply| reply.id == id) {
                        return Ok(Ok(reply));
                    }
                }
            }
            // The supervisor's socket takes connections also while no program serves it.
            check_startable()?;
            wait(Some(self), deadline.rest()?);
        }
    }
}

/// An error when something keeps the embedder from starting, which waiting does not change.
pub fn check_startable() -> Result<()> {
    match embedder::trouble() {
        Some(trouble) => Err(Error::Embedder { reason: trouble.message, hint: Some(trouble.hint) }),
        None => Ok(()),
    }
}

/// When an answer is too late.
struct Deadline {
    /// None is never.
    end: Option<Instant>,
    timeout: Duration,
}

impl Deadline {
    fn after(timeout: Duration) -> Deadline {
        Deadline { end: Instant::now().checked_add(timeout), timeout }
    }

    /// How much time is left; an error when there is none.
    fn rest(&self) -> Result<Duration> {
        let Some(end) = self.end else {
            return Ok(LONGEST_WAIT);
        };
        match end.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(unreachable(format!("no answer within {:?}", self.timeout))),
            rest => Ok(rest),
        }
    }
}

/// Connects, waiting for an embedder that is being started.
fn connect_patiently(deadline: &Deadline) -> Result<Client> {
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
        if !is_passing || (!is_supervised && begin.elapsed() >= START_PATIENCE) {
            return Err(unreachable_because(&error));
        }
        wait(None, deadline.rest()?.min(START_PAUSE));
    }
}

/// Waits, and takes interrupts.
fn pause(time: Duration) {
    let end = Instant::now() + time;
    loop {
        match end.saturating_duration_since(Instant::now()) {
            Duration::ZERO => return,
            rest => wait(None, rest),
        }
    }
}

/// A random part of a length of time.
fn random_part(longest: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(Instant::now()) % 1000;
    longest.mul_f64(random as f64 / 1000.0)
}

/// Whether an error is that of a connection whose other end has gone.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
    )
}

/// Waits for the client's socket, the latch or the end of the time, whichever comes first, and takes interrupts.
fn wait(client: Option<&Client>, rest: Duration) {
    let socket = client.map(|client| (client.fd(), client.wants_write()));
    // One more, because less than a millisecond left must not become a loop without any wait.
    crate::latch::wait(rest.min(LONGEST_WAIT) + Duration::from_millis(1), socket);
    check_for_interrupts!();
}

/// The error for an embedder that cannot be reached.
fn unreachable(reason: String) -> Error {
    Error::Embedder { reason, hint: None }
}

/// The error for an embedder that cannot be connected to.
fn unreachable_because(error: &io::Error) -> Error {
    unreachable(match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => "it is not running".to_string(),
        ErrorKind::WouldBlock => "it has too many connections waiting".to_string(),
        _ => error.to_string(),
    })
}

/// The error for a connection that broke.
fn broken(error: &io::Error) -> Error {
    unreachable(match is_end(error) {
        true => "it ended while it worked on the request".to_string(),
        false => error.to_string(),
    })
}

/// The error for texts that do not fit into a request.
fn too_large(error: WireError) -> Error {
    Error::BadArgument {
        message: "text is too long to be embedded".to_string(),
        detail: Some(format!("The embedder refuses it: {error}.")),
        hint: Some(format!("A request may have {} megabytes.", MAX_FRAME >> 20)),
    }
}
