//! Writes a small sentence-embedding model with random weights, so that tests need not load the real one.

use std::fs;
use std::io;
use std::path::Path;

/// The positions of the model, and so the most word pieces of a text.
pub const TINY_POSITIONS: usize = 256;

/// Writes `config.json`, `sentence_bert_config.json`, `vocab.txt` and `model.safetensors` into a directory.
///
/// The same arguments always produce the same files. The vocabulary has the special tokens, every ASCII character as a
/// piece that begins a word, and letters and digits as pieces that continue one.
pub fn write_tiny_model(
    dir: &Path,
    hidden: usize,
    layers: usize,
    heads: usize,
    intermediate: usize,
    seed: u64,
) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let vocabulary = tiny_vocabulary();
    fs::write(dir.join("vocab.txt"), vocabulary.join("\n") + "\n")?;
    let config = serde_json::json!({
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": intermediate,
        "max_position_embeddings": TINY_POSITIONS,
        "vocab_size": vocabulary.len(),
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
    });
    fs::write(dir.join("config.json"), config.to_string())?;
    fs::write(
        dir.join("sentence_bert_config.json"),
        r#"{"max_seq_length": 256, "do_lower_case": false}"#,
    )?;

    let mut tensors = vec![
        ("embeddings.word_embeddings.weight".to_string(), vec![vocabulary.len(), hidden]),
        ("embeddings.position_embeddings.weight".to_string(), vec![TINY_POSITIONS, hidden]),
        ("embeddings.token_type_embeddings.weight".to_string(), vec![2, hidden]),
        ("embeddings.LayerNorm.weight".to_string(), vec![hidden]),
        ("embeddings.LayerNorm.bias".to_string(), vec![hidden]),
    ];
    for layer in 0..layers {
        let dense = [
            ("attention.self.query", hidden, hidden),
            ("attention.self.key", hidden, hidden),
            ("attention.self.value", hidden, hidden),
            ("attention.output.dense", hidden, hidden),
            ("intermediate.dense", intermediate, hidden),
            ("output.dense", hidden, intermediate),
        ];
        for (part, outputs, inputs) in dense {
            tensors.push((format!("encoder.layer.{layer}.{part}.weight"), vec![outputs, inputs]));
            tensors.push((format!("encoder.layer.{layer}.{part}.bias"), vec![outputs]));
        }
        for part in ["attention.output.LayerNorm", "output.LayerNorm"] {
            tensors.push((format!("encoder.layer.{layer}.{part}.weight"), vec![hidden]));
            tensors.push((format!("encoder.layer.{layer}.{part}.bias"), vec![hidden]));
        }
    }
    let mut random = Random(seed);
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, shape) in tensors {
        let begin = data.len();
        // The scale of a normalisation is near 1; other weights are near 0, and smaller for larger sums.
        let (middle, spread) = match (name.contains("LayerNorm.weight"), shape.as_slice()) {
            (true, _) => (1.0, 0.1),
            (false, [_, inputs]) if !name.starts_with("embeddings") => {
                (0.0, 2.0 / (*inputs as f32).sqrt())
            }
            _ => (0.0, 0.5),
        };
        for _ in 0..shape.iter().product::<usize>() {
            let value: f32 = middle + spread * random.next();
            data.extend_from_slice(&value.to_le_bytes());
        }
        let entry = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()]});
        header.insert(name, entry);
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(&data);
    fs::write(dir.join("model.safetensors"), file)
}

/// The word pieces, in the order of their ids.
fn tiny_vocabulary() -> Vec<String> {
    let mut pieces: Vec<String> =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(String::from).to_vec();
    pieces.extend(
        (b'!'..=b'~').filter(|c| !c.is_ascii_uppercase()).map(|c| char::from(c).to_string()),
    );
    pieces.extend((b'a'..=b'z').chain(b'0'..=b'9').map(|c| format!("##{}", char::from(c))));
    pieces
}

/// A small generator of uniform numbers between -1 and 1.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (mixed >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}
