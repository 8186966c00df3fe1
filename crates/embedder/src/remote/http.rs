//! The only code that speaks HTTP: connections, certificates, proxies, keys, and limits on the size of a reply.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use embedd_wire::{Failure, FailureClass, Provider, RequestError};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client};
use tokio::task::spawn_blocking;

use super::group::GroupKey;
use crate::providers::{Answer, Call, Method, Pace, Refusal, answer, call, pace, refusal, without};

/// The timeout for establishing a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an idle connection is kept.
const KEEP_WARM: Duration = Duration::from_secs(90);

/// Bytes of a reply besides its vectors.
const REPLY_REST: usize = 1 << 20;

/// The most bytes of one vector element in JSON.
const NUMBER_BYTES: usize = 25;

/// The most vector elements where the dimensions are not known.
const UNKNOWN_DIMENSIONS: usize = 16_000;

/// How many bytes of a refusal are read.
const REFUSAL_BYTES: usize = 64 << 10;

/// The most bytes of a key file.
const KEY_BYTES: u64 = 16 << 10;

/// Larger replies are parsed off the event loop's thread.
const READ_APART: usize = 128 << 10;

/// The response to an HTTP request.
pub struct Response {
    /// When it was sent, and how long it took.
    pub sent: Instant,
    pub latency: Duration,
    /// The rate limits that the service reports.
    pub pace: Pace,
    pub outcome: HttpOutcome,
}

/// The outcome of an HTTP request.
pub enum HttpOutcome {
    /// It returned vectors.
    Answer(Answer),
    /// The service refused it.
    Refusal(Refusal),
    /// The service could not be reached, or the connection broke.
    Unreachable(String),
    /// The service was reached and did not answer in time.
    TimedOut(String),
    /// The reply is not valid.
    InvalidReply(String),
    /// It was not sent: the key or a setting is wrong.
    NotSent(Failure),
}

impl HttpOutcome {
    /// How the counts of a provider distinguish it; none for one that is no error of the service.
    pub fn error(&self) -> Option<RequestError> {
        match self {
            HttpOutcome::Answer(_) | HttpOutcome::NotSent(_) => None,
            HttpOutcome::Refusal(refusal) => Some(refusal.kind.as_error()),
            HttpOutcome::Unreachable(_) | HttpOutcome::TimedOut(_) => {
                Some(RequestError::Unavailable)
            }
            HttpOutcome::InvalidReply(_) => Some(RequestError::BadReply),
        }
    }
}

