//! Refusals of OpenAI-compatible servers: TEI, vLLM, llama.cpp, Azure, gateways.

use embedd_wire::Kind;

use super::refusals::check;
use crate::providers::RefusalKind::*;

#[test]
fn refusals_of_openai_compatible_servers_are_classified() {
    check(
        Kind::OpenaiCompatible,
        &[
            // TEI
            (
                422,
                r#"{"message":"batch size 64 > maximum allowed batch size 32","code":422,"type":"Validation"}"#,
                Input,
                "batch size 64 > maximum allowed batch size 32",
            ),
            (
                413,
                r#"{"error":"Payload too large","error_type":"Validation"}"#,
                Input,
                "Payload too large",
            ),
            (
                424,
                r#"{"message":"Backend error","code":424,"type":"Backend"}"#,
                Unavailable,
                "Backend error",
            ),
            (
                429,
                r#"{"message":"Model is overloaded","code":429,"type":"Overloaded"}"#,
                RateLimited,
                "Model is overloaded",
            ),
            (401, "", KeyRejected, "HTTP status 401"),
            // vLLM
            (
                404,
                r#"{"object":"error","message":"The model `x` does not exist.","type":"NotFoundError","param":null,"code":404}"#,
                UnknownModel,
                "The model `x` does not exist.",
            ),
            (
                400,
                r#"{"object":"error","message":"dimensions is currently not supported","type":"BadRequestError","param":null,"code":400}"#,
                Other,
                "dimensions is currently not supported",
            ),
            (
                400,
                r#"{"error":{"message":"This model's maximum context length is 512 tokens.","type":"BadRequestError","param":"input_tokens","code":400}}"#,
                Input,
                "This model's maximum context length is 512 tokens.",
            ),
            (
                422,
                r#"{"detail":[{"type":"string_type","loc":["body","input",1],"msg":"Input should be a valid string","input":7}]}"#,
                Input,
                "body.input.1: Input should be a valid string",
            ),
            (
                422,
                r#"{"detail":[{"type":"missing","loc":["body","task"],"msg":"Field required","input":{}}]}"#,
                Other,
                "body.task: Field required",
            ),
            // llama.cpp
            (
                500,
                r#"{"error":{"code":500,"message":"input (518 tokens) is too large to process. increase the physical batch size (current batch size: 512)","type":"server_error"}}"#,
                Input,
                "input (518 tokens) is too large to process. increase the physical batch size (current batch size: 512)",
            ),
            (
                501,
                r#"{"error":{"code":501,"message":"This server does not support embeddings. Start it with `--embeddings`","type":"not_supported_error"}}"#,
                Other,
                "This server does not support embeddings. Start it with `--embeddings`",
            ),
            // Azure
            (
                404,
                r#"{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist."}}"#,
                UnknownModel,
                "The API deployment for this resource does not exist.",
            ),
            (
                404,
                r#"{"error":{"code":"404","message":"Resource not found"}}"#,
                Other,
                "Resource not found",
            ),
            (
                401,
                r#"{"error":{"code":"401","message":"Access denied due to invalid subscription key or wrong API endpoint."}}"#,
                KeyRejected,
                "Access denied due to invalid subscription key or wrong API endpoint.",
            ),
            // Gateways
            (
                402,
                r#"{"error":{"message":"Insufficient credits","code":402}}"#,
                QuotaExhausted,
                "Insufficient credits",
            ),
            (
                400,
                r#"{"error":{"message":"Invalid model: x","type":"invalid_model","param":null,"code":"1500"}}"#,
                UnknownModel,
                "Invalid model: x",
            ),
            (529, "", Unavailable, "HTTP status 529"),
            (408, "", Unavailable, "HTTP status 408"),
            (409, "", Unavailable, "HTTP status 409"),
            (425, "", Unavailable, "HTTP status 425"),
            (301, "", Redirect, "HTTP status 301"),
            (
                307,
                "<a href=\"http://elsewhere/\">Temporary Redirect</a>.",
                Redirect,
                "Temporary Redirect .",
            ),
            (405, r#"{"detail":"Method Not Allowed"}"#, Other, "Method Not Allowed"),
            (100, "", Other, "HTTP status 100"),
        ],
    );
}
