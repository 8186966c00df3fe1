//! Finds pgvector's operator classes by their purpose, since a superuser may have renamed or moved them.

use pgrx::spi::SpiClient;

use crate::error::{Error, Result};

/// The operator class of an access method for a type and an ordering operator, such as `<=>` for cosine distance; its
/// name is quoted and qualified.
pub fn find(client: &SpiClient<'_>, method: &str, of: &str, operator: &str) -> Result<String> {
    let rows = client.select(
        "select pg_catalog.format('%I.%I', n.nspname, c.opcname)
           from pg_catalog.pg_opclass c
           join pg_catalog.pg_namespace n on n.oid = c.opcnamespace
           join pg_catalog.pg_am a on a.oid = c.opcmethod
           join pg_catalog.pg_type t on t.oid = c.opcintype
           join pg_catalog.pg_amop o on o.amopfamily = c.opcfamily and o.amoplefttype = c.opcintype and o.amopstrategy = 1
           join pg_catalog.pg_operator p on p.oid = o.amopopr
          where a.amname = $1 and t.typname = $2 and p.oprname = $3
          order by c.oid limit 1",
        None,
        &[method.into(), of.into(), operator.into()],
    )?;
    let class = if rows.is_empty() { None } else { rows.first().get_one::<String>()? };
    class.ok_or_else(|| Error::Damaged {
        what: format!("no operator class of {method} for {of} and {operator}"),
    })
}
