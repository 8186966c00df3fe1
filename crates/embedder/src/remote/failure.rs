//! The errors of a provider, with a hint for each.

use std::time::Duration;

use embedd_wire::{Failure, FailureClass, Kind, Model, Provider, Reached, quote_literal};

use crate::providers::RefusalKind;

/// What a service said, as a sentence.
fn sentence(opening: &str, said: &str) -> String {
    let end = if said.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{opening}{said}{end}")
}

/// The failure of a provider that is rate limited.
pub fn limited(provider: &Provider, said: &str, wait: Duration) -> Failure {
    let message = format!("provider \"{}\" takes no more requests for now", provider.name);
    Failure::new(FailureClass::RateLimited, message)
        .with_detail(sentence("It says: ", said))
        .with_hint(format!("It can be asked again in {} s.", wait.as_secs() + 1))
        .with_retry_after(wait)
}

/// The failure of documents whose provider has reached a cap. The DETAIL has the statement, because only a status
/// shows it.
pub fn capped(provider: &Provider, reached: &Reached, wait: Duration) -> Failure {
    let option = reached.period.option();
    let message = format!("provider \"{}\" has reached {option}", provider.name);
    Failure::new(FailureClass::RateLimited, message)
        .with_detail(format!(
            "{}. To go on now: {}.",
            reached.explained(),
            reached.statement(&provider.name)
        ))
        .with_retry_after(wait)
}

/// The failure of a provider that cannot be reached, or is down.
pub fn unavailable(provider: &Provider, said: &str, wait: Duration) -> Failure {
    let message = format!("provider \"{}\" does not answer", provider.name);
    let failure = Failure::new(FailureClass::Unavailable, message)
        .with_detail(sentence("The last attempt ended with: ", said))
        .with_retry_after(wait);
    match provider.kind {
        Kind::Ollama if provider.base_url.is_none() => {
            failure.with_hint("Start Ollama on this machine, or set base_url to its address.")
        }
        _ => failure,
    }
}

/// The failure of a provider that timed out.
pub fn too_slow(provider: &Provider, said: &str, wait: Duration) -> Failure {
    let failure = unavailable(provider, said, wait);
    failure.with_hint(format!(
        "A service that has to load its model first needs more time: SELECT embedd.update_provider({}, options => '{{\"timeout\": \"5min\"}}').",
        quote_literal(&provider.name)
    ))
}

/// The failure of a provider that is loading its model.
pub fn loading(provider: &Provider, said: &str, wait: Duration) -> Failure {
    let message = format!("provider \"{}\" is loading its model", provider.name);
    Failure::new(FailureClass::Unavailable, message)
        .with_detail(sentence("It says: ", said))
        .with_hint(format!("It is asked again in {} s.", wait.as_secs() + 1))
        .with_retry_after(wait)
}

/// The failure of a request that the provider refuses whatever its texts are.
pub fn refused(provider: &Provider, model: &Model, kind: RefusalKind, said: &str) -> Failure {
    let (name, literal) = (&provider.name, quote_literal(&provider.name));
    let (class, message, hint) = match kind {
        RefusalKind::KeyRejected => (
            FailureClass::KeyRejected,
            format!("provider \"{name}\" rejects the key"),
            Some(format!("SELECT embedd.update_provider({literal}, api_key => '...').")),
        ),
        RefusalKind::UnknownModel => (
            FailureClass::Refused,
            format!("provider \"{name}\" has no model \"{}\"", model.name),
            Some(match (provider.kind, &model.replacement) {
                (_, Some(replacement)) => format!(
                    "Its maker names \"{replacement}\" in its place: create the vector table with embedding_model => {}.",
                    quote_literal(replacement)
                ),
                (Kind::Ollama, _) => format!("Fetch it there: ollama pull {}.", model.name),
                _ => "Choose a model that the account may use.".to_string(),
            }),
        ),
        RefusalKind::QuotaExhausted => (
            FailureClass::Refused,
            format!("the account with provider \"{name}\" has no quota left"),
            Some("Look at the billing of that account.".to_string()),
        ),
        RefusalKind::Redirect => (
            FailureClass::Refused,
            format!("provider \"{name}\" has moved"),
            Some(format!(
                "Set its address: SELECT embedd.update_provider({literal}, base_url => '...')."
            )),
        ),
        _ => (FailureClass::Refused, format!("provider \"{name}\" refuses the request"), None),
    };
    let failure = Failure::new(class, message).with_detail(sentence("It says: ", said));
    match hint {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

/// The failure of an invalid reply.
pub fn invalid_reply(provider: &Provider, reason: &str) -> Failure {
    let message = format!("provider \"{}\" gave no usable answer", provider.name);
    Failure::new(FailureClass::BadReply, message).with_detail(sentence("", &capitalised(reason)))
}

/// The failure of vectors whose dimensions are not those of the vector table.
pub fn wrong_size(provider: &Provider, model: &Model, came: usize) -> Failure {
    let message = format!(
        "provider \"{}\" returned vectors of {came} dimensions, not {}",
        provider.name, model.dimensions
    );
    Failure::new(FailureClass::BadReply, message).with_hint(format!(
        "Model \"{}\" makes {came}: create the vector table with embedding_dimensions => {came}, or note in embedd.models what it can do.",
        model.name
    ))
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(characters).collect()
}
