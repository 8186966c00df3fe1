//! The local model: a small sentence-embedding model of the BERT family, run on this machine's processor.
//!
//! A model is a directory with `model.safetensors`, `vocab.txt` and `config.json`; `sentence_bert_config.json` is
//! read for the longest text if it is there.

mod attention;
mod config;
mod forward;
mod gate;
mod kernels;
mod math;
mod safetensors;
mod tokenizer;
mod weights;

#[cfg(test)]
mod model_test;
#[cfg(test)]
mod reference_test;

pub use forward::Scratch;
pub use gate::{Gate, RunningQuestion};
pub use kernels::InstructionSet;

use std::io;
use std::path::{Path, PathBuf};

use embedd_wire::LOCAL_MODEL_FILES;

/// A model in memory; share it between threads through an `Arc`.
pub struct Model {
    config: config::Config,
    weights: weights::Weights,
    tokenizer: tokenizer::Tokenizer,
    instructions: InstructionSet,
}

/// The tokenizer of a model without the model.
pub struct TextTokenizer {
    tokenizer: tokenizer::Tokenizer,
    max_tokens: usize,
}

/// A text as the model reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// Word pieces, including the begin and end tokens.
    pub ids: Vec<u32>,
    /// Whether the text had more of them than the model accepts.
    pub truncated: bool,
}

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A required file is missing.
    #[error("model file \"{}\" does not exist", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The operating system does not let the file be read.
    #[error("could not read model file \"{}\": {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file is damaged.
    #[error("model file \"{}\" is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file is valid, but describes a model this program cannot run.
    #[error("model file \"{}\" describes a model that cannot be run: {reason}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is not supported.
        reason: String,
    },
}

impl ModelError {
    /// The file it is about.
    #[cfg(test)]
    pub fn path(&self) -> &Path {
        match self {
            ModelError::Missing { path }
            | ModelError::Unreadable { path, .. }
            | ModelError::Damaged { path, .. }
            | ModelError::Unsupported { path, .. } => path,
        }
    }

    fn damaged(path: &Path, reason: String) -> ModelError {
        ModelError::Damaged { path: path.to_path_buf(), reason }
    }

    fn io(path: &Path, source: io::Error) -> ModelError {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::NotFound => ModelError::Missing { path },
            io::ErrorKind::UnexpectedEof => {
                ModelError::damaged(&path, "it ends too early".to_string())
            }
            _ => ModelError::Unreadable { path, source },
        }
    }
}

impl TextTokenizer {
    /// Reads the shape of a model and its word pieces.
    pub fn open(dir: &Path) -> Result<TextTokenizer, ModelError> {
        let config = config::Config::read(dir)?;
        let tokenizer = read_tokenizer(dir, &config)?;
        Ok(TextTokenizer { tokenizer, max_tokens: config.max_tokens })
    }

    /// Tokenizes a text as the model does.
    pub fn tokenize(&self, text: &str) -> Tokens {
        self.tokenizer.tokenize(text, self.max_tokens)
    }
}

fn read_tokenizer(dir: &Path, config: &config::Config) -> Result<tokenizer::Tokenizer, ModelError> {
    let [_, vocabulary, _] = LOCAL_MODEL_FILES;
    tokenizer::Tokenizer::read(&dir.join(vocabulary), config.vocabulary)
}

impl Model {
    /// Reads a model, checking every file's presence, size and shape.
    pub fn open(dir: &Path) -> Result<Model, ModelError> {
        let [.., weights] = LOCAL_MODEL_FILES;
        let config = config::Config::read(dir)?;
        let tokenizer = read_tokenizer(dir, &config)?;
        let file = safetensors::TensorFile::open(&dir.join(weights))?;
        let weights = weights::Weights::read(&file, &config)?;
        Ok(Model { config, weights, tokenizer, instructions: InstructionSet::best() })
    }

    /// Uses another instruction set than the fastest, for comparison.
    #[allow(dead_code, reason = "tests and benches choose")]
    pub fn with_instructions(mut self, instructions: InstructionSet) -> Model {
        self.instructions = instructions;
        self
    }

    /// The instruction set the model runs on.
    pub fn instructions(&self) -> InstructionSet {
        self.instructions
    }

    /// The dimensions of a vector.
    pub fn dimensions(&self) -> usize {
        self.config.hidden
    }

    /// The most word pieces of a text, including the begin and end tokens.
    pub fn max_tokens(&self) -> usize {
        self.config.max_tokens
    }

    /// Tokenizes a text, leaving out what is beyond the limit.
    pub fn tokenize(&self, text: &str) -> Tokens {
        self.tokenizer.tokenize(text, self.max_tokens())
    }
}
