//! Requests, compared byte by byte.

use embedd_wire::{Encoding, InputType, Kind, Model, Provider};
use serde_json::Value;

use super::published::{Field, GEMINI, OLLAMA, OPENAI, VOYAGE, check};
use super::{model, model_asked, provider, provider_at, provider_with};
use crate::providers::call;

/// The body of a request, checked against the published API.
fn body(provider: &Provider, model: &Model, input_type: InputType, texts: &[&str]) -> String {
    let fields: &[Field] = match provider.kind {
        Kind::Gemini => GEMINI,
        Kind::Voyage => VOYAGE,
        Kind::Ollama => OLLAMA,
        _ => OPENAI,
    };
    let body = String::from_utf8(call(provider, model, input_type, texts).body).unwrap();
    check(&serde_json::from_str::<Value>(&body).unwrap(), fields);
    body
}

fn url(provider: &Provider, model: &Model) -> String {
    call(provider, model, InputType::Query, &["a"]).url
}

#[test]
fn openai_asks_for_base64_and_for_dimensions_only_where_they_differ() {
    let small = model("text-embedding-3-small");
    for input_type in [InputType::Query, InputType::Document] {
        assert_eq!(
            body(&provider(Kind::Openai), &small, input_type, &["one", "t\"w\no"]),
            r#"{"model":"text-embedding-3-small","input":["one","t\"w\no"],"encoding_format":"base64"}"#
        );
    }
    assert_eq!(
        body(
            &provider(Kind::Openai),
            &model_asked("text-embedding-3-small", 512),
            InputType::Document,
            &["äöü 漢字 🙂"]
        ),
        r#"{"model":"text-embedding-3-small","input":["äöü 漢字 🙂"],"encoding_format":"base64","dimensions":512}"#
    );
    assert_eq!(
        body(&provider_with(Kind::Openai, Encoding::Float), &small, InputType::Query, &["a"]),
        r#"{"model":"text-embedding-3-small","input":["a"],"encoding_format":"float"}"#
    );
}

#[test]
fn requests_to_openai_compatible_servers_have_only_the_original_fields() {
    let any = model("BAAI/bge-m3");
    assert_eq!(
        body(&provider(Kind::OpenaiCompatible), &any, InputType::Document, &["a"]),
        r#"{"model":"BAAI/bge-m3","input":["a"]}"#
    );
    assert_eq!(
        body(
            &provider_with(Kind::OpenaiCompatible, Encoding::Base64),
            &model_asked("m", 256),
            InputType::Query,
            &["a"]
        ),
        r#"{"model":"m","input":["a"],"encoding_format":"base64","dimensions":256}"#
    );
    assert_eq!(
        body(
            &provider_with(Kind::OpenaiCompatible, Encoding::Float),
            &any,
            InputType::Query,
            &["a"]
        ),
        r#"{"model":"BAAI/bge-m3","input":["a"],"encoding_format":"float"}"#
    );
}

#[test]
fn requests_to_voyage_have_the_input_type() {
    let voyage = provider(Kind::Voyage);
    assert_eq!(
        body(&voyage, &model("voyage-3.5"), InputType::Query, &["a"]),
        r#"{"model":"voyage-3.5","input":["a"],"input_type":"query","truncation":true,"encoding_format":"base64"}"#
    );
    assert_eq!(
        body(&voyage, &model_asked("voyage-3.5-lite", 512), InputType::Document, &["a", "b"]),
        r#"{"model":"voyage-3.5-lite","input":["a","b"],"input_type":"document","truncation":true,"output_dimension":512,"encoding_format":"base64"}"#
    );
    assert_eq!(
        body(
            &provider_with(Kind::Voyage, Encoding::Float),
            &model("voyage-3-lite"),
            InputType::Document,
            &["a"]
        ),
        r#"{"model":"voyage-3-lite","input":["a"],"input_type":"document","truncation":true}"#
    );
}

