//! Counting tokens and truncating texts.

use std::time::{Duration, Instant};

use bpe_openai::{cl100k_base, voyage3_base};
use embedd_wire::Kind;

use super::{model, model_reading};
use crate::providers::measure;

const ENGLISH: &str = "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age \
    of foolishness, it was the epoch of belief, it was the epoch of incredulity; we had everything before us.\n";
const GERMAN: &str = "Die Donaudampfschifffahrtsgesellschaft beförderte im Frühjahr außergewöhnlich viele Fahrgäste.\n";
const RUSSIAN: &str =
    "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему.\n";
const CHINESE: &str =
    "道可道，非常道。名可名，非常名。无名天地之始；有名万物之母。故常无欲，以观其妙。\n";
const JAPANESE: &str = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。\n";
const HINDI: &str = "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।\n";
const ARABIC: &str = "يولد جميع الناس أحراراً متساوين في الكرامة والحقوق، وقد وهبوا عقلاً وضميراً.\n";
const CODE: &str = "    for (let i = 0; i < items.length; i++) {\n        total += items[i].price * (1 + TAX_RATE);\n    }\n";
const JSON: &str = r#"{"id": 918273, "sku": "AB-1029-XZ", "price": 149.95, "in_stock": true, "tags": ["hiking", "warm"]}"#;
const EMOJI: &str = "great product 👍🏽🎉 10/10 would buy again 😂😂😂 ❤️\n";

const SAMPLES: [&str; 10] =
    [ENGLISH, GERMAN, RUSSIAN, CHINESE, JAPANESE, HINDI, ARABIC, CODE, JSON, EMOJI];

#[test]
fn tokens_of_openais_models_are_counted_exactly() {
    for name in ["text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002"] {
        for sample in SAMPLES {
            let (tokens, sent, truncated) =
                measure(Kind::Openai, &model_reading(name, 8192), sample);
            assert_eq!(tokens.count as usize, cl100k_base().count(sample));
            assert!(tokens.exact && !truncated && sent == sample);
        }
    }
    // From OpenAI's own example of counting tokens.
    let (tokens, ..) =
        measure(Kind::Openai, &model("text-embedding-3-small"), "tiktoken is great!");
    assert_eq!(tokens.count, 6);
    // Another server that offers OpenAI's model under the same name.
    let (tokens, ..) = measure(
        Kind::OpenaiCompatible,
        &model("openai/text-embedding-3-small"),
        "tiktoken is great!",
    );
    assert!(tokens.exact && tokens.count == 6);
    let (tokens, ..) = measure(Kind::Openai, &model("text-embedding-9"), "tiktoken is great!");
    assert!(!tokens.exact);
}

#[test]
fn an_empty_text_has_no_tokens() {
    for kind in Kind::SERVICES {
        let (tokens, sent, truncated) = measure(kind, &model_reading("m", 10), "");
        assert_eq!((tokens.count, &*sent, truncated), (0, "", false));
    }
}

#[test]
fn a_long_text_is_truncated_at_the_limit_and_never_within_a_character() {
    for sample in SAMPLES.into_iter().chain(["a  \n \n\n  b\t \r\n", "🧑‍🚀é\u{301}", "漢\n  \n"])
    {
        let text = sample.repeat(40);
        let total = cl100k_base().count(&text);
        for limit in (1..120).chain([total - 1, total, total + 1]) {
            let model = model_reading("text-embedding-3-small", limit as u32);
            let (tokens, sent, truncated) = measure(Kind::Openai, &model, &text);
            assert!(text.starts_with(&*sent));
            assert_eq!(tokens.count as usize, cl100k_base().count(&*sent));
            assert_eq!(truncated, sent.len() < text.len());
            assert!(tokens.count as usize <= limit);
            assert_eq!(truncated, total > limit);
            // A character has at most a handful of tokens, and so has a word that is split again.
            assert!(!truncated || tokens.count as usize + 8 >= limit, "{limit} {sent:?}");
        }
    }
}

