//! The scripted responses of the fake.

use std::time::Duration;

use super::refusal::Problem;
use super::reply::Fault;

/// A response. Created by one of the first functions, and refined by those that take `self`:
///
///     Respond::status(429).retry_after("2").header("x-ratelimit-remaining-requests", "0")
///     Respond::well().after(Duration::from_secs(2)).closing()
///
/// A text matches every text that contains it.
#[derive(Debug, Clone)]
pub struct Respond {
    pub(super) what: What,
    pub(super) delay: Duration,
    pub(super) headers: Vec<(String, String)>,
    pub(super) message: Option<String>,
    pub(super) code: Option<String>,
    pub(super) retry_in: Option<Duration>,
    pub(super) delivery: Delivery,
    pub(super) closing: bool,
}

/// The kinds of response.
#[derive(Debug, Clone)]
pub(super) enum What {
    /// Status 200 and the vectors, spoiled or not.
    Vectors(Fault),
    /// An error in the dialect's own form.
    Refuse(Problem),
    /// This status and this body.
    Body(u16, String),
    /// These bytes, whatever they are.
    Raw(Vec<u8>),
    /// Status 200 and truncated JSON.
    BrokenJson,
    /// The connection is closed without an answer.
    Close,
    /// The connection is kept open without an answer.
    Never,
    /// An endless body.
    Endless,
}

/// How a reply is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// At once.
    Whole,
    /// Half of the body, and then the connection is closed.
    Half,
}

impl Respond {
    fn new(what: What) -> Respond {
        Respond {
            what,
            delay: Duration::ZERO,
            headers: Vec::new(),
            message: None,
            code: None,
            retry_in: None,
            delivery: Delivery::Whole,
            closing: false,
        }
    }

    fn spoiled(fault: Fault) -> Respond {
        Respond::new(What::Vectors(fault))
    }

    /// The correct answer.
    pub fn well() -> Respond {
        Respond::spoiled(Fault::None)
    }

    /// The correct answer after a delay.
    pub fn delay(delay: Duration) -> Respond {
        Respond::well().after(delay)
    }

    /// An error with this status, in the service's own form.
    pub fn status(status: u16) -> Respond {
        Respond::new(What::Refuse(Problem::Status(status)))
    }

    /// 429 in the service's own form.
    pub fn rate_limited() -> Respond {
        Respond::new(What::Refuse(Problem::RateLimited))
    }

    /// 429 for an account without credit, where waiting does not help.
    pub fn insufficient_quota() -> Respond {
        Respond::new(What::Refuse(Problem::QuotaExhausted))
    }

    /// A wrong key: 401, or Gemini's 400.
    pub fn key_rejected() -> Respond {
        Respond::new(What::Refuse(Problem::KeyRejected))
    }

    /// An unknown model: 404, or Voyage's 400.
    pub fn no_such_model() -> Respond {
        Respond::new(What::Refuse(Problem::ModelUnknown))
    }

    /// This status and this body, as from a gateway.
    pub fn body(status: u16, body: &str) -> Respond {
        Respond::new(What::Body(status, body.to_string()))
    }

    /// These bytes instead of a reply, and then the connection is closed.
    pub fn raw(bytes: &[u8]) -> Respond {
        Respond::new(What::Raw(bytes.to_vec()))
    }

    /// Status 200 and truncated JSON.
    pub fn broken_json() -> Respond {
        Respond::new(What::BrokenJson)
    }

    /// One vector less than texts.
    pub fn one_less() -> Respond {
        Respond::spoiled(Fault::OneLess)
    }

    /// One vector more than texts.
    pub fn one_more() -> Respond {
        Respond::spoiled(Fault::OneMore)
    }

    /// The vectors in reverse order with their correct indexes. (Gemini and Ollama have no indexes, so the order is
    /// wrong there.)
    pub fn shuffled() -> Respond {
        Respond::spoiled(Fault::Shuffled)
    }

