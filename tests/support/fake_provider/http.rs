//! HTTP/1.1 written by hand, for control of every byte: parses requests, and writes the heads of replies.

use std::fmt::Write as _;
use std::io::{self, Read, Write};

/// The longest head of a request.
const LONGEST_HEAD: usize = 256 * 1024;

/// A request as received.
#[derive(Debug, Clone, Default)]
pub(super) struct Request {
    /// "POST", "GET", "CONNECT".
    pub method: String,
    /// The target of the request line, with its query.
    pub path: String,
    /// Names in lower case, in the order received.
    pub headers: Vec<(String, String)>,
    /// The body, without chunk headers.
    pub body: Vec<u8>,
}

impl Request {
    /// The first value of a header, whose name is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// Whether the client asks to close this connection after the reply.
    pub fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// The first value of a header, whose name is in lower case.
pub(super) fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

/// Reads the requests of a connection, one after the other.
#[derive(Default)]
pub(super) struct Reader {
    /// Bytes received that belong to no request yet.
    pending: Vec<u8>,
}

impl Reader {
    /// The next request; None if the client closed the connection.
    pub fn next<S: Read + Write>(&mut self, stream: &mut S) -> io::Result<Option<Request>> {
        let Some(mut request) = self.head(stream)? else { return Ok(None) };
        if request.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
        {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let chunked =
            request.header("transfer-encoding").is_some_and(|value| value.contains("chunked"));
        let length = request.header("content-length").and_then(|value| value.parse().ok());
        request.body = match (chunked, length) {
            (true, _) => self.chunks(stream)?,
            (false, Some(length)) => self.exactly(stream, length)?,
            (false, None) => Vec::new(),
        };
        Ok(Some(request))
    }

    /// Bytes received after the last request.
    pub fn leftover(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pending)
    }

    /// Reads up to the empty line.
    fn head<S: Read>(&mut self, stream: &mut S) -> io::Result<Option<Request>> {
        let mut looked: usize = 0;
        let end = loop {
            let from = looked.saturating_sub(3);
            if let Some(at) = find(&self.pending[from..], b"\r\n\r\n") {
                break from + at;
            }
            looked = self.pending.len();
            if looked > LONGEST_HEAD {
                return Err(io::Error::other("the head of a request does not end"));
            }
            if !self.more(stream)? {
                return match looked {
                    0 => Ok(None),
                    _ => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        };
        let head = String::from_utf8_lossy(&self.pending[..end]).into_owned();
        self.pending.drain(..end + 4);
        let mut lines = head.split("\r\n");
        let mut first = lines.next().unwrap_or_default().split(' ').map(str::to_string);
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_string()));
        Ok(Some(Request {
            method: first.next().unwrap_or_default(),
            path: first.next().unwrap_or_default(),
            headers: headers.collect(),
            body: Vec::new(),
        }))
    }

    /// Reads exactly this many bytes.
    fn exactly<S: Read>(&mut self, stream: &mut S, length: usize) -> io::Result<Vec<u8>> {
        let mut body = Vec::with_capacity(length);
        let had = length.min(self.pending.len());
        body.extend(self.pending.drain(..had));
        let missing = (length - had) as u64;
        if stream.take(missing).read_to_end(&mut body)? as u64 != missing {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(body)
    }

    /// Reads chunks up to the last one and the line after it.
    fn chunks<S: Read>(&mut self, stream: &mut S) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line(stream)?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let length = usize::from_str_radix(digits, 16)
                .map_err(|_| io::Error::other(format!("not the length of a chunk: {line}")))?;
            if length == 0 {
                while !self.line(stream)?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.exactly(stream, length)?);
            self.line(stream)?;
        }
    }

    /// Reads a line, without its end.
    fn line<S: Read>(&mut self, stream: &mut S) -> io::Result<String> {
        loop {
            if let Some(at) = find(&self.pending, b"\r\n") {
                let line = String::from_utf8_lossy(&self.pending[..at]).into_owned();
                self.pending.drain(..at + 2);
                return Ok(line);
            }
            if !self.more(stream)? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads available bytes; false if the client has closed its side.
    fn more<S: Read>(&mut self, stream: &mut S) -> io::Result<bool> {
        let had = self.pending.len();
        self.pending.resize(had + 16 * 1024, 0);
        let result = loop {
            match stream.read(&mut self.pending[had..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        self.pending.truncate(had + result.as_ref().copied().unwrap_or(0));
        // rustls reports an error if a client closes without a close_notify.
        match result {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            result => Ok(result? > 0),
        }
    }
}

/// The position of the first occurrence of these bytes.
fn find(within: &[u8], wanted: &[u8]) -> Option<usize> {
    within.windows(wanted.len()).position(|window| window == wanted)
}

/// How the length of a body is given.
#[derive(Debug, Clone, Copy)]
pub(super) enum Length {
    /// This many bytes.
    Known(usize),
    /// Chunked.
    Chunked,
}

/// The head of a reply, including the empty line.
pub(super) fn head(
    status: u16,
    content_type: &str,
    length: Length,
    headers: &[(String, String)],
) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} {}\r\n", reason(status));
    let _ = match length {
        Length::Known(bytes) => write!(head, "content-length: {bytes}\r\n"),
        Length::Chunked => write!(head, "transfer-encoding: chunked\r\n"),
    };
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
        let _ = write!(head, "content-type: {content_type}\r\n");
    }
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// The reason phrase of a status.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        302 => "Found",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        413 => "Payload Too Large",
        422 => "Unprocessable Entity",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Scripted",
    }
}

/// The headers for a retry time.
pub(super) fn retry_headers(
    wait: std::time::Duration,
    milliseconds: bool,
) -> Vec<(String, String)> {
    let seconds = wait.as_secs_f64().ceil().max(1.0);
    let mut headers = vec![("retry-after".to_string(), seconds.to_string())];
    if milliseconds {
        let milliseconds = wait.as_micros().div_ceil(1000);
        headers.push(("retry-after-ms".to_string(), milliseconds.to_string()));
    }
    headers
}
