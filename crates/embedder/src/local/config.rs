//! Reads a model's shape from its `config.json`, and its word-piece limit from `sentence_bert_config.json`.

use super::ModelError;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Word pieces a text may have when the model's directory does not say.
const DEFAULT_MAX_TOKENS: usize = 256;

/// A larger settings file is rejected.
const LARGEST_FILE: u64 = 1 << 20;

/// Dimensions are multiples of this number, so that no row has a remainder.
pub(super) const LANES: usize = 16;

/// The shape of the model: what every tensor's size is checked against.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Config {
    #[serde(rename = "hidden_size")]
    pub hidden: usize,
    #[serde(rename = "num_hidden_layers")]
    pub layers: usize,
    #[serde(rename = "num_attention_heads")]
    pub heads: usize,
    #[serde(rename = "intermediate_size")]
    pub intermediate: usize,
    #[serde(rename = "max_position_embeddings")]
    pub positions: usize,
    #[serde(rename = "vocab_size")]
    pub vocabulary: usize,
    #[serde(rename = "type_vocab_size")]
    pub types: usize,
    #[serde(rename = "layer_norm_eps")]
    pub epsilon: f32,
    hidden_act: String,
    model_type: Option<String>,
    position_embedding_type: Option<String>,
    /// From `sentence_bert_config.json`, never above `positions`.
    #[serde(skip)]
    pub max_tokens: usize,
}

/// The one line of `sentence_bert_config.json` that matters here.
#[derive(Deserialize)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
}

impl Config {
    /// Reads and checks both files; the second may be absent.
    pub fn read(dir: &Path) -> Result<Config, ModelError> {
        let path = dir.join(embedd_wire::LOCAL_MODEL_FILES[0]);
        let mut config: Config = read_json(&path)?;
        if let Some(reason) = config.objection() {
            return Err(ModelError::Unsupported { path, reason });
        }
        let path = dir.join("sentence_bert_config.json");
        let wanted = match read_json::<SentenceConfig>(&path) {
            Ok(sentence) => sentence.max_seq_length.unwrap_or(DEFAULT_MAX_TOKENS),
            Err(ModelError::Missing { .. }) => DEFAULT_MAX_TOKENS,
            Err(error) => return Err(error),
        };
        if wanted < 3 {
            let reason = format!("max_seq_length is {wanted}, and must be at least 3");
            return Err(ModelError::Unsupported { path, reason });
        }
        config.max_tokens = wanted.min(config.positions);
        Ok(config)
    }

    /// Numbers one attention head works on.
    pub fn head_size(&self) -> usize {
        self.hidden / self.heads
    }

    /// Why the forward pass cannot run this model, if it cannot.
    fn objection(&self) -> Option<String> {
        let ranges = [
            ("hidden_size", self.hidden, 1 << 14),
            ("num_hidden_layers", self.layers, 1 << 8),
            ("num_attention_heads", self.heads, 1 << 10),
            ("intermediate_size", self.intermediate, 1 << 16),
            ("vocab_size", self.vocabulary, 1 << 24),
            ("type_vocab_size", self.types, 1 << 8),
        ];
        for (name, value, most) in ranges {
            if value == 0 || value > most {
                return Some(format!("{name} is {value}, and must be between 1 and {most}"));
            }
        }
        if !(3..=1 << 16).contains(&self.positions) {
            return Some(format!(
                "max_position_embeddings is {}, and must be between 3 and {}",
                self.positions,
                1 << 16
            ));
        }
        for (name, value) in
            [("hidden_size", self.hidden), ("intermediate_size", self.intermediate)]
        {
            if value % LANES != 0 {
                return Some(format!("{name} is {value}, and must be a multiple of {LANES}"));
            }
        }
        if !self.hidden.is_multiple_of(self.heads) {
            return Some(format!(
                "hidden_size {} is not a multiple of num_attention_heads {}",
                self.hidden, self.heads
            ));
        }
        if !(self.epsilon >= 0.0 && self.epsilon < 1.0) {
            return Some(format!(
                "layer_norm_eps is {}, and must be between 0 and 1",
                self.epsilon
            ));
        }
        let words = [
            ("hidden_act", Some(&self.hidden_act), "gelu"),
            ("model_type", self.model_type.as_ref(), "bert"),
            ("position_embedding_type", self.position_embedding_type.as_ref(), "absolute"),
        ];
        for (name, value, known) in words {
            if let Some(value) = value.filter(|value| *value != known) {
                return Some(format!("{name} is {value:?}, and only {known:?} is known"));
            }
        }
        None
    }
}

/// Reads a small JSON file into a struct.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, ModelError> {
    serde_json::from_slice(&read_small(path, LARGEST_FILE)?)
        .map_err(|error| ModelError::damaged(path, error.to_string()))
}

/// Reads a whole file of at most `most` bytes.
pub(super) fn read_small(path: &Path, most: u64) -> Result<Vec<u8>, ModelError> {
    let file = File::open(path).map_err(|error| ModelError::io(path, error))?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(|error| ModelError::io(path, error))?;
    if bytes.len() as u64 > most {
        return Err(ModelError::damaged(path, format!("larger than {most} bytes")));
    }
    Ok(bytes)
}
