//! Loads the local model, or reports why it cannot be loaded.

use std::panic::catch_unwind;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use embedd_wire::{Failure, FailureClass, LogLevel};

use super::local::{Model, ModelError};
use super::log::LogSender;

/// The hint for a model that is missing or wrong.
const MODEL_HINT: &str = "Run make model PG_CONFIG=..., or set embedd.local_model_path to a directory \
                          that has the model's files.";

/// Loads the model and logs the outcome.
pub fn load(path: &Path, log: &LogSender) -> Result<Arc<Model>, Failure> {
    let begin = Instant::now();
    let failure = match catch_unwind(|| Model::open(path)) {
        Ok(Ok(model)) => {
            let (path, took) = (path.display(), begin.elapsed().as_millis());
            let line = format!(
                "loaded the local model from \"{path}\" in {took} ms ({})",
                model.instructions().name()
            );
            log.send(LogLevel::Log, line);
            return Ok(Arc::new(model));
        }
        Ok(Err(error)) => load_failure(&error),
        Err(_) => Failure::new(FailureClass::BadSetting, "local model is damaged")
            .with_detail(format!("Its files are in \"{}\".", path.display())),
    };
    let detail = failure.detail.as_deref().unwrap_or_default();
    let line = format!("{failure}: {detail}");
    log.send(LogLevel::Warning, line);
    Err(failure)
}

/// The error of a request when the model cannot be loaded.
pub fn load_failure(error: &ModelError) -> Failure {
    let (message, hint) = match error {
        ModelError::Missing { .. } => ("local model is missing", MODEL_HINT),
        ModelError::Unreadable { .. } => (
            "local model cannot be read",
            "Let the operating system user of the server read the model's files.",
        ),
        ModelError::Damaged { .. } => ("local model is damaged", MODEL_HINT),
        ModelError::Unsupported { .. } => ("local model is not supported", MODEL_HINT),
    };
    let mut detail = format!("{error}.");
    if let Some(first) = detail.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let failure = Failure::new(FailureClass::BadSetting, message);
    failure.with_detail(detail).with_hint(hint)
}
