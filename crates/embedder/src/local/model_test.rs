//! Opens small models, sound and damaged, and embeds with them.

use super::{Gate, InstructionSet, Model, ModelError, Scratch, Tokens};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use support::tiny_model::{TINY_POSITIONS, write_tiny_model};

/// A directory that is removed when the test ends.
pub(super) struct TestDir(pub PathBuf);

impl TestDir {
    /// Creates a directory with a small model.
    pub fn with_model(name: &str) -> TestDir {
        let dir = std::env::temp_dir().join(format!("embedd-local-{}-{name}", std::process::id()));
        write_tiny_model(&dir, 48, 2, 3, 32, 1).unwrap();
        TestDir(dir)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    /// Changes a text in the header of the weights, and its length accordingly.
    fn edit_header(&self, from: &str, to: &str) {
        let path = self.path("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header = str::from_utf8(&bytes[8..8 + length]).unwrap();
        assert!(header.contains(from), "{header}");
        let header = header.replacen(from, to, 1);
        let new = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &bytes[8 + length..]]
            .concat();
        fs::write(path, new).unwrap();
    }

    /// Changes a setting in `config.json`.
    fn edit_config(&self, key: &str, value: serde_json::Value) {
        let path = self.path("config.json");
        let mut config: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config[key] = value;
        fs::write(path, config.to_string()).unwrap();
    }

    /// Opens the model, which must fail, and returns the error message.
    fn refusal(&self) -> String {
        Model::open(&self.0).err().expect("the model must be refused").to_string()
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[track_caller]
fn assert_says(words: &str, expected: &[&str]) {
    for expected in expected {
        assert!(words.contains(expected), "{words:?} does not say {expected:?}");
    }
}

#[test]
fn a_missing_file_is_named() {
    for file in ["config.json", "vocab.txt", "model.safetensors"] {
        let dir = TestDir::with_model(&format!("missing-{file}"));
        fs::remove_file(dir.path(file)).unwrap();
        match Model::open(&dir.0) {
            Err(error @ ModelError::Missing { .. }) => assert_eq!(error.path(), dir.path(file)),
            other => panic!("{:?}", other.err()),
        }
    }
    assert!(matches!(Model::open(Path::new("/nowhere/at/all")), Err(ModelError::Missing { .. })));
}

#[test]
fn the_default_limit_is_256_word_pieces() {
    let dir = TestDir::with_model("sentence");
    let file = dir.path("sentence_bert_config.json");
    fs::remove_file(&file).unwrap();
    assert_eq!(Model::open(&dir.0).unwrap().max_tokens(), 256);
    for (text, expected) in
        [(r#"{"max_seq_length": 9}"#, 9), (r#"{"max_seq_length": 999}"#, TINY_POSITIONS)]
    {
        fs::write(&file, text).unwrap();
        assert_eq!(Model::open(&dir.0).unwrap().max_tokens(), expected);
    }
    for (text, expected) in [(r#"{"max_seq_length": 2}"#, "at least 3"), ("{", "damaged")] {
        fs::write(&file, text).unwrap();
        assert_says(&dir.refusal(), &["sentence_bert_config.json", expected]);
    }
}

#[test]
fn a_truncated_file_is_refused() {
    let dir = TestDir::with_model("cut");
    let path = dir.path("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    for length in [0, 1, 7, 8, 9, 100, bytes.len() / 2, bytes.len() - 4, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).unwrap();
        assert_says(&dir.refusal(), &["model.safetensors", "is damaged"]);
    }
    fs::write(&path, [bytes.as_slice(), b"more"].concat()).unwrap();
    assert_says(&dir.refusal(), &["4 bytes behind the last tensor"]);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_says(&dir.refusal(), &["model.safetensors"]);
}

#[test]
fn a_wrong_header_is_refused() {
    let dir = TestDir::with_model("header");
    let path = dir.path("model.safetensors");
    let sound = fs::read(&path).unwrap();
    for length in [u64::MAX, u64::MAX - 7, 1 << 40, sound.len() as u64 - 7] {
        fs::write(&path, [&length.to_le_bytes(), &sound[8..]].concat()).unwrap();
        assert_says(&dir.refusal(), &["cannot be in a file of"]);
    }
    let mut bytes = sound.clone();
    bytes[8] = b'?';
    fs::write(&path, bytes).unwrap();
    assert_says(&dir.refusal(), &["not JSON"]);

    let name = "encoder.layer.1.intermediate.dense.weight";
    for (from, to, expected) in [
        ("\"F32\"", "\"F16\"", "has type \"F16\""),
        ("[2,48]", "[48,2]", "has shape [48, 2]"),
        ("[2,48]", "[2,48,1]", "has shape [2, 48, 1]"),
        ("[2,48]", "[2,-48]", "is damaged"),
        ("[2,48]", "7", "is damaged"),
        ("[0,", "[99999999999,", "cut short"),
        ("[0,", "[4,", "bytes, and its shape needs"),
        (name, "something.else", name),
    ] {
        fs::write(&path, &sound).unwrap();
        dir.edit_header(from, to);
        assert_says(&dir.refusal(), &["is damaged", expected]);
    }
    let mut bytes = sound.clone();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    assert_says(&dir.refusal(), &["not finite"]);
}

#[test]
fn a_model_of_another_kind_is_refused() {
    for (key, value, expected) in [
        ("hidden_size", serde_json::json!(0), "between 1 and"),
        ("hidden_size", serde_json::json!(50), "multiple of 16"),
        ("hidden_size", serde_json::json!(-1), "is damaged"),
        ("hidden_size", serde_json::json!(64), "not a multiple of num_attention_heads"),
        ("hidden_size", serde_json::json!(96), "has shape"),
        ("num_hidden_layers", serde_json::json!(3), "no tensor \"encoder.layer.2."),
        ("vocab_size", serde_json::json!(5), "word pieces"),
        ("max_position_embeddings", serde_json::json!(1), "between 3 and"),
        ("layer_norm_eps", serde_json::json!(-1.0), "layer_norm_eps"),
        ("hidden_act", serde_json::json!("relu"), "\"relu\""),
        ("model_type", serde_json::json!("mpnet"), "\"mpnet\""),
        ("position_embedding_type", serde_json::json!("relative_key"), "\"relative_key\""),
    ] {
        let dir = TestDir::with_model("kind");
        dir.edit_config(key, value);
        assert_says(&dir.refusal(), &[expected]);
    }
    let dir = TestDir::with_model("vocabulary");
    let vocabulary = fs::read_to_string(dir.path("vocab.txt")).unwrap();
    for (text, expected) in [
        (vocabulary.replace("[CLS]", "[XLS]"), "no piece \"[CLS]\""),
        (vocabulary.clone() + "more\n", "word pieces"),
        (String::new(), "word pieces"),
    ] {
        fs::write(dir.path("vocab.txt"), text).unwrap();
        assert_says(&dir.refusal(), &["vocab.txt", expected]);
    }
    fs::write(dir.path("vocab.txt"), b"\xff\xfe").unwrap();
    assert_says(&dir.refusal(), &["vocab.txt", "is damaged"]);
}

/// Texts of many lengths, so that groups, strips and tiles have all kinds of ends.
fn texts(model: &Model) -> Vec<Tokens> {
    let lengths =
        [0, 1, 2, 3, 5, 11, 12, 13, 16, 17, 30, 59, 60, 61, 95, 96, 97, 150, 253, 254, 255, 400];
    let word = |index: usize| char::from(b'a' + (index * 7 % 26) as u8).to_string();
    let mut texts: Vec<_> = lengths
        .iter()
        .map(|length| model.tokenize(&(0..*length).map(word).collect::<Vec<_>>().join(" ")))
        .collect();
    texts.extend(texts.clone());
    texts
}

#[test]
fn a_batch_gives_the_same_vectors_as_single_texts() {
    let dir = TestDir::with_model("batch");
    let mut model = Model::open(&dir.0).unwrap();
    for instructions in InstructionSet::supported() {
        model = model.with_instructions(instructions);
        let texts = texts(&model);
        let mut scratch = Scratch::default();
        let together = model.embed(&texts.iter().collect::<Vec<_>>(), &mut scratch);
        assert_eq!(together.len(), texts.len());
        for (tokens, vector) in texts.iter().zip(&together) {
            let alone = model.embed(&[tokens], &mut scratch);
            assert_eq!(
                &alone[0],
                vector,
                "{} with {} pieces",
                instructions.name(),
                tokens.ids.len()
            );
            let length: f32 = vector.iter().map(|value| value * value).sum();
            assert!((length - 1.0).abs() < 1e-5, "length {length}");
        }
        assert_ne!(together[3], together[4]);
    }
}

#[test]
fn all_instruction_sets_agree() {
    let dir = TestDir::with_model("agree");
    for (hidden, heads, intermediate) in [(48, 3, 32), (384, 1, 32), (64, 16, 80), (32, 1, 1040)] {
        write_tiny_model(&dir.0, hidden, 1, heads, intermediate, 7).unwrap();
        let mut model = Model::open(&dir.0).unwrap();
        assert_eq!(model.dimensions(), hidden);
        let texts = texts(&model);
        let texts: Vec<_> = texts.iter().take(17).collect();
        let mut all = Vec::new();
        for instructions in InstructionSet::supported() {
            model = model.with_instructions(instructions);
            all.push(model.embed(&texts, &mut Scratch::default()));
        }
        for vectors in &all[1..] {
            for (one, other) in all[0].iter().flatten().zip(vectors.iter().flatten()) {
                assert!((one - other).abs() < 2e-4, "{one} and {other}");
            }
        }
    }
}

#[test]
fn a_batch_yields_to_questions_with_the_same_result() {
    let dir = TestDir::with_model("gate");
    let model = Model::open(&dir.0).unwrap();
    let texts = texts(&model);
    let texts: Vec<_> = texts.iter().collect();
    let undisturbed = model.embed(&texts, &mut Scratch::default());
    let gate = Arc::new(Gate::with_max_debt(Duration::MAX));
    std::thread::scope(|scope| {
        let mut running = Some(gate.enter());
        let batch = scope.spawn(|| model.embed(&texts, &mut Scratch::yielding_at(gate.clone())));
        let mut yielded = 0;
        while !batch.is_finished() {
            if gate.yielding() == 1 {
                let question = model.embed(&texts[..1], &mut Scratch::default());
                assert_eq!(question[0], undisturbed[0]);
                assert!(!batch.is_finished(), "the batch continued during the question");
                yielded += 1;
                running = None;
            } else if running.is_none() {
                running = Some(gate.enter());
            }
            std::thread::yield_now();
        }
        assert!(yielded > 0);
        assert_eq!(batch.join().unwrap(), undisturbed);
    });
}

#[test]
fn unusual_inputs_have_vectors() {
    let dir = TestDir::with_model("odd");
    let model = Model::open(&dir.0).unwrap();
    let mut scratch = Scratch::default();
    assert!(model.embed(&[], &mut scratch).is_empty());
    let tokens = |ids: Vec<u32>| Tokens { ids, truncated: false };
    let (none, one) = (tokens(Vec::new()), tokens(vec![7]));
    let (unknown, beyond) = (tokens(vec![1]), tokens(vec![u32::MAX]));
    let long = tokens(vec![7; 5000]);
    let cut = tokens(vec![7; TINY_POSITIONS]);
    let vectors =
        model.embed(&[&none, &one, &none, &unknown, &beyond, &long, &cut, &none], &mut scratch);
    assert_eq!(vectors[0], vec![0.0; 48]);
    assert_eq!(vectors[2], vectors[7]);
    assert_eq!(vectors[3], vectors[4]);
    assert_eq!(vectors[5], vectors[6]);
    assert_eq!(model.embed(&[&none, &none], &mut scratch), [vec![0.0; 48], vec![0.0; 48]]);
    let empty = model.tokenize("");
    assert_eq!(empty, tokens(vec![2, 3]));
    assert_eq!(model.embed(&[&empty], &mut scratch)[0].len(), 48);
}