/// A client with one pool of connections for all services.
pub fn client(ca_file: Option<&Path>) -> Result<Client, Failure> {
    let mut builder = Client::builder()
        .use_rustls_tls()
        .redirect(Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(KEEP_WARM)
        .http2_adaptive_window(true)
        .http2_keep_alive_interval(Some(Duration::from_secs(20)))
        .tcp_keepalive(Some(Duration::from_secs(20)))
        .tcp_nodelay(true)
        .user_agent(concat!("embedd/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = ca_file {
        for certificate in certificates(path)? {
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder.build().map_err(|error| {
        Failure::new(FailureClass::BadSetting, "could not prepare connections to providers")
            .with_detail(format!("{}.", root_cause(&error)))
    })
}

/// The certificates of a file in PEM form.
fn certificates(path: &Path) -> Result<Vec<Certificate>, Failure> {
    let wrong = |why: String| {
        let message = format!("could not read the certificates in \"{}\"", path.display());
        Failure::new(FailureClass::BadSetting, message)
            .with_detail(why)
            .with_hint("Set embedd.ca_file to a readable file of certificates in PEM form.")
    };
    let pem = std::fs::read(path).map_err(|error| wrong(format!("The file: {error}.")))?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(wrong("There is none in it.".to_string())),
        Err(error) => Err(wrong(format!("{}.", root_cause(&error)))),
    }
}

/// Sends texts to a service and reads its response, within `timeout`.
pub async fn ask(
    client: &Client,
    provider: &Provider,
    key: &GroupKey,
    texts: &[&str],
    timeout: Duration,
) -> Response {
    let sent = Instant::now();
    let mut pace = Pace::default();
    // Reading the key file counts too, in case it hangs.
    let outermost = timeout + Duration::from_secs(1);
    let exchange = exchange(client, provider, key, texts, timeout, &mut pace);
    let outcome = match tokio::time::timeout(outermost, exchange).await {
        Ok(Ok(reached) | Err(reached)) => reached,
        Err(_) => HttpOutcome::TimedOut(no_answer_within(outermost)),
    };
    Response { sent, latency: sent.elapsed(), pace, outcome }
}

async fn exchange(
    client: &Client,
    provider: &Provider,
    group: &GroupKey,
    texts: &[&str],
    timeout: Duration,
    pace_of_reply: &mut Pace,
) -> Result<HttpOutcome, HttpOutcome> {
    let call = call(provider, &group.model, group.input_type, texts);
    let numbers = match group.model.dimensions {
        0 => UNKNOWN_DIMENSIONS,
        known => known as usize,
    };
    // Vectors with more dimensions than wanted are read whole, so that the error can say so.
    let most = texts.len() * numbers.max(1024) * NUMBER_BYTES + REPLY_REST;
    let (body, secret) = send(client, provider, call, most, timeout, pace_of_reply).await?;
    let (kind, count) = (provider.kind, texts.len());
    let read = match body.len() > READ_APART {
        true => spawn_blocking(move || answer(kind, &body, count))
            .await
            .unwrap_or_else(|_| Err("provider sent what cannot be read".to_string())),
        false => answer(kind, &body, count),
    };
    Ok(match read {
        Ok(answer) => HttpOutcome::Answer(answer),
        Err(reason) => HttpOutcome::InvalidReply(without_secrets(&reason, provider, &secret)),
    })
}

/// Sends a request and reads its reply with status 200, of at most `most` bytes. The key comes back too, because what
/// the service says later may repeat it. An error is the outcome.
pub async fn send(
    client: &Client,
    provider: &Provider,
    call: Call,
    most: usize,
    timeout: Duration,
    pace_of_reply: &mut Pace,
) -> Result<(Vec<u8>, String), HttpOutcome> {
    let key = key(provider).await.map_err(HttpOutcome::NotSent)?;
    let mut headers = headers(provider, &call.content_type).map_err(HttpOutcome::NotSent)?;
    if let Some(key) = &key {
        let (name, prefix) = &call.key_header;
        let (name, value) =
            header(provider, name, &format!("{prefix}{key}")).map_err(HttpOutcome::NotSent)?;
        headers.insert(name, value);
    }
    let method = match call.method {
        Method::Get => reqwest::Method::GET,
        Method::Post => reqwest::Method::POST,
        Method::Delete => reqwest::Method::DELETE,
    };
    let request = client.request(method, &call.url).headers(headers).timeout(timeout);
    let request = match call.method {
        Method::Post => request.body(call.body),
        Method::Get | Method::Delete => request,
    };
    let mut response = request.send().await.map_err(|error| unreachable(error, timeout))?;
    let status = response.status().as_u16();
    let reply_headers = response.headers().clone();
    let header = |name: &str| {
        reply_headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_string)
    };
    *pace_of_reply = pace(&header);
    let secret = key.unwrap_or_default();
    if status != 200 {
        let body = beginning(&mut response, REFUSAL_BYTES).await;
        let mut refusal = refusal(provider.kind, status, &header, &body);
        refusal.message = without_secrets(&refusal.message, provider, &secret);
        return Err(HttpOutcome::Refusal(refusal));
    }
    let body = body(&mut response, most).await.map_err(|error| match error {
        Unread::TooLarge => {
            HttpOutcome::InvalidReply(format!("provider sent more than {most} bytes"))
        }
        Unread::Broken(error) => unreachable(error, timeout),
    })?;
    Ok((body, secret))
}

/// What a service said, without the key and the other secrets of the request.
pub fn without_secrets(message: &str, provider: &Provider, key: &str) -> String {
    let headers = provider.headers.iter().flat_map(|(_, value)| {
        // "Basic dXNlcjpwdw==": the second word alone may be repeated too.
        let value = value.expose();
        [Some(value), value.split_once(' ').map(|(_, rest)| rest.trim())].into_iter().flatten()
    });
    let secrets = std::iter::once(key).chain(headers).filter(|secret| !secret.is_empty());
    secrets.fold(message.to_string(), |message, secret| without(&message, secret))
}

/// The beginning of a body. A refusal needs no more, so errors while reading it are ignored.
async fn beginning(response: &mut reqwest::Response, most: usize) -> Vec<u8> {
    let mut body = Vec::new();
    while body.len() < most
        && let Ok(Some(chunk)) = response.chunk().await
    {
        body.extend_from_slice(&chunk[..chunk.len().min(most - body.len())]);
    }
    body
}

/// Why a body was not read to its end.
enum Unread {
    TooLarge,
    Broken(reqwest::Error),
}

/// Reads a body of at most `most` bytes.
async fn body(response: &mut reqwest::Response, most: usize) -> Result<Vec<u8>, Unread> {
    let announced = response.content_length().unwrap_or_default();
    if announced > most as u64 {
        return Err(Unread::TooLarge);
    }
    let mut body = Vec::with_capacity(announced as usize);
    while let Some(chunk) = response.chunk().await.map_err(Unread::Broken)? {
        if body.len() + chunk.len() > most {
            return Err(Unread::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The provider's own headers, and those of every request.
fn headers(provider: &Provider, content_type: &str) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    headers.extend([header(provider, "content-type", content_type)?]);
    headers.insert("accept", HeaderValue::from_static("application/json"));
    for (name, value) in &provider.headers {
        let (name, value) = header(provider, name, value.expose())?;
        headers.insert(name, value);
    }
    Ok(headers)
}

/// A header that the HTTP library's logs do not show.
fn header(
    provider: &Provider,
    name: &str,
    value: &str,
) -> Result<(HeaderName, HeaderValue), Failure> {
    let bad = || {
        let message = format!("header \"{name}\" of provider \"{}\" cannot be sent", provider.name);
        Failure::new(FailureClass::BadSetting, message)
            .with_detail("A header is one line of printable characters.")
    };
    let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
    let mut value = HeaderValue::from_str(value).map_err(|_| bad())?;
    value.set_sensitive(true);
    Ok((header, value))
}

/// The key: as it is given, or from the file or environment variable that it names.
async fn key(provider: &Provider) -> Result<Option<String>, Failure> {
    let Some(given) = &provider.api_key else { return Ok(None) };
    let given = given.expose();
    let (what, place) = match (given.strip_prefix("env:"), given.strip_prefix("file:")) {
        (Some(name), _) => ("environment variable", name),
        (_, Some(path)) => ("file", path),
        _ => return Ok(Some(given.to_string())),
    };
    let wrong = |why: String| {
        let message = format!("could not read the key of provider \"{}\"", provider.name);
        Failure::new(FailureClass::BadSetting, message).with_detail(why)
    };
    if !provider.may_refer {
        return Err(wrong(format!(
            "A key that is read from a {what} is for providers that a superuser owns."
        )));
    }
    let value = match what {
        "file" => {
            let path = PathBuf::from(place);
            let read = spawn_blocking(move || read_key(&path)).await;
            let read = read.unwrap_or_else(|_| Err("it could not be read".to_string()));
            read.map_err(|why| {
                wrong(format!("The file \"{place}\": {why}."))
                    .with_hint("Let the operating system user of the server read it.")
            })?
        }
        _ => std::env::var(place).map_err(|_| {
            wrong(format!("The server's environment has no variable \"{place}\".")).with_hint(
                "Set it where the server is started, and restart the server; a file: key needs no restart.",
            )
        })?,
    };
    match value.trim() {
        "" => Err(wrong(format!("The {what} \"{place}\" is empty."))),
        key => Ok(Some(key.to_string())),
    }
}

/// Reads a small regular file; reading anything else could block forever.
fn read_key(path: &Path) -> Result<String, String> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.map_err(|error| error.to_string())?;
    let about = file.metadata().map_err(|error| error.to_string())?;
    if !about.is_file() {
        return Err("it is not a regular file".to_string());
    }
    let mut text = String::new();
    let read = file.take(KEY_BYTES).read_to_string(&mut text);
    // The content is secret, so the error does not quote it.
    read.map_err(|_| "it cannot be read as text".to_string())?;
    Ok(text)
}

/// The outcome of a request without a complete reply.
fn unreachable(error: reqwest::Error, timeout: Duration) -> HttpOutcome {
    match error.is_timeout() {
        true if error.is_connect() => HttpOutcome::Unreachable("no connection in time".to_string()),
        true => HttpOutcome::TimedOut(no_answer_within(timeout)),
        false => HttpOutcome::Unreachable(root_cause(&error.without_url())),
    }
}

fn no_answer_within(timeout: Duration) -> String {
    match timeout.as_millis() {
        ms if ms >= 10_000 => format!("no answer within {} s", ms / 1000),
        ms => format!("no answer within {ms} ms"),
    }
}

/// The root cause of an error, on one line.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error.to_string();
    let mut next = error.source();
    while let Some(inner) = next {
        cause = inner.to_string();
        next = inner.source();
    }
    cause.split_whitespace().collect::<Vec<_>>().join(" ")
}
