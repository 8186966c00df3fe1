//! The indexes of a shadow: those of the vector table that it replaces, built after its load under names of their own.

use pgrx::spi::SpiClient;

use super::{INDEXES, PARTS, Parts, Whole, on_fields, set_path_to_pgvector};
use crate::catalog::VectorTable;
use crate::command;
use crate::datum::{VectorType, texts};
use crate::error::{Error, Result};
use crate::operator_class;
use crate::relation;
use crate::rights::RoleSwitch;

/// How the names of a shadow's indexes begin until the swap.
pub(super) const PREFIX: &str = "embedd_swap_";

/// The definitions of indexes that a shadow lacks, as pairs of name and definition in the form of
/// embedd.vector_tables.held_indexes. The swap gives an index `embedd_swap_<oid>` the name of the index with this oid.
pub fn missing(
    client: &mut SpiClient<'_>,
    live: &VectorTable,
    shadow: &VectorTable,
) -> Result<Vec<String>> {
    let schema = VectorType::find(client)?.schema;
    let column = shadow.vector_column();
    let is_other_index = live.stored.index_options != shadow.stored.index_options;
    let own = match column.is_indexed() {
        true => {
            let (of, operator) = column.indexed_as();
            let class = operator_class::find(client, "hnsw", of, operator)?;
            Some(whole(&column.index_definition(&schema, &class))?)
        }
        false => None,
    };
    let _rights = RoleSwitch::of_owner(shadow.owner);
    set_path_to_pgvector(client, &schema)?;
    let rows = client.update(
        &format!(
            "select 'embedd_swap_' || i.indexrelid, a.amname in ('hnsw', 'ivfflat'), {PARTS}::text, c.relname::text,
                    pg_catalog.jsonb_build_object('is_unique', i.indisunique, 'rest',
                        pg_catalog.substr(d.def, pg_catalog.strpos(d.def, ' USING ')), 'tablespace', s.spcname)::text,
                    exists (select from pg_catalog.pg_class n join pg_catalog.pg_index s on s.indexrelid = n.oid
                             where s.indrelid = $2 and n.relname = 'embedd_swap_' || i.indexrelid)
               from {INDEXES}
              where i.indrelid = $1 and i.indisvalid and c.relkind = 'i' and not pg_catalog.starts_with(c.relname, $3)
                and not exists (select from pg_catalog.pg_constraint k
                                 where k.conindid = i.indexrelid and k.contype in ('p', 'u', 'x'))
              order by i.indexrelid"
        ),
        None,
        &[
            live.relation.into(),
            shadow.relation.into(),
            // The shadow has its own.
            on_fields::prefix(live.id).into(),
        ],
    )?;
    let (mut definitions, mut has_own) = (Vec::new(), false);
    for row in rows {
        let (Some(name), Some(parts), Some(index), Some(rest)) = (
            row.get::<String>(1)?,
            row.get::<String>(3)?,
            row.get::<String>(4)?,
            row.get::<String>(5)?,
        ) else {
            continue;
        };
        let is_there = row.get::<bool>(6)? == Some(true);
        let definition = match row.get::<bool>(2)? == Some(true) {
            false => Some(rest),
            true => {
                let parts: Parts = serde_json::from_str(&parts)
                    .map_err(|e| Error::Damaged { what: format!("index definition: {e}") })?;
                // embedd's own index, which the options describe.
                let is_quantized = live.vector_column().is_quantized();
                let is_own = match is_quantized {
                    true => is_over_the_bits(&parts.key) && parts.operator == "<~>",
                    false => is_over_the_vector(&parts.key) && parts.operator == "<=>",
                };
                match is_own && (is_other_index || is_quantized) {
                    true if std::mem::replace(&mut has_own, true) => None,
                    true => own.clone(),
                    false => {
                        has_own |= is_own;
                        adapt(parts, &index, live, shadow)?
                    }
                }
            }
        };
        if let Some(definition) = definition.filter(|_| !is_there) {
            definitions.extend([name, definition]);
        }
    }
    // One that replaces no other: the vector table can have none.
    let name = format!("embedd_swap_own_{}", shadow.id);
    let could_have = live.vector_column().is_indexed();
    if let Some(own) = own.filter(|_| !has_own && (!could_have || is_other_index))
        && relation::find_beside(shadow.relation, &name).is_none()
    {
        definitions.extend([name, own]);
    }
    Ok(definitions)
}

