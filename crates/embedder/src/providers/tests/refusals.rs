//! Refusals in the words of each service.

use embedd_wire::Kind;

use super::headers;
use crate::providers::RefusalKind::{self, *};
use crate::providers::{Refusal, refusal};

fn refused(kind: Kind, status: u16, body: &str) -> Refusal {
    refusal(kind, status, &headers(&[]), body.as_bytes())
}

/// Checks how replies are classified: status, body, kind of refusal, and message.
pub(super) fn check(kind: Kind, cases: &[(u16, &str, RefusalKind, &str)]) {
    for (status, body, expected, message) in cases {
        let refusal = refused(kind, *status, body);
        assert_eq!(
            (refusal.kind, refusal.message.as_str()),
            (*expected, *message),
            "{status} {body}"
        );
    }
}

#[test]
fn openai() {
    check(
        Kind::Openai,
        &[
            (
                401,
                r#"{"error":{"message":"Incorrect API key provided: sk-ab***cd. You can find your API key at https://platform.openai.com/account/api-keys.","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}"#,
                KeyRejected,
                "Incorrect API key provided: ***. You can find your API key at https://platform.openai.com/account/api-keys.",
            ),
            (
                403,
                r#"{"error":{"message":"Country, region, or territory not supported","type":"request_forbidden","param":null,"code":"unsupported_country_region_territory"}}"#,
                KeyRejected,
                "Country, region, or territory not supported",
            ),
            (
                404,
                r#"{"error":{"message":"The model `text-embedding-9` does not exist or you do not have access to it.","type":"invalid_request_error","param":null,"code":"model_not_found"}}"#,
                UnknownModel,
                "The model `text-embedding-9` does not exist or you do not have access to it.",
            ),
            (
                403,
                r#"{"error":{"message":"Project `proj_x` does not have access to model `text-embedding-3-small`","type":"invalid_request_error","param":null,"code":"model_not_found"}}"#,
                UnknownModel,
                "Project `proj_x` does not have access to model `text-embedding-3-small`",
            ),
            (
                403,
                r#"{"error":{"message":"You are not allowed to generate embeddings from this model","type":"invalid_request_error","param":null,"code":null}}"#,
                UnknownModel,
                "You are not allowed to generate embeddings from this model",
            ),
            (
                404,
                r#"{"error":{"message":"Invalid URL (POST /v2/embeddings)","type":"invalid_request_error","param":null,"code":null}}"#,
                Other,
                "Invalid URL (POST /v2/embeddings)",
            ),
            (
                429,
                r#"{"error":{"message":"Rate limit reached for text-embedding-3-small on tokens per min (TPM): Limit 1000000","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#,
                RateLimited,
                "Rate limit reached for text-embedding-3-small on tokens per min (TPM): Limit 1000000",
            ),
            (
                429,
                r#"{"error":{"message":"Request too large for text-embedding-3-small on tokens per min (TPM): Limit 40000, Requested 52000.","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#,
                Input,
                "Request too large for text-embedding-3-small on tokens per min (TPM): Limit 40000, Requested 52000.",
            ),
            (
                429,
                r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","param":null,"code":null}}"#,
                QuotaExhausted,
                "You exceeded your current quota",
            ),
            (
                429,
                r#"{"error":{"message":"Your account is not active","type":"billing_not_active","param":null,"code":"billing_not_active"}}"#,
                QuotaExhausted,
                "Your account is not active",
            ),
            (
                400,
                r#"{"error":{"message":"Billing hard limit has been reached","type":"invalid_request_error","param":null,"code":"billing_hard_limit_reached"}}"#,
                QuotaExhausted,
                "Billing hard limit has been reached",
            ),
            (
                400,
                r#"{"error":{"message":"Requested 351929 tokens, max 300000 tokens per request","type":"max_tokens_per_request","param":null,"code":"max_tokens_per_request"}}"#,
                Input,
                "Requested 351929 tokens, max 300000 tokens per request",
            ),
            (
                400,
                r#"{"error":{"message":"This model's maximum context length is 8192 tokens, however you requested 9001 tokens","type":"invalid_request_error","param":null,"code":null}}"#,
                Input,
                "This model's maximum context length is 8192 tokens, however you requested 9001 tokens",
            ),
            (
                400,
                r#"{"error":{"message":"Invalid 'input[3]': input cannot be an empty string.","type":"invalid_request_error","param":"input","code":null}}"#,
                Input,
                "Invalid 'input[3]': input cannot be an empty string.",
            ),
            (
                400,
                r#"{"error":{"message":"Invalid value for 'dimensions' = 9999. Must be less than or equal to 1536.","type":"invalid_request_error","param":null,"code":null}}"#,
                Other,
                "Invalid value for 'dimensions' = 9999. Must be less than or equal to 1536.",
            ),
            (
                400,
                r#"{"error":{"message":"Too many","type":"invalid_request_error","param":"dimensions","code":null}}"#,
                Other,
                "Too many",
            ),
            (
                500,
                r#"{"error":{"message":"The server had an error","type":"server_error","param":null,"code":null}}"#,
                Unavailable,
                "The server had an error",
            ),
            (503, "", Unavailable, "HTTP status 503"),
        ],
    );
}

