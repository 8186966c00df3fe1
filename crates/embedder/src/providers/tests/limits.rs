//! The limits of a request in the messages of services.

use crate::providers::Measure;
use crate::providers::limit::stated;

#[test]
fn limits_are_parsed_from_the_messages_of_services() {
    for (message, measure, own, limit) in [
        ("batch size 64 > maximum allowed batch size 32", Measure::Texts, 64, 32),
        ("input batch size 136 > maximum allowed batch size 64", Measure::Texts, 136, 64),
        ("Invalid 'input': array length must be 2048 or less.", Measure::Texts, 3000, 2048),
        (
            "Invalid 'input': array too long. Expected an array with maximum length 2048, but got an array with length 3000 instead.",
            Measure::Texts,
            3000,
            2048,
        ),
        (
            "Request to model 'voyage-4' failed. The batch size limit is 1000. Your batch size is 3663.",
            Measure::Texts,
            3663,
            1000,
        ),
        (
            "* BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch",
            Measure::Texts,
            128,
            100,
        ),
        (
            "invalid request: total number of texts must be at most 96 - received 97",
            Measure::Texts,
            97,
            96,
        ),
        (
            "<400> InternalError.Algo.InvalidParameter: Value error, batch size is invalid, it should not be larger than 10.: input.contents",
            Measure::Texts,
            32,
            10,
        ),
        ("batch size is invalid, 10 is the most", Measure::Texts, 32, 10),
        (
            "Requested 306153 tokens, max 300000 tokens per request",
            Measure::Tokens,
            310_000,
            300_000,
        ),
        (
            "Request to model 'voyage-4-large' failed. The max allowed tokens per submitted batch is 120000. Your batch has 126899 tokens after truncation. Please lower the number of tokens in the batch.",
            Measure::Tokens,
            130_000,
            120_000,
        ),
        ("a maximum of 300,000 tokens in a single request", Measure::Tokens, 400_000, 300_000),
        (
            "Request payload size exceeds the limit: 4194304 bytes.",
            Measure::Bytes,
            5 << 20,
            4 << 20,
        ),
        ("request body too large: limit is 2 MB", Measure::Bytes, 3 << 20, 2 << 20),
    ] {
        let stated = stated(400, message).unwrap_or_else(|| panic!("{message}"));
        assert_eq!(stated.measure, measure, "{message}");
        let first = stated.numbers.iter().find(|number| **number < own);
        assert_eq!(first, Some(&limit), "{message}: {:?}", stated.numbers);
    }
}

#[test]
fn a_measure_may_be_named_without_a_number() {
    for (status, message, measure) in [
        (400, "Too many inputs in request, split into more batches.", Measure::Texts),
        (400, "Too many tokens overall, split into more batches.", Measure::Tokens),
        (400, "Batch size exceeds the limit", Measure::Texts),
        (413, "Payload too large", Measure::Bytes),
        (413, "HTTP status 413", Measure::Bytes),
    ] {
        let stated = stated(status, message).unwrap_or_else(|| panic!("{message}"));
        assert_eq!((stated.measure, stated.numbers.as_slice()), (measure, &[][..]), "{message}");
    }
}

#[test]
fn a_text_that_is_too_long_and_a_rate_are_no_limits_of_a_request() {
    for message in [
        "This model's maximum context length is 8192 tokens, however you requested 8528 tokens",
        "Invalid 'input[0]': maximum input length is 8192 tokens.",
        "`inputs` must have less than 512 tokens. Given: 700",
        "input (596 tokens) is too large to process. increase the physical batch size (current batch size: 512)",
        "request (4476 tokens) exceeds the available context size (4096 tokens), try increasing it",
        "the input length exceeds the context length",
        "Rate limit reached for m on tokens per min (TPM): Limit 1000000, Requested 2000000.",
        "it is bad",
        "Input should be a valid string",
    ] {
        assert_eq!(stated(400, message), None, "{message}");
    }
}
