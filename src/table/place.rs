//! The place of a vector table's physical table: its schema and its name.

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::CreateRequest;
use crate::catalog;
use crate::error::{Error, Result};
use crate::name::{self, quote_ident};
use crate::relation;
use crate::rights::RoleSwitch;

/// The schema: the wanted one, or that of the source. The current role must be allowed to create tables in it.
pub fn schema(client: &SpiClient<'_>, request: &CreateRequest) -> Result<String> {
    let schema = match &request.table_schema {
        Some(schema) if schema.is_empty() => {
            return Err(Error::bad_argument("table_schema must not be empty"));
        }
        Some(schema) => schema.clone(),
        None => schema_of(client, request.source)?,
    };
    check_schema(client, &schema)?;
    Ok(schema)
}

/// Rejects a schema that does not exist, that is not for users, or in which the current role cannot create tables.
pub fn check_schema(client: &SpiClient<'_>, schema: &str) -> Result<()> {
    if schema.starts_with("pg_") || schema == "information_schema" || schema == "embedd" {
        return Err(Error::BadArgument {
            message: format!("schema \"{schema}\" cannot hold a vector table"),
            detail: Some("It belongs to the system, to one session or to embedd.".to_string()),
            hint: Some("Name another one as table_schema.".to_string()),
        });
    }
    let rows = client.select(
        "select pg_catalog.has_schema_privilege(n.oid, 'CREATE') and pg_catalog.has_schema_privilege(n.oid, 'USAGE')
           from pg_catalog.pg_namespace n where n.nspname = $1",
        None,
        &[schema.into()],
    )?;
    if rows.is_empty() {
        return Err(Error::UnknownSchema { name: schema.to_string() });
    }
    match rows.first().get_one::<bool>()? {
        Some(true) => Ok(()),
        _ => Err(Error::NotAllowed {
            object: format!("schema \"{schema}\""),
            hint: format!(
                "Ask its owner for: GRANT USAGE, CREATE ON SCHEMA {} TO your role.",
                quote_ident(schema)
            ),
        }),
    }
}

/// Takes an id, and returns it with the name of the physical table: the wanted one, or one made of id and name.
pub fn name(
    client: &mut SpiClient<'_>,
    request: &CreateRequest,
    schema: &str,
) -> Result<(i32, String)> {
    let _rights = RoleSwitch::of_extension()?;
    let mut id = catalog::next_id(client)?;
    if let Some(wanted) = &request.table_name {
        return match relation::find(schema, wanted).and_then(relation::qualified_name) {
            Some(relation) => Err(Error::RelationExists { relation }),
            None => Ok((id, wanted.clone())),
        };
    }
    // A table kept after its vector table or the extension was dropped may have the name.
    loop {
        let table = name::vector_table(&request.name, id as u32);
        if relation::find(schema, &table).is_none() {
            return Ok((id, table));
        }
        id = catalog::next_id(client)?;
    }
}

/// The schema of a relation.
fn schema_of(client: &SpiClient<'_>, relation: pg_sys::Oid) -> Result<String> {
    let rows = client.select(
        "select n.nspname::text from pg_catalog.pg_class c
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = $1",
        None,
        &[relation.into()],
    )?;
    Ok(rows.first().get_one::<String>()?.unwrap_or_default())
}
