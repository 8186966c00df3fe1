//! The client of the embedder, for sessions and workers; every wait can be interrupted.

mod connect;
mod count;

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use embedd_wire::{
    BatchReply, BatchRequest, Embeddings, Failure, FailureClass, FrameBuffer, InputType, MAX_FRAME,
    Model, Priority, Provider, Reply, Request, SOCKET_PATH, Status, WireError, decode_batch_reply,
    decode_reply, decode_status, encode_batch_request, encode_request, encode_status_request,
    is_batch_reply,
};
use pgrx::check_for_interrupts;

use self::connect::{Descriptor, connect_nonblocking, connect_with_retries};
pub use self::count::{LONGEST_TEXT, beginning, count};
use crate::error::{Error, Result};
use crate::shared::embedder;

/// How often the embedder may crash while it works on one text before the text is rejected.
const MAX_CRASHES: u32 = 6;

/// The longest pause before a text is sent again after the second crash; it doubles with each further one. The pauses
/// are random, so that a question is not always sent together with the text that crashes the embedder.
const RESEND_PAUSE: Duration = Duration::from_millis(100);

/// The timeout of a status request: an embedder that exceeds it hangs or is very busy.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest single wait: after it the session checks whether the embedder can start at all.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// Bytes received by one call, so that the caller regularly checks for interrupts.
const RECEIVE_BYTES: usize = 16 << 20;

/// A reply of the embedder.
pub enum Received {
    /// To a request for vectors.
    Texts(Reply),
    /// To an order for a batch API.
    Batch(BatchReply),
}

/// A connection to the embedder; dropping it cancels its requests.
pub struct Client {
    stream: UnixStream,
    /// Unsent bytes, and how many of them have been sent.
    output: Vec<u8>,
    sent: usize,
    input: FrameBuffer,
    _descriptor: Descriptor,
}

impl Client {
    /// Connects; an error at once if the embedder is not running.
    pub fn connect() -> Result<Client> {
        Client::open().map_err(|error| unreachable_because(&error))
    }

    fn open() -> io::Result<Client> {
        let descriptor = Descriptor::acquire()?;
        let stream = connect_nonblocking(SOCKET_PATH)?;
        let input = FrameBuffer::default();
        Ok(Client { stream, output: Vec::new(), sent: 0, input, _descriptor: descriptor })
    }

    /// Sends as much of a request as the socket accepts; the next call of [`Client::receive`] sends the rest.
    pub fn send(&mut self, request: Request) -> Result<()> {
        let frame = encode_request(&request).map_err(too_large)?;
        self.output.extend_from_slice(&frame);
        self.flush().map_err(|error| broken(&error))
    }

    /// Sends as much of an order for a batch API as the socket accepts.
    pub fn order(&mut self, request: BatchRequest) -> Result<()> {
        let frame = encode_batch_request(&request).map_err(too_large)?;
        self.output.extend_from_slice(&frame);
        self.flush().map_err(|error| broken(&error))
    }

    /// Sends unsent bytes and returns the replies that have arrived; an error if the connection broke.
    pub fn receive(&mut self) -> Result<Vec<Received>> {
        self.exchange().map_err(|error| broken(&error))
    }

    /// Whether there are unsent bytes, so that the caller has to wait until the socket is writable too.
    pub fn wants_write(&self) -> bool {
        self.sent < self.output.len()
    }

