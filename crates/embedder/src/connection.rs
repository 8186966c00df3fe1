//! One connection to the embedder: requests are read, answered concurrently, and replies are written as fast as the
//! client reads.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use embedd_wire::{
    BatchReply, BatchRequest, Embeddings, Failure, FailureClass, FrameBuffer, LogLevel, Reply,
    Request, decode_batch_request, decode_count_request, decode_request, encode_batch_reply,
    encode_counts, encode_reply, encode_status, is_batch_request, is_count_request,
    is_status_request,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::server::Server;

/// Kibibytes that the requests and replies of one connection may take, unless there is only one.
///
/// A worker keeps far less in flight for each account, so that only dozens of hanging accounts could fill it.
const IN_FLIGHT: u32 = 512 << 10;

/// The least that a request counts, in kibibytes, which bounds their number.
const LEAST_SHARE: u32 = 4;

/// How often a full connection is checked for a disconnected client.
const HANGUP_CHECK: Duration = Duration::from_millis(200);

/// Serves one connection until its client disconnects; its unanswered requests are then cancelled.
pub async fn converse(server: Arc<Server>, stream: UnixStream, client_id: u64) {
    // SAFETY: the call only reads this process's identity.
    let own = unsafe { libc::geteuid() };
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == own => {}
        _ => {
            let line = "refused a connection of another operating system user";
            return server.log.send(LogLevel::Warning, line);
        }
    }
    let (reader, writer) = stream.into_split();
    let (outbox, replies) = mpsc::unbounded_channel();
    let outcome = tokio::select! {
        outcome = read_requests(&server, reader, outbox, client_id) => outcome,
        // A client that closed its side has disconnected, which is not an error of the server.
        _ = write_replies(writer, replies) => Ok(()),
    };
    if let Err(error) = outcome {
        server.log.send(LogLevel::Warning, format!("closed a connection: {error}"));
    }
}

/// Reads requests and spawns a task to answer each; dropping the future ends the tasks.
async fn read_requests(
    server: &Arc<Server>,
    mut reader: OwnedReadHalf,
    outbox: mpsc::UnboundedSender<Outgoing>,
    client_id: u64,
) -> io::Result<()> {
    let budget = Arc::new(Semaphore::new(IN_FLIGHT as usize));
    let mut tasks = JoinSet::new();
    let mut buffer = FrameBuffer::default();
    let mut bytes = vec![0; 64 << 10];
    loop {
        while let Some(body) = buffer.next_frame().map_err(io::Error::other)? {
            if is_status_request(body) {
                let frame = encode_status(&server.status()).map_err(io::Error::other)?;
                let _ = outbox.send(Outgoing::Frame(frame));
                continue;
            }
            if is_count_request(body) {
                // One at a time: such a connection has no other requests.
                let request = decode_count_request(body).map_err(io::Error::other)?;
                let counts = server.count(request).await;
                let frame = encode_counts(&counts).map_err(io::Error::other)?;
                let _ = outbox.send(Outgoing::Frame(frame));
                continue;
            }
            if is_batch_request(body) {
                let request = decode_batch_request(body).map_err(io::Error::other)?;
                let share = kibibytes(body.len());
                let Some(permit) = admit(&budget, share, &reader).await else {
                    return Ok(());
                };
                let (server, outbox) = (server.clone(), outbox.clone());
                tasks.spawn(run_batch(server, request, permit, outbox));
                continue;
            }
            let request = decode_request(body).map_err(io::Error::other)?;
            let share = share(body.len(), &request);
            let Some(permit) = admit(&budget, share, &reader).await else {
                return Ok(());
            };
            while tasks.try_join_next().is_some() {}
            let (server, outbox) = (server.clone(), outbox.clone());
            tasks.spawn(async move {
                let mut answer = Answer::new(request.id, permit, outbox);
                answer.outcome = server.answer(client_id, request).await;
            });
        }
        match reader.read(&mut bytes).await {
            Ok(0) | Err(_) => return Ok(()),
            Ok(count) => buffer.extend(&bytes[..count]),
        }
    }
}

