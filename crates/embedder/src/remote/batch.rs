//! Runs the orders for a provider's batch API: hands in texts, finds, looks at, fetches, cancels and deletes batches.
//!
//! Every order is a few HTTP requests without retries: the worker that gave it knows what to do about a failure.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use embedd_wire::{
    BatchAnswer, BatchEnd, BatchOrder, BatchRequest, BatchState, BatchText, Embeddings, Failure,
    FailureClass, Kind, Model, Provider,
};
use reqwest::Client;
use tokio::task::spawn_blocking;

use super::allowance::{Allowance, allowance};
use super::http::{self, HttpOutcome, without_secrets};
use super::{Remote, Shared, failure};
use crate::job::lock;
use crate::providers::batch::{self, BatchLine, BatchLineAnswer, BatchStatus, LineOutcome};
use crate::providers::{self, Call, Pace, RefusalKind};
use crate::server::put_in_front;

/// The least time for texts to be sent and for vectors to be fetched, which are many megabytes.
const LARGE_TIMEOUT: Duration = Duration::from_secs(600);

/// Bytes of a reply that is no file of vectors.
const SMALL_REPLY: usize = 4 << 20;

/// Bytes of a file of vectors.
const LARGE_REPLY: usize = 256 << 20;

/// Pages of the list of batches that are looked through for a token; the newest batches are on the first ones.
const PAGES: usize = 50;

/// The pause after a service did not answer, or wants to be left alone and does not say for how long.
const PAUSE: Duration = Duration::from_secs(30);

/// The first character of a text's identifier at the service: whether the text was cut.
const WHOLE: char = 'w';
const CUT: char = 'c';

/// One order at work.
struct Work<'a> {
    shared: &'a Shared,
    client: Client,
    provider: &'a Provider,
    model: &'a Model,
    /// The key that was sent, which no message may repeat.
    secret: OnceLock<String>,
}

impl Remote {
    /// Runs an order for a provider's batch API.
    pub async fn batch(&self, request: BatchRequest) -> Result<BatchAnswer, Failure> {
        let BatchRequest { provider, model, order, .. } = request;
        // Texts and vectors of an order are in memory, so each provider has one order at a time; a provider that hangs
        // keeps no other waiting.
        let turn = self.turn(&provider);
        let _turn = turn.acquire().await;
        let client = self.shared.client().await?;
        let (shared, secret) = (&self.shared, OnceLock::new());
        let work = Work { shared, client, provider: &provider, model: &model, secret };
        match order {
            BatchOrder::Submit { token, texts } => work.submit(&token, texts).await,
            BatchOrder::Find { token } => work.find(&token).await,
            BatchOrder::Collect { batch } => work.collect(&batch).await,
            BatchOrder::Cancel { batch } => work.cancel(&batch).await,
            BatchOrder::Delete { batch } => work.delete(&batch).await,
        }
    }
}

