//! Embeds one text for a vector table, in a session that waits for the vector.

use embedd_wire::InputType;

use super::{Server, probe};
use crate::catalog::VectorTable;
use crate::error::{Error, Result};
use crate::{client, guc, shared};

/// Embeds a text with the model of a vector table and the key of its owner. The wait ends with
/// `embedd.embedder_timeout` or an interrupt.
pub fn for_table(table: &VectorTable, text: &str, input_type: InputType) -> Result<Vec<f32>> {
    if !shared::is_preloaded() {
        return Err(Error::NotPreloaded);
    }
    if text.trim().is_empty() {
        return Err(Error::bad_argument("the text to embed is empty"));
    }
    let (provider, model) = super::resolve(table)?;
    client::embed(&provider, &model, input_type, text, guc::embedder_timeout()).map_err(|error| {
        match Server::of_table(table) {
            Ok(Some(server)) => probe::for_role(error, &server, table.owner),
            _ => error,
        }
    })
}