/// Runs an order for a provider's batch API.
async fn run_batch(
    server: Arc<Server>,
    request: BatchRequest,
    permit: OwnedSemaphorePermit,
    outbox: mpsc::UnboundedSender<Outgoing>,
) {
    let id = request.id;
    // In a task of its own, so that a fault in it is an answer too. It ends with this one.
    let mut running = JoinSet::new();
    running.spawn(async move { server.batch(request).await });
    let outcome = running.join_next().await.and_then(Result::ok).unwrap_or_else(|| {
        let message = "the embedder failed on this order";
        Err(Failure::new(FailureClass::BadReply, message))
    });
    let frame = encode_batch_reply(&BatchReply { id, outcome }).or_else(|error| {
        let failure = Failure::new(FailureClass::BadReply, error.to_string());
        encode_batch_reply(&BatchReply { id, outcome: Err(failure) })
    });
    if let Ok(frame) = frame {
        let _ = outbox.send(Outgoing::Frame(frame));
    }
    drop(permit);
}

/// Writes replies as fast as the client reads them.
async fn write_replies(
    mut writer: OwnedWriteHalf,
    mut replies: mpsc::UnboundedReceiver<Outgoing>,
) -> io::Result<()> {
    while let Some(outgoing) = replies.recv().await {
        let (reply, permit) = match outgoing {
            Outgoing::Reply(reply, permit) => (reply, permit),
            Outgoing::Frame(frame) => {
                writer.write_all(&frame).await?;
                continue;
            }
        };
        let frame = encode_reply(&reply).or_else(|error| {
            let failure = Failure::new(FailureClass::BadReply, error.to_string());
            encode_reply(&Reply { id: reply.id, outcome: Err(failure) })
        });
        writer.write_all(&frame.map_err(io::Error::other)?).await?;
        drop(permit);
    }
    Ok(())
}

/// The kibibytes that a request and its reply count.
fn share(bytes: usize, request: &Request) -> u32 {
    let vector = (request.model.dimensions as usize).saturating_mul(4);
    let reply = request.texts.len().saturating_mul(vector);
    kibibytes(bytes.saturating_add(reply))
}

fn kibibytes(bytes: usize) -> u32 {
    u32::try_from(bytes / 1024).unwrap_or(u32::MAX).clamp(LEAST_SHARE, IN_FLIGHT)
}

/// Waits until the connection has room for a request; none when the client disconnected meanwhile.
async fn admit(
    budget: &Arc<Semaphore>,
    share: u32,
    reader: &OwnedReadHalf,
) -> Option<OwnedSemaphorePermit> {
    let mut permit = pin!(budget.clone().acquire_many_owned(share));
    loop {
        tokio::select! {
            permit = &mut permit => return permit.ok(),
            () = sleep(HANGUP_CHECK) => if has_hung_up(reader.as_ref().as_raw_fd()) {
                return None;
            },
        }
    }
}

/// Whether the other end of a socket is closed, even if unread data is left.
fn has_hung_up(fd: RawFd) -> bool {
    let mut poll = libc::pollfd { fd, events: 0, revents: 0 };
    // SAFETY: one valid entry, on this stack; with no timeout the call returns at once.
    let ready = unsafe { libc::poll(&mut poll, 1, 0) };
    ready > 0 && poll.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0
}

/// A frame for the client.
enum Outgoing {
    /// A reply, and the room it takes until it is written.
    Reply(Reply, Option<OwnedSemaphorePermit>),
    /// The embedder's status, counts, or a reply about a batch API.
    Frame(Vec<u8>),
}

/// A reply that is sent when this is dropped: after a panic the client gets a reply too.
struct Answer {
    id: u64,
    outcome: Result<Embeddings, Failure>,
    permit: Option<OwnedSemaphorePermit>,
    outbox: mpsc::UnboundedSender<Outgoing>,
}

impl Answer {
    fn new(
        id: u64,
        permit: OwnedSemaphorePermit,
        outbox: mpsc::UnboundedSender<Outgoing>,
    ) -> Answer {
        let message = "the embedder failed on this request";
        let outcome = Err(Failure::new(FailureClass::BadReply, message));
        Answer { id, outcome, permit: Some(permit), outbox }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let outcome = std::mem::replace(&mut self.outcome, Ok(Embeddings::default()));
        let reply = Reply { id: self.id, outcome };
        // If the connection has ended, the reply is not needed.
        let _ = self.outbox.send(Outgoing::Reply(reply, self.permit.take()));
    }
}