    /// The socket, to wait for.
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
        // A buffer that was large once must not keep its memory for the rest of the session.
        self.output = Vec::new();
        self.sent = 0;
        Ok(())
    }

    fn exchange(&mut self) -> io::Result<Vec<Received>> {
        // A broken connection may still hold replies that arrived before it broke.
        let flushed = self.flush();
        let read = self.read();
        let mut replies = Vec::new();
        while let Some(body) = self.input.next_frame().map_err(io::Error::other)? {
            replies.push(match is_batch_reply(body) {
                true => Received::Batch(decode_batch_reply(body).map_err(io::Error::other)?),
                false => Received::Texts(decode_reply(body).map_err(io::Error::other)?),
            });
        }
        // A closed socket stays readable after the last replies, so the next call reports it.
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

/// Embeds one text and waits for its vector; the wait ends with the timeout or an interrupt.
///
/// With dimensions of 0 the model's own apply.
pub fn embed(
    provider: &Provider,
    model: &Model,
    input_type: InputType,
    text: &str,
    timeout: Duration,
) -> Result<Vec<f32>> {
    embed_all(provider, model, input_type, &[text], false, timeout)
        .map(|embeddings| embeddings.values)
}

/// Embeds several texts. A test sends them as one request, which is neither retried nor bisected.
pub fn embed_all(
    provider: &Provider,
    model: &Model,
    input_type: InputType,
    texts: &[&str],
    is_test: bool,
    timeout: Duration,
) -> Result<Embeddings> {
    thread_local! {
        // Never dropped, because PostgreSQL's memory may be gone at the end of the process.
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
        timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        is_test,
        texts: texts.iter().map(ToString::to_string).collect(),
    };
    let frame = encode_request(&request).map_err(too_large)?;
    // The connection is taken out while it is in use: an interrupt unwinds and drops it, which cancels the request.
    let mut client = CACHED.with_borrow_mut(|cached| cached.take());
    let mut ends = 0;
    let (client, reply) = loop {
        // A cached connection may belong to an embedder that has ended: that does not count as a crash.
        let was_kept = client.is_some();
        let mut connected = match client.take() {
            Some(kept) => kept,
            None => connect_with_retries(&deadline)?,
        };
        match connected.ask(&frame, request.id, &deadline)? {
            Ok(reply) => break (connected, reply),
            Err(_) if was_kept => {}
            Err(error) => {
                ends += 1;
                if ends >= MAX_CRASHES || !is_end(&error) {
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
        let message = format!("provider \"{}\" rejects the text", provider.name);
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

/// The embedder's status; None if it does not answer in time.
pub fn status() -> Option<Status> {
    let deadline = Deadline::after(STATUS_TIMEOUT);
    let body = Client::connect().ok()?.answer_to(encode_status_request(), &deadline).ok()?;
    decode_status(&body).ok()
}

impl Client {
    /// Sends a frame on a connection without requests, and waits for the body of the frame that answers it.
    fn answer_to(mut self, frame: Vec<u8>, deadline: &Deadline) -> Result<Vec<u8>> {
        self.output = frame;
        loop {
            self.flush().map_err(|error| broken(&error))?;
            let read = self.read();
            let body = self.input.next_frame().map_err(|error| unreachable(error.to_string()))?;
            if let Some(body) = body {
                return Ok(body.to_vec());
            }
            read.map_err(|error| broken(&error))?;
            check_startable()?;
            wait(Some(&self), deadline.rest()?);
        }
    }

    /// Sends a frame and waits for the reply; the inner error is a broken connection.
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
                    let is_asked = |received| match received {
                        Received::Texts(reply) if reply.id == id => Some(reply),
                        _ => None,
                    };
                    if let Some(reply) = replies.into_iter().find_map(is_asked) {
                        return Ok(Ok(reply));
                    }
                }
            }
            // The supervisor's socket accepts connections even while no program serves it.
            check_startable()?;
            wait(Some(self), deadline.rest()?);
        }
    }
}

/// An error if the embedder cannot start, so that waiting would be useless.
pub fn check_startable() -> Result<()> {
    match embedder::start_failure() {
        Some(failure) => Err(Error::Embedder { reason: failure.message, hint: Some(failure.hint) }),
        None => Ok(()),
    }
}

/// The deadline of a request.
struct Deadline {
    /// None is no deadline.
    end: Option<Instant>,
    timeout: Duration,
}

impl Deadline {
    fn after(timeout: Duration) -> Deadline {
        Deadline { end: Instant::now().checked_add(timeout), timeout }
    }

    /// The time left; an error if there is none.
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

/// Waits, and processes interrupts.
fn pause(time: Duration) {
    let end = Instant::now() + time;
    loop {
        match end.saturating_duration_since(Instant::now()) {
            Duration::ZERO => return,
            rest => wait(None, rest),
        }
    }
}

/// A random fraction of a duration.
fn random_part(longest: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(Instant::now()) % 1000;
    longest.mul_f64(random as f64 / 1000.0)
}

/// Whether an error means that the other end closed the connection.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
    )
}

/// Waits for the client's socket, the latch or the timeout, and processes interrupts.
fn wait(client: Option<&Client>, rest: Duration) {
    let socket = client.map(|client| (client.fd(), client.wants_write()));
    // Rounded up, because less than a millisecond must not become a busy loop.
    crate::latch::wait(rest.min(LONGEST_WAIT) + Duration::from_millis(1), socket);
    check_for_interrupts!();
}

/// The error if the embedder cannot be reached.
fn unreachable(reason: String) -> Error {
    Error::Embedder { reason, hint: None }
}

/// The error if connecting to the embedder failed.
fn unreachable_because(error: &io::Error) -> Error {
    unreachable(match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => "it is not running".to_string(),
        ErrorKind::WouldBlock => "it has too many connections waiting".to_string(),
        _ => error.to_string(),
    })
}

/// The error if the connection broke.
fn broken(error: &io::Error) -> Error {
    unreachable(match is_end(error) {
        true => "it ended while it was processing the request".to_string(),
        false => error.to_string(),
    })
}

/// The error if the texts do not fit into a request.
fn too_large(error: WireError) -> Error {
    Error::BadArgument {
        message: "text is too long to be embedded".to_string(),
        detail: Some(format!("The request would be too large: {error}.")),
        hint: Some(format!("The limit of a request is {} MB.", MAX_FRAME >> 20)),
    }
}