/// A definition that is kept as text from the access method on.
fn whole(rest: &str) -> Result<String> {
    serde_json::to_string(&Whole { is_unique: false, rest: rest.to_string(), tablespace: None })
        .map_err(|e| Error::Damaged { what: e.to_string() })
}

/// The definition of a vector index for the vectors of a shadow; none where these have too many dimensions for one.
fn adapt(
    parts: Parts,
    index: &str,
    live: &VectorTable,
    shadow: &VectorTable,
) -> Result<Option<String>> {
    let (before, column) = (live.vector_column(), shadow.vector_column());
    let is_same = before.dimensions == column.dimensions && before.of == column.of;
    if !is_same && !is_over_the_vector(&parts.key) {
        let (index, name) = (index.to_string(), shadow.name.clone());
        return Err(Error::IndexNotCarried { index, name });
    }
    if !is_same && !column.can_be_indexed() {
        return Ok(None);
    }
    let parts = match is_same {
        true => parts,
        false => {
            let of = column.compared_as().as_str();
            let key = match column.is_cast() {
                true => format!("((embedding)::{of}({}))", column.dimensions),
                false => "embedding".to_string(),
            };
            Parts { key, of: of.to_string(), ..parts }
        }
    };
    let parts =
        serde_json::to_string(&parts).map_err(|e| Error::Damaged { what: e.to_string() })?;
    Ok(Some(parts))
}

/// Whether an index key is the vector, as it is or cast to halfvec.
fn is_over_the_vector(key: &str) -> bool {
    let bare: String = key.chars().filter(|c| !matches!(c, '(' | ')' | '"')).collect();
    let type_name = |of: &str| of.rsplit('.').next().is_some_and(|of| of.starts_with("halfvec"));
    bare == "embedding" || bare.strip_prefix("embedding::").is_some_and(type_name)
}

/// Whether an index key is the signs of the vector's elements.
fn is_over_the_bits(key: &str) -> bool {
    let bare: String = key.chars().filter(|c| !matches!(c, '(' | ')' | '"')).collect();
    bare.rsplit('.').next().is_some_and(|bare| bare.starts_with("binary_quantizeembedding::bit"))
}

/// Drops the indexes of a shadow whose counterpart the vector table has no more.
pub fn drop_unpaired(
    client: &mut SpiClient<'_>,
    live: &VectorTable,
    shadow: &VectorTable,
) -> Result<()> {
    let _rights = RoleSwitch::of_owner(shadow.owner);
    let rows = client.update(
        "select pg_catalog.format('%I.%I', n.nspname, c.relname)
           from pg_catalog.pg_index s
           join pg_catalog.pg_class c on c.oid = s.indexrelid
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace
          where s.indrelid = $2 and pg_catalog.starts_with(c.relname, $3) and c.relname <> $4
            and not exists (select from pg_catalog.pg_index i where i.indrelid = $1 and c.relname = $3 || i.indexrelid)",
        None,
        &[
            live.relation.into(),
            shadow.relation.into(),
            PREFIX.into(),
            format!("{PREFIX}own_{}", shadow.id).into(),
        ],
    )?;
    for name in texts(rows)? {
        command::run(client, &format!("drop index {name}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_can_be_adapted_are_known() {
        for key in ["embedding", "((embedding)::halfvec(3072))", "(embedding)::public.halfvec(8)"] {
            assert!(is_over_the_vector(key), "{key}");
        }
        for key in ["binary_quantize(embedding)", "subvector(embedding, 1, 100)", "other"] {
            assert!(!is_over_the_vector(key), "{key}");
        }
        for key in
            ["((binary_quantize(embedding))::bit(768))", "(x.binary_quantize(embedding))::bit(8)"]
        {
            assert!(is_over_the_bits(key), "{key}");
        }
        assert!(!is_over_the_bits("embedding") && !is_over_the_bits("other(embedding)"));
    }
}
