//! Replies: valid ones of every form, and all kinds of invalid ones.

use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use embedd_wire::Kind;

use crate::providers::{Answer, answer};

fn good(kind: Kind, body: &str, texts: usize) -> Answer {
    answer(kind, body.as_bytes(), texts).unwrap()
}

fn bad(kind: Kind, body: &str, texts: usize) -> String {
    answer(kind, body.as_bytes(), texts).unwrap_err()
}

fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn base64(numbers: &[f32]) -> String {
    STANDARD.encode(bytes(numbers))
}

#[test]
fn vectors_of_openai_and_voyage_are_ordered_by_their_index() {
    let body = r#"{"object":"list","data":[
        {"object":"embedding","index":2,"embedding":[3,3.5]},
        {"object":"embedding","index":0,"embedding":[1e0,-1.5E-3]},
        {"object":"embedding","index":1,"embedding":[]}],
        "model":"m","usage":{"prompt_tokens":7,"total_tokens":8},"new":{"field":[1,{"a":null}]}}"#;
    for kind in [Kind::Openai, Kind::Voyage, Kind::OpenaiCompatible] {
        let answer = good(kind, body, 3);
        assert_eq!(answer.vectors, [vec![1.0, -0.0015], vec![], vec![3.0, 3.5]]);
        assert_eq!(answer.tokens, Some(8));
    }
}