#[test]
fn random_texts_are_truncated_correctly() {
    const PIECES: [&str; 16] = [
        " ", "  ", "\n", "\r\n", "\t", "'s", "'", "re", "Word", "12345", "!?", "é", "\u{301}",
        "漢", "👍🏽", "\0",
    ];
    let mut state = 7u64;
    for limit in 1..400 {
        let mut text = String::new();
        while text.len() < 1500 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            text.push_str(PIECES[(state >> 60) as usize]);
        }
        let model = model_reading("text-embedding-3-small", limit);
        let (tokens, sent, truncated) = measure(Kind::Openai, &model, &text);
        assert!(text.starts_with(&*sent) && truncated == (sent.len() < text.len()));
        assert_eq!(tokens.count as usize, cl100k_base().count(&*sent));
        assert!(
            tokens.count <= limit && (!truncated || tokens.count + 8 >= limit),
            "{limit} {tokens:?}"
        );
    }
}

#[test]
fn a_limit_of_zero_sends_an_empty_text() {
    let (tokens, sent, truncated) =
        measure(Kind::Openai, &model_reading("text-embedding-3-small", 0), "text");
    assert_eq!((tokens.count, &*sent, truncated), (0, "", true));
}

#[test]
fn huge_repetitive_texts_are_measured_quickly() {
    // An algorithm in quadratic time takes minutes here.
    let cases = [("a", 1_000_000, 8192), ("ab", 1_000_000, 8192), (" ", 1_000_000, 7000)];
    let shorter = ["\n", "1", "!", "é", "漢", "🙂", "a ", " \n", "\u{301}"];
    for (unit, bytes, limit) in cases.into_iter().chain(shorter.map(|unit| (unit, 100_000, 400))) {
        let text = unit.repeat(bytes / unit.len());
        let model = model_reading("text-embedding-3-small", limit);
        let start = Instant::now();
        let (tokens, _, truncated) = measure(Kind::Openai, &model, &text);
        let elapsed = start.elapsed();
        println!("{unit:?} {elapsed:?} {}", tokens.count);
        assert!(
            truncated && tokens.count <= limit && tokens.count + 8 > limit,
            "{unit:?} {tokens:?}"
        );
        assert!(elapsed < Duration::from_secs(20), "{unit:?} took {elapsed:?}");
    }
}

#[test]
fn estimates_are_not_too_low_and_not_much_too_high() {
    for sample in SAMPLES {
        let (tokens, ..) = measure(Kind::Voyage, &model("voyage-3.5"), sample);
        assert!(!tokens.exact);
        let estimated = tokens.count as usize;
        let (openai, voyage) = (cl100k_base().count(sample), voyage3_base().count(sample));
        println!("{estimated:4} {openai:4} {voyage:4} {sample:.20}");
        assert!(estimated >= voyage, "{estimated} {voyage} {sample}");
        assert!(estimated <= voyage * 2, "{estimated} {voyage} {sample}");
    }
}

#[test]
fn services_that_truncate_by_themselves_count_at_most_the_limit() {
    for kind in [Kind::Gemini, Kind::Voyage, Kind::Ollama] {
        let model = model_reading("m", 100);
        let fits = ENGLISH.repeat(2);
        let (tokens, sent, truncated) = measure(kind, &model, &fits);
        assert!(sent == fits && !truncated && tokens.count <= 100);
        // Certainly too long, but not long enough for sending all of it to be a waste.
        let long = ENGLISH.repeat(6);
        let (tokens, sent, truncated) = measure(kind, &model, &long);
        assert!(sent == long && truncated && tokens.count == 100);
        let huge = CHINESE.repeat(1000);
        let (tokens, sent, truncated) = measure(kind, &model, &huge);
        assert!(sent.len() <= 1600 && sent.len() > 1590 && huge.starts_with(&*sent));
        assert!(truncated && tokens.count == 100);
    }
}

#[test]
fn texts_for_servers_that_may_not_truncate_are_generously_bounded() {
    let long = ENGLISH.repeat(6);
    let (tokens, sent, truncated) =
        measure(Kind::OpenaiCompatible, &model_reading("bge-m3", 100), &long);
    assert!(sent == long && !truncated && tokens.count > 100);
    let huge = ENGLISH.repeat(100);
    let (_, sent, truncated) =
        measure(Kind::OpenaiCompatible, &model_reading("bge-m3", 100), &huge);
    assert!(sent.len() == 1600 && truncated);
    let (_, sent, truncated) = measure(Kind::OpenaiCompatible, &model("bge-m3"), &huge);
    assert!(sent == huge && !truncated);
}