#[test]
fn gemini() {
    check(
        Kind::Gemini,
        &[
            (
                400,
                r#"{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID","domain":"googleapis.com","metadata":{"service":"generativelanguage.googleapis.com"}}]}}"#,
                KeyRejected,
                "API key not valid. Please pass a valid API key.",
            ),
            (
                403,
                r#"{"error":{"code":403,"message":"Method doesn't allow unregistered callers","status":"PERMISSION_DENIED"}}"#,
                KeyRejected,
                "Method doesn't allow unregistered callers",
            ),
            (
                404,
                r#"{"error":{"code":404,"message":"models/text-embedding-005 is not found for API version v1beta, or is not supported for embedContent.","status":"NOT_FOUND"}}"#,
                UnknownModel,
                "models/text-embedding-005 is not found for API version v1beta, or is not supported for embedContent.",
            ),
            (
                404,
                "<!DOCTYPE html><html lang=en><meta charset=utf-8><title>Error 404 (Not Found)!!1</title>",
                Other,
                "Error 404 (Not Found)!!1",
            ),
            (
                400,
                r#"{"error":{"code":400,"message":"* BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch\n","status":"INVALID_ARGUMENT"}}"#,
                Input,
                "* BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch",
            ),
            (
                400,
                r#"{"error":{"code":400,"message":"Request payload size exceeds the limit: 4194304 bytes.","status":"INVALID_ARGUMENT"}}"#,
                Input,
                "Request payload size exceeds the limit: 4194304 bytes.",
            ),
            (
                400,
                r#"{"error":{"code":400,"message":"User location is not supported for the API use.","status":"FAILED_PRECONDITION"}}"#,
                Other,
                "User location is not supported for the API use.",
            ),
            (
                429,
                r#"{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and billing details.","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"EmbedContentRequestsPerMinutePerProjectPerModel-FreeTier"}]}]}}"#,
                RateLimited,
                "You exceeded your current quota, please check your plan and billing details.",
            ),
            (
                429,
                r#"[{"error":{"code":429,"message":"You exceeded your current quota","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"EmbedContentRequestsPerDayPerProjectPerModel-FreeTier"}]}]}}]"#,
                QuotaExhausted,
                "You exceeded your current quota",
            ),
            (
                503,
                r#"{"error":{"code":503,"message":"The model is overloaded. Please try again later.","status":"UNAVAILABLE"}}"#,
                Unavailable,
                "The model is overloaded. Please try again later.",
            ),
        ],
    );
}

#[test]
fn voyage() {
    check(
        Kind::Voyage,
        &[
            (
                401,
                r#"{"detail":"Provided API key is invalid."}"#,
                KeyRejected,
                "Provided API key is invalid.",
            ),
            (
                400,
                r#"{"detail":"Model voyage-9 is not supported. Supported models are ['voyage-3.5', 'voyage-code-3']."}"#,
                UnknownModel,
                "Model voyage-9 is not supported. Supported models are ['voyage-3.5', 'voyage-code-3'].",
            ),
            (
                400,
                r#"{"detail":"Value '1536' supplied for argument 'output_dimension' is not valid -- accepted values for 'voyage-3-large' are [256, 512, 1024, 2048]."}"#,
                Other,
                "Value '1536' supplied for argument 'output_dimension' is not valid -- accepted values for 'voyage-3-large' are [256, 512, 1024, 2048].",
            ),
            (
                400,
                r#"{"detail":"Request to model 'voyage-code-3' failed. The max allowed tokens per submitted batch is 120000. Your batch has 124417 tokens after truncation. Please lower the number of tokens in the batch."}"#,
                Input,
                "Request to model 'voyage-code-3' failed. The max allowed tokens per submitted batch is 120000. Your batch has 124417 tokens after truncation. Please lower the number of tokens in the batch.",
            ),
            (
                429,
                r#"{"detail":"You have not yet added your payment method in the billing page and will have reduced rate limits of 3 RPM and 10K TPM."}"#,
                RateLimited,
                "You have not yet added your payment method in the billing page and will have reduced rate limits of 3 RPM and 10K TPM.",
            ),
            (
                502,
                "<html><head><title>502 Bad Gateway</title></head></html>",
                Unavailable,
                "502 Bad Gateway",
            ),
        ],
    );
}

#[test]
fn ollama() {
    check(
        Kind::Ollama,
        &[
            (
                404,
                r#"{"error":"model \"nomic\" not found, try pulling it first"}"#,
                UnknownModel,
                "model \"nomic\" not found, try pulling it first",
            ),
            (
                404,
                r#"{"error":"model 'nomic' not found"}"#,
                UnknownModel,
                "model 'nomic' not found",
            ),
            (404, "404 page not found", Other, "404 page not found"),
            (
                400,
                r#"{"error":"\"llama3\" does not support embedding"}"#,
                UnknownModel,
                "\"llama3\" does not support embedding",
            ),
            (
                400,
                r#"{"error":"the input length exceeds the context length"}"#,
                Input,
                "the input length exceeds the context length",
            ),
            (499, r#"{"error":"request canceled"}"#, Unavailable, "request canceled"),
            (
                503,
                r#"{"error":"server busy, please try again.  maximum pending requests exceeded"}"#,
                Unavailable,
                "server busy, please try again. maximum pending requests exceeded",
            ),
            (
                500,
                r#"{"error":"llama runner process has terminated"}"#,
                Unavailable,
                "llama runner process has terminated",
            ),
        ],
    );
}

#[test]
fn no_status_causes_a_panic() {
    for status in 0..=u16::MAX {
        refused(Kind::Openai, status, "{}");
    }
}
