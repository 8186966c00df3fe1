//! The URL of a request and the header of its key, as far as all services agree.

use std::fmt::Write;

use embedd_wire::Provider;

/// The URL of a path below the provider's base URL; a query string of the base URL (Azure has one) stays at the end.
pub(super) fn url(provider: &Provider, path: &str) -> String {
    let base =
        provider.base_url.as_deref().or(provider.kind.default_base_url()).unwrap_or_default();
    let base = base.trim().split('#').next().unwrap_or_default();
    let (place, query) = base.split_once('?').unwrap_or((base, ""));
    let place = place.trim_end_matches('/');
    if query.is_empty() { format!("{place}{path}") } else { format!("{place}{path}?{query}") }
}

/// A name as one path segment, escaped so that it cannot become a second segment or a query.
pub(super) fn segment(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// The header of the key and the prefix of its value; a header that the provider names carries the bare key.
pub(super) fn key_header(
    provider: &Provider,
    usual: &str,
    before: &'static str,
) -> (String, &'static str) {
    match &provider.key_header {
        Some(own) => (own.clone(), ""),
        None => (usual.to_string(), before),
    }
}

/// The header of the key that most services use.
pub(super) fn bearer(provider: &Provider) -> (String, &'static str) {
    key_header(provider, "authorization", "Bearer ")
}
