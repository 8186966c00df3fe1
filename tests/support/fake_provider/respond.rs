//! What the script can make the fake do with a request.

use std::time::Duration;

use super::refusal::Problem;
use super::reply::Fault;

/// One way to treat a request. Made by one of the first functions, refined by those that take `self`:
///
///     Respond::status(429).retry_after("2").header("x-ratelimit-remaining-requests", "0")
///     Respond::well().after(Duration::from_secs(2)).closing()
///
/// Where a text is named, every text that contains it is meant.
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

/// The kinds of treatment.
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
    /// Status 200 and JSON that stops in the middle.
    BrokenJson,
    /// Nothing, and the connection is closed.
    Close,
    /// Nothing, and the connection is held.
    Never,
    /// A body without an end.
    Endless,
}

/// How a reply gets on its way.
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

    /// The right answer.
    pub fn well() -> Respond {
        Respond::spoiled(Fault::None)
    }

    /// The right answer, later.
    pub fn delay(delay: Duration) -> Respond {
        Respond::well().after(delay)
    }

    /// An error with this status, in the dialect's own form.
    pub fn status(status: u16) -> Respond {
        Respond::new(What::Refuse(Problem::Status(status)))
    }

    /// 429 as the service says it.
    pub fn rate_limited() -> Respond {
        Respond::new(What::Refuse(Problem::RateLimited))
    }

    /// 429 that waiting does not heal: the account is empty.
    pub fn insufficient_quota() -> Respond {
        Respond::new(What::Refuse(Problem::QuotaExhausted))
    }

    /// The key is not the right one: 401, and Gemini's 400.
    pub fn key_rejected() -> Respond {
        Respond::new(What::Refuse(Problem::KeyRejected))
    }

    /// There is no such model: 404, and Voyage's 400.
    pub fn no_such_model() -> Respond {
        Respond::new(What::Refuse(Problem::ModelUnknown))
    }

    /// This status and this body, as a gateway between would answer.
    pub fn body(status: u16, body: &str) -> Respond {
        Respond::new(What::Body(status, body.to_string()))
    }

    /// These bytes in place of a reply, and then the connection is closed.
    pub fn raw(bytes: &[u8]) -> Respond {
        Respond::new(What::Raw(bytes.to_vec()))
    }

    /// Status 200 and JSON that stops in the middle.
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

    /// The vectors in reverse order with their right indexes. (Gemini and Ollama have no indexes: nothing says so.)
    pub fn shuffled() -> Respond {
        Respond::spoiled(Fault::Shuffled)
    }

    /// The vectors, but without the index of the first: what is zero is not written.
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

    /// 503 as Hugging Face says it: the model is loading, and so many seconds are left.
    pub fn loading(seconds: f64) -> Respond {
        let text =
            format!(r#"{{"error":"Model m is currently loading","estimated_time":{seconds:?}}}"#);
        Respond::body(503, &text)
    }

    /// All vectors have so many numbers, whatever was asked.
    pub fn dimensions(dimensions: usize) -> Respond {
        Respond::spoiled(Fault::Dimensions(dimensions))
    }

    /// The vector of one text has so many numbers.
    pub fn dimensions_of(text: &str, dimensions: usize) -> Respond {
        Respond::spoiled(Fault::DimensionsOf(text.to_string(), dimensions))
    }

    /// The vector of one text holds NaN; in JSON numbers, null.
    pub fn nan_for(text: &str) -> Respond {
        Respond::spoiled(Fault::NotANumber(text.to_string()))
    }

    /// The vector of one text holds infinity; in JSON numbers, one too large for a single float.
    pub fn infinite_for(text: &str) -> Respond {
        Respond::spoiled(Fault::Infinite(text.to_string()))
    }

    /// The vector of one text is zero.
    pub fn zero_for(text: &str) -> Respond {
        Respond::spoiled(Fault::Zero(text.to_string()))
    }

    /// The right vectors times this number.
    pub fn scaled(factor: f32) -> Respond {
        Respond::spoiled(Fault::Scaled(factor))
    }

    /// The right answer, but only half of its body, and then the connection is closed.
    pub fn half() -> Respond {
        Respond { delivery: Delivery::Half, ..Respond::well() }
    }

    /// The connection is closed without an answer.
    pub fn close() -> Respond {
        Respond::new(What::Close)
    }

    /// No answer: the connection is held until `FakeProvider::let_go`, or until the client gives up.
    pub fn never() -> Respond {
        Respond::new(What::Never)
    }

    /// 302 to this URL.
    pub fn redirect(url: &str) -> Respond {
        Respond::body(302, "").header("location", url)
    }

    /// Status 200 and numbers for ever, in chunks; `FakeProvider::bytes_sent` shows how many the client let come.
    pub fn endless() -> Respond {
        Respond::new(What::Endless)
    }

    /// Before it does so, it waits.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Respond {
        self.delay = delay;
        self
    }

    /// With this header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Respond {
        self.headers.push((name.to_string(), value.to_string()));
        self
    }

    /// With `Retry-After`: seconds, or a date, or nonsense.
    #[must_use]
    pub fn retry_after(self, value: &str) -> Respond {
        self.header("retry-after", value)
    }

    /// With `retry-after-ms`.
    #[must_use]
    pub fn retry_after_ms(self, milliseconds: u64) -> Respond {
        self.header("retry-after-ms", &milliseconds.to_string())
    }

    /// Says when to come again as the service does: RetryInfo in the body of Gemini, headers elsewhere.
    #[must_use]
    pub fn retry_in(mut self, wait: Duration) -> Respond {
        self.retry_in = Some(wait);
        self
    }

    /// With this message in an error.
    #[must_use]
    pub fn message(mut self, message: &str) -> Respond {
        self.message = Some(message.to_string());
        self
    }

    /// With this code in an error: "code" of OpenAI, the reason in the details of Gemini.
    #[must_use]
    pub fn code(mut self, code: &str) -> Respond {
        self.code = Some(code.to_string());
        self
    }

    /// After the answer the connection is closed, though the client would keep it.
    #[must_use]
    pub fn closing(mut self) -> Respond {
        self.closing = true;
        self
    }
}