impl Work<'_> {
    async fn submit(&self, token: &str, texts: Vec<BatchText>) -> Result<BatchAnswer, Failure> {
        let left = match allowance(self.shared, self.provider, 0) {
            Allowance::Any => u64::MAX,
            Allowance::Tokens(left) => left,
            Allowance::Later => 0,
            Allowance::Capped(reached, rest) => {
                return Err(failure::capped(self.provider, &reached, rest));
            }
        };
        let (kind, model) = (self.provider.kind, self.model.clone());
        let prepared = spawn_blocking(move || lines(kind, &model, texts, left)).await;
        let (lines, tokens) = prepared.map_err(|_| {
            let message = "the embedder failed to measure these texts";
            Failure::new(FailureClass::BadReply, message)
        })?;
        let count = lines.len() as u32;
        let body = match batch::takes_files(kind) {
            true => {
                let call = batch::upload(self.provider, self.model, token, &lines);
                drop(lines);
                let file = self.large(call).await?;
                let file = self.read(batch::uploaded(&file))?;
                let create = batch::create(self.provider, self.model, token, &file);
                match self.send(create, SMALL_REPLY, self.timeout()).await {
                    Ok(body) => body,
                    Err(outcome) => {
                        if matches!(outcome, HttpOutcome::Refusal(_)) {
                            // There is no batch that would need it.
                            let _ = self.small(batch::delete_file(self.provider, &file)).await;
                        }
                        return Err(self.failure(outcome));
                    }
                }
            }
            false => {
                let call = batch::submit(self.provider, self.model, token, &lines);
                drop(lines);
                self.large(call).await?
            }
        };
        let name = self.read(batch::submitted(kind, &body))?;
        {
            // The service counts them when it works on them; a cap must know of them from now on.
            let mut ledger = lock(&self.shared.ledger);
            let usage = ledger.today((self.provider.database, self.provider.server));
            usage.texts += u64::from(count);
            usage.tokens += tokens;
        }
        Ok(BatchAnswer::Submitted { batch: name, texts: count })
    }

    async fn find(&self, token: &str) -> Result<BatchAnswer, Failure> {
        let mut after: Option<String> = None;
        for _ in 0..PAGES {
            let body = self.small(batch::list(self.provider, after.as_deref())).await?;
            let page = self.read(batch::listed(self.provider.kind, &body, token))?;
            if page.found.is_some() {
                return Ok(BatchAnswer::Found { batch: page.found });
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        Ok(BatchAnswer::Found { batch: None })
    }

    /// What the service says of a batch; none when it does not know it.
    async fn status(&self, name: &str) -> Result<Option<BatchStatus>, Failure> {
        let look = batch::look(self.provider, name);
        let looked = match batch::takes_files(self.provider.kind) {
            true => self.send(look, SMALL_REPLY, self.timeout()).await,
            // It has the vectors too.
            false => self.send_large(look).await,
        };
        let body = match looked {
            Ok(body) => body,
            Err(outcome) if is_unknown(&outcome) => return Ok(None),
            Err(outcome) => return Err(self.failure(outcome)),
        };
        let kind = self.provider.kind;
        let read = spawn_blocking(move || batch::status(kind, &body)).await;
        self.read(read.unwrap_or_else(|_| Err("provider sent what cannot be read".to_string())))
            .map(Some)
    }

    async fn collect(&self, name: &str) -> Result<BatchAnswer, Failure> {
        let Some(status) = self.status(name).await? else {
            return Ok(gone(format!("it does not know batch \"{name}\"")));
        };
        let Some(state) = status.state else {
            return Ok(BatchAnswer::Working { done: status.done, total: status.total });
        };
        let mut answers = status.answers;
        for file in &status.answer_files {
            let body = match self.send_large(batch::content(self.provider, file)).await {
                Ok(body) => body,
                Err(outcome) if is_unknown(&outcome) => {
                    return Ok(gone(format!("its file \"{file}\" is not there")));
                }
                Err(outcome) => return Err(self.failure(outcome)),
            };
            let kind = self.provider.kind;
            let read = spawn_blocking(move || batch::answers(kind, &body)).await;
            answers.extend(read.unwrap_or_default());
        }
        let end = end(self.provider, self.model, state, status.reason, answers)?;
        let cleaned = |text: String| self.cleaned(&text);
        Ok(BatchAnswer::Ended(Box::new(BatchEnd {
            reason: end.reason.map(cleaned),
            refused: end.refused.into_iter().map(|(id, reason)| (id, cleaned(reason))).collect(),
            ..end
        })))
    }

    async fn cancel(&self, name: &str) -> Result<BatchAnswer, Failure> {
        self.small(batch::cancel(self.provider, name)).await.map(|_| BatchAnswer::Done)
    }

    async fn delete(&self, name: &str) -> Result<BatchAnswer, Failure> {
        if !batch::takes_files(self.provider.kind) {
            self.small(batch::delete(self.provider, name)).await?;
            return Ok(BatchAnswer::Done);
        }
        let status = self.status(name).await?.unwrap_or_default();
        for file in status.answer_files.iter().chain(&status.text_file) {
            self.small(batch::delete_file(self.provider, file)).await?;
        }
        Ok(BatchAnswer::Done)
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.provider.limits.timeout_ms.into())
    }

    async fn small(&self, call: Call) -> Result<Vec<u8>, Failure> {
        let sent = self.send(call, SMALL_REPLY, self.timeout()).await;
        sent.map_err(|outcome| self.failure(outcome))
    }

    async fn large(&self, call: Call) -> Result<Vec<u8>, Failure> {
        self.send_large(call).await.map_err(|outcome| self.failure(outcome))
    }

    /// Sends or fetches what may be large.
    async fn send_large(&self, call: Call) -> Result<Vec<u8>, HttpOutcome> {
        self.send(call, LARGE_REPLY, self.timeout().max(LARGE_TIMEOUT)).await
    }

    /// Sends a request, and counts it.
    async fn send(
        &self,
        call: Call,
        most: usize,
        timeout: Duration,
    ) -> Result<Vec<u8>, HttpOutcome> {
        let begin = Instant::now();
        let mut pace = Pace::default();
        // Reading the key file counts too, in case it hangs.
        let sending = http::send(&self.client, self.provider, call, most, timeout, &mut pace);
        let outcome = tokio::time::timeout(timeout + Duration::from_secs(1), sending).await;
        let outcome = outcome.unwrap_or_else(|_| {
            Err(HttpOutcome::TimedOut(format!("no answer within {} s", timeout.as_secs())))
        });
        let outcome = outcome.map(|(body, secret)| {
            let _ = self.secret.set(secret);
            body
        });
        if matches!(outcome, Err(HttpOutcome::NotSent(_))) {
            return outcome;
        }
        let mut ledger = lock(&self.shared.ledger);
        let usage = ledger.today((self.provider.database, self.provider.server));
        usage.add_request(begin.elapsed());
        if let Some(error) = outcome.as_ref().err().and_then(HttpOutcome::error) {
            usage.add_error(error);
        }
        outcome
    }

    /// What the service said, without secrets.
    fn cleaned(&self, said: &str) -> String {
        without_secrets(said, self.provider, self.secret.get().map_or("", String::as_str))
    }

    /// What a reply says, or the failure of one that cannot be read.
    fn read<T>(&self, read: Result<T, String>) -> Result<T, Failure> {
        read.map_err(|reason| failure::invalid_reply(self.provider, &self.cleaned(&reason)))
    }

    fn failure(&self, outcome: HttpOutcome) -> Failure {
        let provider = self.provider;
        match outcome {
            HttpOutcome::Refusal(refusal) => {
                let wait = refusal.retry_after.unwrap_or(PAUSE);
                match refusal.kind {
                    RefusalKind::RateLimited => failure::limited(provider, &refusal.message, wait),
                    RefusalKind::Unavailable | RefusalKind::Loading => {
                        failure::unavailable(provider, &refusal.message, wait)
                    }
                    kind => failure::refused(provider, self.model, kind, &refusal.message),
                }
            }
            HttpOutcome::Unreachable(reason) => failure::unavailable(provider, &reason, PAUSE),
            HttpOutcome::TimedOut(reason) => failure::too_slow(provider, &reason, PAUSE),
            HttpOutcome::InvalidReply(reason) => failure::invalid_reply(provider, &reason),
            HttpOutcome::NotSent(failure) => failure,
            HttpOutcome::Answer(_) => failure::invalid_reply(provider, "vectors came unasked"),
        }
    }
}