    /// The vectors, with the index of the first omitted because it is zero.
    pub fn without_zeros() -> Respond {
        Respond::spoiled(Fault::NoZeros)
    }

    /// One vector for all texts.
    pub fn aggregated() -> Respond {
        Respond::spoiled(Fault::Aggregated)
    }

    /// The same vector for every text.
    pub fn same_for_all() -> Respond {
        Respond::spoiled(Fault::Same)
    }

    /// 503 in Hugging Face's form: the model is loading, with the remaining seconds.
    pub fn loading(seconds: f64) -> Respond {
        let text =
            format!(r#"{{"error":"Model m is currently loading","estimated_time":{seconds:?}}}"#);
        Respond::body(503, &text)
    }

    /// All vectors have these dimensions, whatever was requested.
    pub fn dimensions(dimensions: usize) -> Respond {
        Respond::spoiled(Fault::Dimensions(dimensions))
    }

    /// The vector of one text has these dimensions.
    pub fn dimensions_of(text: &str, dimensions: usize) -> Respond {
        Respond::spoiled(Fault::DimensionsOf(text.to_string(), dimensions))
    }

    /// The vector of one text contains NaN; null in JSON numbers.
    pub fn nan_for(text: &str) -> Respond {
        Respond::spoiled(Fault::NotANumber(text.to_string()))
    }

    /// The vector of one text contains infinity; in JSON numbers, one too large for a 32-bit float.
    pub fn infinite_for(text: &str) -> Respond {
        Respond::spoiled(Fault::Infinite(text.to_string()))
    }

    /// The vector of one text is zero.
    pub fn zero_for(text: &str) -> Respond {
        Respond::spoiled(Fault::Zero(text.to_string()))
    }

    /// The correct vectors times this number.
    pub fn scaled(factor: f32) -> Respond {
        Respond::spoiled(Fault::Scaled(factor))
    }

    /// The correct answer, but only half of its body, and then the connection is closed.
    pub fn half() -> Respond {
        Respond { delivery: Delivery::Half, ..Respond::well() }
    }

    /// The connection is closed without an answer.
    pub fn close() -> Respond {
        Respond::new(What::Close)
    }

    /// No answer: the connection is kept until `FakeProvider::let_go`, or until the client disconnects.
    pub fn never() -> Respond {
        Respond::new(What::Never)
    }

    /// 302 to this URL.
    pub fn redirect(url: &str) -> Respond {
        Respond::body(302, "").header("location", url)
    }

    /// Status 200 and endless numbers, in chunks; `FakeProvider::bytes_sent` shows how many the client read.
    pub fn endless() -> Respond {
        Respond::new(What::Endless)
    }

    /// Waits before responding.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Respond {
        self.delay = delay;
        self
    }

    /// Adds this header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Respond {
        self.headers.push((name.to_string(), value.to_string()));
        self
    }

    /// Adds `Retry-After`: seconds, a date, or an invalid value.
    #[must_use]
    pub fn retry_after(self, value: &str) -> Respond {
        self.header("retry-after", value)
    }

    /// Adds `retry-after-ms`.
    #[must_use]
    pub fn retry_after_ms(self, milliseconds: u64) -> Respond {
        self.header("retry-after-ms", &milliseconds.to_string())
    }

    /// Asks to retry after this time in the service's own form: RetryInfo in the body of Gemini, headers elsewhere.
    #[must_use]
    pub fn retry_in(mut self, wait: Duration) -> Respond {
        self.retry_in = Some(wait);
        self
    }

    /// Replaces the message of an error.
    #[must_use]
    pub fn message(mut self, message: &str) -> Respond {
        self.message = Some(message.to_string());
        self
    }

    /// Sets the code of an error: "code" of OpenAI, the reason in the details of Gemini.
    #[must_use]
    pub fn code(mut self, code: &str) -> Respond {
        self.code = Some(code.to_string());
        self
    }

    /// Closes the connection after the answer, although the client would keep it.
    #[must_use]
    pub fn closing(mut self) -> Respond {
        self.closing = true;
        self
    }
}
