//! The indexes that serve filters on columns with `"index": true`.

use pgrx::spi::SpiClient;
use sha2::{Digest, Sha256};

use crate::catalog::VectorTable;
use crate::command;
use crate::datum::texts;
use crate::document::Column;
use crate::error::Result;
use crate::filter::Field;
use crate::name::quote_ident;
use crate::relation;
use crate::rights::RoleSwitch;

/// How the names of these indexes of one vector table begin.
pub fn prefix(id: i32) -> String {
    format!("embedd_ix_{id:08x}_")
}

/// The name of the index of a column, which differs with what its key is made of.
fn name(id: i32, column: &Column, key: &str) -> String {
    let hash = Sha256::digest(format!("{}\0{key}", column.name));
    let hash: String = hash[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}{hash}", prefix(id))
}

/// Creates the indexes that a vector table lacks and drops those that its columns have no more. Its writers wait while an
/// index is created; its readers do not.
pub fn follow(client: &mut SpiClient<'_>, table: &VectorTable) -> Result<()> {
    let _rights = RoleSwitch::of_owner(table.owner);
    let mut present = texts(client.update(
        "select c.relname::text from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indexrelid
          where i.indrelid = $1 and i.indisvalid and pg_catalog.starts_with(c.relname, $2)",
        None,
        &[table.relation.into(), prefix(table.id).into()],
    )?)?;
    let relation = table.relation_name()?;
    for column in table.columns.iter().filter(|column| column.index) {
        let Some(filter_type) = column.filter_type else { continue };
        let field = Field {
            name: column.name.clone(),
            filter_type,
            is_list: false,
            is_indexed: true,
            has_zone: true,
        };
        let key = field.key();
        let name = name(table.id, column, &key);
        match present.iter().position(|present| *present == name) {
            Some(at) => drop(present.swap_remove(at)),
            None => command::run(client, &format!("create index {name} on {relation} (({key}))"))?,
        }
    }
    for name in present {
        let schema = relation::schema_of(table.relation).unwrap_or_default();
        command::run(client, &format!("drop index {}.{name}", quote_ident(&schema)))?;
    }
    Ok(())
}