/// Whether the service does not know what was asked for.
fn is_unknown(outcome: &HttpOutcome) -> bool {
    matches!(outcome, HttpOutcome::Refusal(refusal) if matches!(refusal.status, 404 | 410))
}

/// The end of a batch that the service does not know any more.
fn gone(reason: String) -> BatchAnswer {
    BatchAnswer::Ended(Box::new(BatchEnd {
        state: BatchState::Gone,
        reason: Some(reason),
        ids: Vec::new(),
        embeddings: Embeddings::default(),
        refused: Vec::new(),
    }))
}

/// The lines of a batch: the texts as the model reads them, as many as a cap has tokens left for, and at least one;
/// and their tokens.
fn lines(kind: Kind, model: &Model, texts: Vec<BatchText>, left: u64) -> (Vec<BatchLine>, u64) {
    let (mut lines, mut sum) = (Vec::with_capacity(texts.len()), 0);
    for BatchText { id, text } in texts {
        let mut text = [text];
        put_in_front(&model.document_prefix, &mut text);
        let (tokens, sent, is_cut) = providers::measure(kind, model, &text[0]);
        if !lines.is_empty() && sum + u64::from(tokens.count) > left {
            break;
        }
        sum += u64::from(tokens.count);
        let mark = if is_cut { CUT } else { WHOLE };
        lines.push(BatchLine { id: format!("{mark}{id}"), text: sent.into_owned() });
    }
    (lines, sum)
}

/// What an ended batch brought, by the texts' own identifiers. An error where the vectors have other dimensions than the
/// model is known to have.
fn end(
    provider: &Provider,
    model: &Model,
    state: BatchState,
    reason: Option<String>,
    answers: Vec<BatchLineAnswer>,
) -> Result<BatchEnd, Failure> {
    let mut dimensions = model.dimensions as usize;
    let mut end = BatchEnd {
        state,
        reason,
        ids: Vec::new(),
        embeddings: Embeddings::default(),
        refused: Vec::new(),
    };
    let mut other = None;
    for BatchLineAnswer { id, outcome } in answers {
        let Some((is_cut, own)) = id
            .strip_prefix(WHOLE)
            .map(|own| (false, own))
            .or_else(|| id.strip_prefix(CUT).map(|own| (true, own)))
        else {
            continue;
        };
        let refused = match outcome {
            LineOutcome::NotDone(reason) => {
                end.reason = end.reason.or(reason);
                continue;
            }
            LineOutcome::Refused(reason) => reason,
            LineOutcome::Vector(vector) => {
                if dimensions == 0 {
                    dimensions = vector.len();
                }
                match providers::flaw(&vector, dimensions) {
                    None => {
                        end.ids.push(own.to_string());
                        end.embeddings.values.extend_from_slice(&vector);
                        end.embeddings.truncated.push(is_cut);
                        continue;
                    }
                    Some(flaw) => {
                        other = other.or(Some(vector.len()).filter(|len| *len != dimensions));
                        flaw
                    }
                }
            }
        };
        end.refused.push((own.to_string(), refused));
    }
    if let Some(came) = other.filter(|_| end.ids.is_empty()) {
        return Err(failure::wrong_size(provider, model, came));
    }
    end.embeddings.dimensions = dimensions;
    Ok(end)
}