#[test]
fn base64_is_read_whatever_was_asked_for() {
    let numbers = [1.0, -2.5, f32::MIN_POSITIVE, 3.0e38, f32::NAN];
    let escaped = base64(&numbers).replace('/', "\\/");
    for text in [base64(&numbers), STANDARD_NO_PAD.encode(bytes(&numbers)), escaped] {
        let body = format!(r#"{{"data":[{{"index":0,"embedding":"{text}"}}]}}"#);
        let read = good(Kind::Openai, &body, 1).vectors.remove(0);
        assert_eq!(read[..4], numbers[..4]);
        // The caller checks the value.
        assert!(read[4].is_nan());
    }
    let mixed = format!(
        r#"{{"data":[{{"index":1,"embedding":"{}"}},{{"index":0,"embedding":[0.5]}}]}}"#,
        base64(&[0.25])
    );
    assert_eq!(good(Kind::Voyage, &mixed, 2).vectors, [[0.5], [0.25]]);
}

#[test]
fn without_any_index_the_order_counts() {
    let body = r#"{"data":[{"embedding":[1]},{"embedding":[2],"index":null}]}"#;
    assert_eq!(good(Kind::OpenaiCompatible, body, 2).vectors, [[1.0], [2.0]]);
}

#[test]
fn an_index_is_a_whole_number_in_any_format() {
    let body = |one: &str, other: &str| {
        format!(
            r#"{{"data":[{{"index":{one},"embedding":[1]}},{{"index":{other},"embedding":[2]}}]}}"#
        )
    };
    for (one, other) in [("1.0", "0.0"), (r#""1""#, r#""0""#), ("1e0", "null"), ("1", r#""0""#)] {
        let vectors = good(Kind::Openai, &body(one, other), 2).vectors;
        assert_eq!(vectors, [[2.0], [1.0]], "{one} {other}");
    }
    for wrong in ["0.5", "-1", "-1.0", r#""first""#, r#""""#, "[0]", "true", "1e300"] {
        bad(Kind::Openai, &body(wrong, "1"), 2);
    }
}

#[test]
fn a_server_that_omits_zeros_leaves_out_the_index_of_the_first_text() {
    let items = |indexes: &[Option<u64>]| {
        let item = |(n, index): (usize, &Option<u64>)| match index {
            Some(index) => format!(r#"{{"index":{index},"embedding":[{n}]}}"#),
            None => format!(r#"{{"embedding":[{n}]}}"#),
        };
        format!(
            r#"{{"data":[{}]}}"#,
            indexes.iter().enumerate().map(item).collect::<Vec<_>>().join(",")
        )
    };
    for kind in [Kind::Openai, Kind::OpenaiCompatible, Kind::Voyage] {
        let body = items(&[None, Some(1), Some(2)]);
        assert_eq!(good(kind, &body, 3).vectors, [[0.0], [1.0], [2.0]]);
        // The index decides, not the position.
        let body = items(&[Some(2), Some(1), None]);
        assert_eq!(good(kind, &body, 3).vectors, [[2.0], [1.0], [0.0]]);
        for (indexes, error) in [
            (&[Some(0), None][..], "provider returned an index for some of the vectors only"),
            (&[None, Some(0)], "provider returned index 0 twice"),
            (&[None, Some(2)], "provider returned index 2 for 2 texts"),
            (&[None, Some(1), Some(1)], "provider returned index 1 twice"),
            (&[None, None, Some(2)], "provider returned an index for some of the vectors only"),
        ] {
            assert_eq!(bad(kind, &items(indexes), indexes.len()), error);
        }
    }
    // Empty lists are omitted in the same way.
    let body = r#"{"embeddings":[{"values":[1]},{}]}"#;
    assert_eq!(good(Kind::Gemini, body, 2).vectors, [vec![1.0], vec![]]);
}

#[test]
fn missing_duplicate_and_invalid_indexes_are_errors() {
    let vectors = |indexes: &[i64]| {
        let items = indexes.iter().map(|index| format!(r#"{{"index":{index},"embedding":[1]}}"#));
        format!(r#"{{"data":[{}]}}"#, items.collect::<Vec<_>>().join(","))
    };
    for (indexes, texts, error) in [
        (&[0, 1, 2][..], 4, "provider returned 3 vectors for 4 texts"),
        (&[0, 1], 1, "provider returned 2 vectors for 1 text"),
        (&[0], 2, "provider returned 1 vector for 2 texts"),
        (&[], 1, "provider returned 0 vectors for 1 text"),
        (&[0, 2], 2, "provider returned index 2 for 2 texts"),
        (&[1], 1, "provider returned index 1 for 1 text"),
        (&[1, 1], 2, "provider returned index 1 twice"),
    ] {
        assert_eq!(bad(Kind::Openai, &vectors(indexes), texts), error);
    }
    assert!(bad(Kind::Openai, &vectors(&[-1]), 1).starts_with("provider returned a reply that"));
    let far = r#"{"data":[{"index":18446744073709551615,"embedding":[1]}]}"#;
    assert_eq!(
        bad(Kind::Openai, far, 1),
        "provider returned index 18446744073709551615 for 1 text"
    );
}

#[test]
fn gemini_and_ollama_keep_the_order() {
    let gemini = r#"{"embeddings":[{"values":[1,2],"shape":[2]},{"values":[3,4]}],
        "usageMetadata":{"promptTokenCount":9,"promptTokenDetails":[{"modality":"TEXT"}]}}"#;
    let answer = good(Kind::Gemini, gemini, 2);
    assert_eq!((answer.vectors, answer.tokens), (vec![vec![1.0, 2.0], vec![3.0, 4.0]], Some(9)));
    let without = good(Kind::Gemini, r#"{"embeddings":[{"values":[1]}]}"#, 1);
    assert_eq!(without.tokens, None);

    let ollama = r#"{"model":"m","embeddings":[[0.1,0.2],[-0.3,0.4]],
        "total_duration":14143917,"load_duration":1019500,"prompt_eval_count":8}"#;
    let answer = good(Kind::Ollama, ollama, 2);
    assert_eq!((answer.vectors, answer.tokens), (vec![vec![0.1, 0.2], vec![-0.3, 0.4]], Some(8)));
    for kind in [Kind::Gemini, Kind::Ollama] {
        let body = r#"{"embeddings":[]}"#;
        assert_eq!(bad(kind, body, 2), "provider returned 0 vectors for 2 texts");
    }
}

#[test]
fn invalid_token_counts_are_ignored() {
    for usage in ["null", "7", "{}", r#"{"total_tokens":-1}"#, r#"{"total_tokens":"many"}"#] {
        let body = format!(r#"{{"data":[{{"index":0,"embedding":[1]}}],"usage":{usage}}}"#);
        assert_eq!(good(Kind::Openai, &body, 1).tokens, None, "{usage}");
    }
    let body = r#"{"data":[{"index":0,"embedding":[1]}],"usage":{"prompt_tokens":3}}"#;
    assert_eq!(good(Kind::OpenaiCompatible, body, 1).tokens, Some(3));
    let body = r#"{"embeddings":[[1]],"prompt_eval_count":-3}"#;
    assert_eq!(good(Kind::Ollama, body, 1).tokens, None);
}

#[test]
fn vectors_with_other_values_than_numbers_are_errors() {
    for vector in ["[\"NaN\"]", "[NaN]", "[[1]]", "[1e999]", "[true]", "null", "{}", "7"] {
        for (kind, body) in [
            (Kind::Openai, format!(r#"{{"data":[{{"index":0,"embedding":{vector}}}]}}"#)),
            (Kind::Gemini, format!(r#"{{"embeddings":[{{"values":{vector}}}]}}"#)),
            (Kind::Ollama, format!(r#"{{"embeddings":[{vector}]}}"#)),
        ] {
            let error = bad(kind, &body, 1);
            assert!(
                error.starts_with("provider returned a reply that cannot be read: "),
                "{error}"
            );
        }
    }
    for (text, reason) in
        [("???", "vector is not base64"), ("AAAAAAA=", "vector is not a whole number of floats")]
    {
        let error = bad(Kind::Openai, &format!(r#"{{"data":[{{"embedding":"{text}"}}]}}"#), 1);
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn malformed_bodies_are_errors() {
    let whole = r#"{"data":[{"index":0,"embedding":[0.25,"x"]}],"embeddings":[{"values":[1]}]}"#;
    for kind in Kind::SERVICES {
        for end in 0..whole.len() {
            bad(kind, &whole[..end], 1);
        }
        for body in [&b"\xff\xfe{"[..], b"", b"null", b"[]", b"\"x\"", b"{}", b"<html></html>"] {
            answer(kind, body, 1).unwrap_err();
        }
        let deep = [vec![b'['; 200_000], vec![b']'; 200_000]].concat();
        answer(kind, &deep, 1).unwrap_err();
    }
    // The error does not quote a long value in full.
    let long = format!(r#"{{"data":"{}"}}"#, "secret ".repeat(1000));
    assert!(bad(Kind::Openai, &long, 1).len() < 400);
}

#[test]
fn an_error_with_status_200_is_reported_in_the_services_words() {
    let body = r#"{"error":{"message":"Upstream is down","code":502}}"#;
    for kind in Kind::SERVICES {
        assert_eq!(bad(kind, body, 1), "provider returned an error: Upstream is down");
    }
}

#[test]
fn a_large_reply_is_parsed_quickly() {
    let (texts, dimensions) = (2048, 1536);
    let numbers: Vec<f32> = (0..dimensions).map(|n| (n as f32).sin() / 50.0).collect();
    let as_json = numbers.iter().map(f32::to_string).collect::<Vec<_>>().join(",");
    for vector in [format!("[{as_json}]"), format!("\"{}\"", base64(&numbers))] {
        let items =
            (0..texts).rev().map(|index| format!(r#"{{"index":{index},"embedding":{vector}}}"#));
        let body = format!(r#"{{"data":[{}]}}"#, items.collect::<Vec<_>>().join(","));
        let start = Instant::now();
        let vectors = good(Kind::Openai, &body, texts).vectors;
        println!("{} bytes in {:?}", body.len(), start.elapsed());
        assert_eq!(vectors.len(), texts);
        assert!(vectors.iter().all(|vector| *vector == numbers));
    }
}
