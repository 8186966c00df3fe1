//! Finds the source rows of imported vectors, and decides which vectors are those of the rows as they are now.

use pgrx::prelude::*;

use super::given::Row;
use crate::catalog::VectorTable;
use crate::error::Result;
use crate::rights::RoleSwitch;
use crate::source;
use crate::sync::Document;
use crate::text_settings;
use crate::transaction::{self, Blame};

/// White space at the ends of a text, which other products remove before they embed it.
const WHITE_SPACE: &str = "E' \\t\\n\\r\\f\\v'";

/// What a row of the query is to the vector table.
pub enum Match {
    /// Its vector is that of this document, which is not stored yet.
    Row(Document),
    /// The vector table has the row as it is now.
    Same,
    /// Its vector is not that of a row, for this reason.
    Not(&'static str),
}

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
        let documents = match is_indexed {
            true => {
                let condition = key.equals("s", &key.values("k.pk"));
                let documents = table.documents(&table.source_name()?, &condition);
                format!("left join lateral ({documents}) d on true")
            }
            false => {
                let condition =
                    format!("{} and {} = any($1)", key.is_complete("s"), key.pk_value("s"));
                let documents = table.documents(&table.all_rows()?, &condition);
                format!("left join ({documents}) d on d.pk_value = k.pk")
            }
        };
        let text = |value: &str| {
            format!("pg_catalog.btrim({value} collate pg_catalog.\"C\", {WHITE_SPACE})")
        };
        let query = format!(
            "select m.ord, m.reason, m.pk_value, m.embedded_text, m.metadata::text, m.row_hash
               from (select k.ord, d.pk_value, d.embedded_text, d.metadata, d.row_hash,
                            case when d.pk_value is null then 'unknown_key'
                                 when d.embedded_text is null then 'too_large'
                                 when d.embedded_text = '' then 'empty_text'
                                 when v.row_hash = d.row_hash and v.embedding is not null then 'same'
                                 when $3 and ({given} = {present}) is not true then 'other_text'
                            end as reason
                       from unnest($1::text[], $2::text[]) with ordinality k(pk, text, ord)
                       {documents}
                       left join {relation} v on v.pk_value = d.pk_value
                      offset 0) m
              order by m.ord",
            given = text("k.text"),
            present = text("d.embedded_text"),
            relation = table.relation_name()?,
        );
        Ok(Self { table, query, has_text })
    }

    /// What each of some rows is.
    pub fn of(&self, rows: &[Row]) -> Result<Vec<Match>> {
        let failure = match transaction::nested(|| self.select(rows)) {
            Ok(found) => return Ok(found),
            Err(failure) => failure,
        };
        if failure.blame() != Blame::Row {
            return Err(failure.into());
        }
        // A key that is no value of the key's type, or a source row that cannot be read.
        if let [row] = rows {
            let is_key = self.accepts(&row.key)?;
            return Ok(vec![Match::Not(if is_key { "unreadable" } else { "unknown_key" })]);
        }
        let (some, others) = rows.split_at(rows.len() / 2);
        let mut found = self.of(some)?;
        found.extend(self.of(others)?);
        Ok(found)
    }

    fn select(&self, rows: &[Row]) -> Result<Vec<Match>> {
        let keys: Vec<&str> = rows.iter().map(|row| row.key.as_str()).collect();
        let texts: Vec<Option<&str>> = rows.iter().map(|row| row.text.as_deref()).collect();
        Spi::connect_mut(|client| {
            let rights = RoleSwitch::of_owner(self.table.owner);
            text_settings::set_text_settings(&rights);
            let mut matches: Vec<Match> = Vec::with_capacity(rows.len());
            // Not select(): the snapshot has to be one from after the lock on the vector table.
            let found = client.update(
                &self.query,
                None,
                &[keys.into(), texts.into(), self.has_text.into()],
            )?;
            for row in found {
                let ordinal = row.get::<i64>(1)?.unwrap_or_default() as usize;
                if ordinal <= matches.len() {
                    // Several rows of the source have the key.
                    if let Some(last) = matches.last_mut() {
                        *last = Match::Not("repeated_key");
                    }
                    continue;
                }
                matches.push(match row.get::<String>(2)?.as_deref() {
                    Some("same") => Match::Same,
                    Some(reason) => Match::Not(known(reason)),
                    None => Match::Row(Document {
                        pk_value: row.get::<String>(3)?.unwrap_or_default(),
                        text: row.get::<String>(4)?.unwrap_or_default(),
                        metadata: row.get::<String>(5)?.unwrap_or_default(),
                        row_hash: row.get::<String>(6)?.unwrap_or_default(),
                    }),
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

/// The reasons of the query, as they are counted.
fn known(reason: &str) -> &'static str {
    const REASONS: [&str; 4] = ["unknown_key", "too_large", "empty_text", "other_text"];
    REASONS.into_iter().find(|known| *known == reason).unwrap_or("unreadable")
}
