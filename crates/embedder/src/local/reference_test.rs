//! Compares word pieces and vectors with those of the Python implementation, in `tests/data/local_reference.json`.

use super::{InstructionSet, Model, Scratch, Tokens};
use serde::Deserialize;
use std::path::PathBuf;

#[derive(Deserialize)]
struct Reference {
    texts: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    truncated: bool,
    vector: Vec<f32>,
}

fn reference() -> Vec<Case> {
    let reference: Reference =
        serde_json::from_str(include_str!("../../../../tests/data/local_reference.json"))
            .expect("reference data");
    reference.texts
}

fn model() -> Model {
    let dir = std::env::var_os("EMBEDD_MODEL_DIR").map(PathBuf::from).expect(
        "EMBEDD_MODEL_DIR must name the directory of the model all-MiniLM-L6-v2 (model.safetensors, vocab.txt, config.json)",
    );
    Model::open(&dir)
        .unwrap_or_else(|error| panic!("the model in EMBEDD_MODEL_DIR cannot be used: {error}"))
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn word_pieces_match_the_reference() {
    let model = model();
    assert_eq!((model.dimensions(), model.max_tokens()), (384, 256));
    for case in reference() {
        assert_eq!(
            model.tokenize(&case.text),
            Tokens { ids: case.ids, truncated: case.truncated },
            "{:?}",
            case.text
        );
    }
}

#[test]
fn vectors_match_the_reference() {
    let mut model = model();
    let cases = reference();
    let tokens: Vec<Tokens> = cases.iter().map(|case| model.tokenize(&case.text)).collect();
    for instructions in InstructionSet::supported() {
        model = model.with_instructions(instructions);
        let vectors = model.embed(&tokens.iter().collect::<Vec<_>>(), &mut Scratch::default());
        let mut lowest = (1.0, String::new());
        for (case, vector) in cases.iter().zip(&vectors) {
            let length = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            assert!((length - 1.0).abs() < 1e-6, "length {length} for {:?}", case.text);
            let cosine = cosine(vector, &case.vector);
            if cosine < lowest.0 {
                lowest = (cosine, case.text.chars().take(40).collect());
            }
        }
        let outcome =
            format!("{}: lowest cosine {:.7} for {:?}", instructions.name(), lowest.0, lowest.1);
        println!("{outcome}");
        assert!(lowest.0 > 0.9999, "{outcome}");
    }
}
