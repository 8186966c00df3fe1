//! Finds the source rows of imported vectors, and decides which vectors are those of the rows as they are now.

use std::collections::HashSet;

use pgrx::PgMemoryContexts;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;

use super::given::Row;
use crate::catalog::VectorTable;
use crate::datum::Texts;
use crate::error::{Error, Result};
use crate::rights::RoleSwitch;
use crate::source;
use crate::text_settings;
use crate::transaction::{self, Blame};

/// White space at the ends of a text, which other products remove before they embed it.
const WHITE_SPACE: &str = "E' \\t\\n\\r\\f\\v'";

/// Rows of the query whose vectors are those of source rows that are not stored yet.
pub struct Ready {
    /// Their positions among the rows that were matched.
    pub positions: Vec<usize>,
    /// Arrays of their keys, texts, metadata and hashes, in the same order.
    keys: pg_sys::Datum,
    texts: pg_sys::Datum,
    metadata: pg_sys::Datum,
    hashes: pg_sys::Datum,
}

impl Ready {
    /// The keys as an argument of a statement.
    pub fn keys(&self) -> DatumWithOid<'_> {
        // SAFETY: an array of the type that the oid names, which lives as long as this value's memory.
        unsafe { DatumWithOid::new(self.keys, pg_sys::TEXTARRAYOID) }
    }

    /// Whether a key is there several times.
    pub fn has_repeated_keys(&self) -> bool {
        // SAFETY: an array of texts, as above.
        let keys = unsafe { Texts::from_polymorphic_datum(self.keys, false, pg_sys::TEXTARRAYOID) };
        let keys = keys.map(|keys| keys.0).unwrap_or_default();
        keys.iter().collect::<HashSet<_>>().len() < keys.len()
    }

    /// Texts, metadata and hashes as arguments of a statement.
    pub fn documents(&self) -> [DatumWithOid<'_>; 3] {
        // SAFETY: as above.
        unsafe {
            [
                DatumWithOid::new(self.texts, pg_sys::TEXTARRAYOID),
                DatumWithOid::new(self.metadata, pg_sys::JSONBARRAYOID),
                DatumWithOid::new(self.hashes, pg_sys::TEXTARRAYOID),
            ]
        }
    }
}

/// What some rows of the query are to the vector table.
#[derive(Default)]
pub struct Matches {
    /// Rows to be written; where a row cannot be read, in several parts.
    pub ready: Vec<Ready>,
    /// The other rows, by reason; those that the vector table has already are [`SAME`].
    pub others: Vec<(String, i64)>,
}

/// The reason of rows that the vector table has as they are now.
pub const SAME: &str = "same";

/// How rows of the query are matched with those of the source.
pub struct Matching<'a> {
    table: &'a VectorTable,
    query: String,
    has_text: bool,
}

impl<'a> Matching<'a> {
    /// Without an index on the key the source is read once for each batch.
    pub fn new(table: &'a VectorTable, has_text: bool) -> Result<Self> {
        let rights = RoleSwitch::of_extension()?;
        let is_indexed = Spi::connect(|client| source::has_unique_key(client, table))?;
        drop(rights);
        let key = &table.key;
        let (documents, copies, count) = match is_indexed {
            true => {
                let condition = key.equals("s", &key.values("k.pk"));
                let documents = table.documents(&table.source_name()?, &condition);
                (format!("left join lateral ({documents}) d on true"), "1", "pg_catalog.count(*)")
            }
            false => {
                let condition =
                    format!("{} and {} = any($1)", key.is_complete("s"), key.pk_value("s"));
                let documents = table.documents(&table.all_rows()?, &condition);
                (
                    format!("left join ({documents}) d on d.pk_value = k.pk"),
                    "pg_catalog.count(*) over (partition by k.ord)",
                    "pg_catalog.count(distinct r.ord)",
                )
            }
        };
        let text = |value: &str| format!("{value} collate pg_catalog.\"C\"");
        let (given, present) = (text("k.text"), text("d.embedded_text"));
        let ready = |column: &str| {
            format!("pg_catalog.array_agg({column}) filter (where r.reason is null)")
        };
        let query = format!(
            "select r.reason, {count}, {ordinals}, {keys}, {texts}, {metadata}, {hashes}
               from (select k.ord, d.pk_value, d.embedded_text, d.metadata, d.row_hash,
                            case when d.pk_value is null then 'unknown_key'
                                 when {copies} > 1 then 'repeated_key'
                                 when d.embedded_text is null then 'too_large'
                                 when d.embedded_text = '' then 'empty_text'
                                 when v.row_hash = d.row_hash and v.embedding is not null then '{SAME}'
                                 when $3 and ({given} = {present}
                                              or pg_catalog.btrim({given}, {WHITE_SPACE}) = pg_catalog.btrim({present}, {WHITE_SPACE}))
                                             is not true then 'other_text'
                            end as reason
                       from unnest($1::text[], $2::text[]) with ordinality k(pk, text, ord)
                       {documents}
                       left join {relation} v on v.pk_value = d.pk_value
                      offset 0) r
              group by r.reason",
            ordinals = ready("r.ord"),
            keys = ready("r.pk_value"),
            texts = ready("r.embedded_text"),
            metadata = ready("r.metadata"),
            hashes = ready("r.row_hash"),
            relation = table.relation_name()?,
        );
        Ok(Self { table, query, has_text })
    }

