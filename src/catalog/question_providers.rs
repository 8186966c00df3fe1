//! Reads and writes the names of the providers that embed questions, which embedd.vector_tables has in question_settings.

use pgrx::spi::SpiClient;

use crate::datum::texts;
use crate::error::Result;

/// That a vector table `v` has the provider $1 as query_provider or fallback.
pub(super) const ASKS: &str =
    "$1 in (v.question_settings->>'query_provider', v.question_settings->>'fallback')";

/// The names of the vector tables that have a provider as query_provider or fallback.
pub fn tables_asking(client: &mut SpiClient<'_>, provider: &str) -> Result<Vec<String>> {
    // A statement that may write gets a new snapshot.
    let rows = client.update(
        &format!(
            "select v.name from embedd.vector_tables v where {ASKS} order by v.name limit 100"
        ),
        None,
        &[provider.into()],
    )?;
    texts(rows)
}

/// Gives a provider of questions another name.
pub fn rename_asked(client: &mut SpiClient<'_>, old: &str, new: &str) -> Result<()> {
    client.update(
        &format!(
            "update embedd.vector_tables v
            set question_settings =
                (select pg_catalog.jsonb_object_agg(e.key,
                            case when e.key in ('query_provider', 'fallback') and e.value = pg_catalog.to_jsonb($1) then pg_catalog.to_jsonb($2)
                                 else e.value end)
                   from pg_catalog.jsonb_each(v.question_settings) e)
          where {ASKS}"
        ),
        None,
        &[old.into(), new.into()],
    )?;
    Ok(())
}

/// Removes a provider of questions, with the model that was asked there.
pub fn forget_asked(client: &mut SpiClient<'_>, provider: &str) -> Result<()> {
    client.update(
        &format!(
            "update embedd.vector_tables v
            set question_settings =
                (select pg_catalog.jsonb_object_agg(e.key, e.value)
                   from pg_catalog.jsonb_each(v.question_settings) e
                  where not (e.key in ('query_provider', 'fallback') and e.value = pg_catalog.to_jsonb($1))
                    and not (e.key = 'query_model' and v.question_settings->>'query_provider' is not distinct from $1))
          where {ASKS}"
        ),
        None,
        &[provider.into()],
    )?;
    Ok(())
}