#[test]
fn a_batch_to_gemini_has_a_request_for_each_text() {
    let gemini = provider(Kind::Gemini);
    assert_eq!(
        body(&gemini, &model("gemini-embedding-001"), InputType::Query, &["a"]),
        r#"{"requests":[{"model":"models/gemini-embedding-001","content":{"parts":[{"text":"a"}]},"taskType":"RETRIEVAL_QUERY"}]}"#
    );
    assert_eq!(
        body(
            &gemini,
            &model_asked("models/gemini-embedding-001", 768),
            InputType::Document,
            &["a", "b"]
        ),
        concat!(
            r#"{"requests":["#,
            r#"{"model":"models/gemini-embedding-001","content":{"parts":[{"text":"a"}]},"taskType":"RETRIEVAL_DOCUMENT","outputDimensionality":768},"#,
            r#"{"model":"models/gemini-embedding-001","content":{"parts":[{"text":"b"}]},"taskType":"RETRIEVAL_DOCUMENT","outputDimensionality":768}"#,
            r#"]}"#
        )
    );
    // The second generation does not support the task type.
    assert_eq!(
        body(&gemini, &model("gemini-embedding-2"), InputType::Query, &["a"]),
        r#"{"requests":[{"model":"models/gemini-embedding-2","content":{"parts":[{"text":"a"}]}}]}"#
    );
}

#[test]
fn requests_to_ollama_ask_for_truncation() {
    let ollama = provider(Kind::Ollama);
    for input_type in [InputType::Query, InputType::Document] {
        assert_eq!(
            body(&ollama, &model("nomic-embed-text:v1.5"), input_type, &["a", "b"]),
            r#"{"model":"nomic-embed-text:v1.5","input":["a","b"],"truncate":true}"#
        );
    }
    assert_eq!(
        body(&ollama, &model_asked("qwen3-embedding", 512), InputType::Document, &["a"]),
        r#"{"model":"qwen3-embedding","input":["a"],"truncate":true,"dimensions":512}"#
    );
}

#[test]
fn unknown_dimensions_are_not_requested() {
    for kind in Kind::SERVICES {
        let asked = body(&provider(kind), &model_asked("m", 0), InputType::Query, &["a"]);
        assert!(!asked.to_lowercase().contains("dimension"), "{asked}");
    }
}

#[test]
fn urls_are_the_services_or_below_the_base_url() {
    let m = model("m");
    assert_eq!(url(&provider(Kind::Openai), &m), "https://api.openai.com/v1/embeddings");
    assert_eq!(url(&provider(Kind::Voyage), &m), "https://api.voyageai.com/v1/embeddings");
    assert_eq!(url(&provider(Kind::Ollama), &m), "http://localhost:11434/api/embed");
    assert_eq!(
        url(&provider(Kind::Gemini), &m),
        "https://generativelanguage.googleapis.com/v1beta/models/m:batchEmbedContents"
    );
    for base in ["http://tei:8080/v1", "http://tei:8080/v1/", " http://tei:8080/v1//#top"] {
        let url = url(&provider_at(Kind::OpenaiCompatible, base), &m);
        assert_eq!(url, "http://tei:8080/v1/embeddings");
    }
    assert_eq!(
        url(
            &provider_at(
                Kind::OpenaiCompatible,
                "https://x.openai.azure.com/openai/deployments/d?api-version=2024-02-01"
            ),
            &m
        ),
        "https://x.openai.azure.com/openai/deployments/d/embeddings?api-version=2024-02-01"
    );
    assert_eq!(
        url(&provider_at(Kind::Gemini, "http://proxy/g/?a=1&b=2?3"), &m),
        "http://proxy/g/models/m:batchEmbedContents?a=1&b=2?3"
    );
    assert_eq!(url(&provider_at(Kind::Ollama, "http://o:1?"), &m), "http://o:1/api/embed");
}

#[test]
fn the_name_of_a_model_stays_one_segment_of_the_path() {
    for (name, segment) in [
        ("gemini-embedding-001", "gemini-embedding-001"),
        ("models/gemini-embedding-001", "gemini-embedding-001"),
        ("../../files", "..%2F..%2Ffiles"),
        ("..", ".."),
        ("m?key=1#x", "m%3Fkey%3D1%23x"),
        ("a b\n%ü", "a%20b%0A%25%C3%BC"),
    ] {
        assert_eq!(
            url(&provider_at(Kind::Gemini, "http://g"), &model(name)),
            format!("http://g/models/{segment}:batchEmbedContents")
        );
    }
}

#[test]
fn keys_are_sent_in_the_header_of_the_service_or_the_provider() {
    for kind in Kind::SERVICES {
        let usual = call(&provider(kind), &model("m"), InputType::Query, &["a"]).key_header;
        let own = Provider { key_header: Some("api-key".to_string()), ..provider(kind) };
        let own = call(&own, &model("m"), InputType::Query, &["a"]).key_header;
        if kind == Kind::Gemini {
            assert_eq!(usual, ("x-goog-api-key".to_string(), ""));
        } else {
            assert_eq!(usual, ("authorization".to_string(), "Bearer "));
        }
        assert_eq!(own, ("api-key".to_string(), ""));
    }
}