    /// What some rows are. What comes back is in this memory.
    pub fn of(&self, rows: &[Row], memory: &mut PgMemoryContexts) -> Result<Matches> {
        let mut matches = Matches::default();
        if !rows.is_empty() {
            self.add(rows, 0, memory, &mut matches)?;
        }
        Ok(matches)
    }

    /// Adds what some rows are, of which the first has this position.
    fn add(
        &self,
        rows: &[Row],
        first: usize,
        memory: &mut PgMemoryContexts,
        matches: &mut Matches,
    ) -> Result<()> {
        let failure = match transaction::nested(|| self.select(rows, first, memory)) {
            Ok(Matches { ready, others }) => {
                matches.ready.extend(ready);
                matches.others.extend(others);
                return Ok(());
            }
            Err(failure) => failure,
        };
        if failure.blame() != Blame::Row {
            return Err(failure.into());
        }
        // A key that is no value of the key's type, or a source row that cannot be read.
        if let [row] = rows {
            let reason = if self.accepts(&row.key)? { "unreadable" } else { "unknown_key" };
            matches.others.push((reason.to_string(), 1));
            return Ok(());
        }
        let middle = rows.len() / 2;
        self.add(&rows[..middle], first, memory, matches)?;
        self.add(&rows[middle..], first + middle, memory, matches)
    }

    fn select(&self, rows: &[Row], first: usize, memory: &mut PgMemoryContexts) -> Result<Matches> {
        let keys: Vec<&str> = rows.iter().map(|row| row.key.as_str()).collect();
        let texts: Vec<Option<&str>> = rows.iter().map(|row| row.text.as_deref()).collect();
        Spi::connect_mut(|client| {
            let rights = RoleSwitch::of_owner(self.table.owner);
            text_settings::set_text_settings(&rights);
            // Not select(): the snapshot has to be one from after the lock on the vector table.
            let mut found = client.update(
                &self.query,
                None,
                &[keys.into(), texts.into(), self.has_text.into()],
            )?;
            let mut matches = Matches::default();
            while let Some(row) = found.next() {
                if let Some(reason) = row.get::<String>(1)? {
                    matches.others.push((reason, row.get::<i64>(2)?.unwrap_or_default()));
                    continue;
                }
                let positions = row.get::<Vec<i64>>(3)?.unwrap_or_default().into_iter();
                let mut array = |n: usize| -> Result<pg_sys::Datum> {
                    let array = found.get_datum_by_ordinal(n)?.ok_or_else(no_array)?;
                    // SAFETY: an array of the row fetched, which is copied before it is freed.
                    unsafe {
                        Ok(memory.switch_to(|_| {
                            let copy = pg_sys::pg_detoast_datum_copy(array.cast_mut_ptr());
                            pg_sys::Datum::from(copy)
                        }))
                    }
                };
                matches.ready.push(Ready {
                    positions: positions.map(|ordinal| first + ordinal as usize - 1).collect(),
                    keys: array(4)?,
                    texts: array(5)?,
                    metadata: array(6)?,
                    hashes: array(7)?,
                });
            }
            Ok(matches)
        })
    }

    /// Whether a text is a value of the key's type.
    fn accepts(&self, key: &str) -> Result<bool> {
        let query = format!("select {}", self.table.key.values("$1").join(", "));
        let tried = transaction::nested(|| {
            Spi::connect_mut(|client| {
                let rights = RoleSwitch::of_owner(self.table.owner);
                text_settings::set_text_settings(&rights);
                client.update(&query, None, &[key.into()])?;
                Ok(())
            })
        });
        match tried {
            Ok(()) => Ok(true),
            Err(failure) if failure.blame() == Blame::Row => Ok(false),
            Err(failure) => Err(failure.into()),
        }
    }
}

fn no_array() -> Error {
    Error::Damaged { what: "no array of matches".to_string() }
}
