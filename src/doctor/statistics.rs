//! Checks of planner statistics and dead rows of sources and vector tables.

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::Scope;
use super::finding::Finding;
use super::report::Report;
use crate::error::Result;
use crate::rights::RoleSwitch;

/// From this many rows on the planner needs statistics.
const LARGE: i64 = 1000;
/// Too many dead rows, even if autovacuum will process the table.
const VERY_MANY: i64 = 100_000;

/// Checks sources and vector tables; not on a standby, which has no counts.
pub fn examine(report: &mut Report, scope: &Scope) -> Result<()> {
    if scope.is_standby {
        for check in ["statistics", "dead_rows"] {
            report.add(Finding::fine(check, "", "not checked: only the primary has the counts"));
        }
        return Ok(());
    }
    for seen in &scope.tables {
        let (table, status) = (&seen.table, &seen.status);
        let both = [
            (table.relation, &table.relation_name, status.synced_rows),
            (table.source, &table.source_name, status.total_rows),
        ];
        for (relation, name, rows) in both {
            if let Some(name) = name {
                let rows = rows.unwrap_or_default();
                report.check("statistics", name, |client| {
                    examine_one(client, relation, name, rows)
                })?;
            }
        }
    }
    Ok(())
}

/// Whether autovacuum is enabled for an ordinary table, whether it was ever analyzed, and its live and dead rows.
const COUNTS: &str = "
    select pg_catalog.current_setting('autovacuum')::boolean and pg_catalog.current_setting('track_counts')::boolean
               and coalesce((select t.option_value::boolean from pg_catalog.pg_options_to_table(c.reloptions) t
                              where t.option_name = 'autovacuum_enabled'), true),
           exists (select from pg_catalog.pg_statistic s where s.starelid = c.oid),
           pg_catalog.pg_stat_get_live_tuples(c.oid), pg_catalog.pg_stat_get_dead_tuples(c.oid),
           pg_catalog.pg_stat_get_mod_since_analyze(c.oid)
      from pg_catalog.pg_class c
     where c.oid = $1 and c.relkind = 'r'";

fn examine_one(
    client: &SpiClient<'_>,
    relation: pg_sys::Oid,
    name: &str,
    rows: i64,
) -> Result<Vec<Finding>> {
    let _rights = RoleSwitch::of_extension()?;
    let found = client.select(COUNTS, None, &[relation.into()])?;
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let row = found.first();
    let is = |n: usize| -> Result<bool> { Ok(row.get::<bool>(n)? == Some(true)) };
    let number = |n: usize| -> Result<i64> { Ok(row.get::<i64>(n)?.unwrap_or_default()) };
    let (is_vacuumed, is_analyzed) = (is(1)?, is(2)?);
    let (live, dead, changed) = (number(3)?, number(4)?, number(5)?);
    Ok(judge(&Counts { is_vacuumed, is_analyzed, rows: rows.max(live), dead, changed }, name))
}

/// The statistics of a table.
struct Counts {
    /// Whether autovacuum is enabled for it.
    is_vacuumed: bool,
    is_analyzed: bool,
    rows: i64,
    dead: i64,
    /// Rows changed since the last analyze, which trigger autovacuum.
    changed: i64,
}

/// The findings of a table; none if autovacuum will take care of it.
fn judge(counts: &Counts, name: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    // Changes are counted with a delay, so "no change" means something only if the table has rows.
    let comes =
        counts.is_vacuumed && (counts.changed > 0 || counts.dead > 0 || counts.rows < LARGE * 10);
    if !counts.is_analyzed && counts.rows >= LARGE && !comes {
        let meaning = "it has never been analyzed, and autovacuum will not process it: the planner has no statistics for queries and comparisons";
        found.push(Finding::warning("statistics", name, meaning).with(format!("ANALYZE {name};")));
    }
    let most = if counts.is_vacuumed { VERY_MANY } else { LARGE };
    if counts.dead > counts.rows.max(most) {
        let meaning = format!(
            "it has {} dead rows and {} live rows: every scan reads both",
            counts.dead, counts.rows
        );
        let remedy = format!("VACUUM (ANALYZE) {name};");
        found.push(Finding::warning("dead_rows", name, meaning).with(remedy));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_that_autovacuum_will_process_are_fine() {
        let fresh = Counts {
            is_vacuumed: true,
            is_analyzed: false,
            rows: 50_000,
            dead: 0,
            changed: 50_000,
        };
        let checks =
            |counts: &Counts| -> Vec<&str> { judge(counts, "t").iter().map(|f| f.check).collect() };
        assert!(checks(&fresh).is_empty());
        assert!(checks(&Counts { rows: 50, is_vacuumed: false, ..fresh }).is_empty());
        assert_eq!(checks(&Counts { is_vacuumed: false, ..fresh }), ["statistics"]);
        // As after pg_upgrade.
        assert_eq!(checks(&Counts { changed: 0, ..fresh }), ["statistics"]);
        assert_eq!(checks(&Counts { dead: 200_000, ..fresh }), ["dead_rows"]);
        assert!(checks(&Counts { dead: 60_000, ..fresh }).is_empty());
        let alone = Counts { is_vacuumed: false, is_analyzed: true, ..fresh };
        assert_eq!(checks(&Counts { dead: 60_000, ..alone }), ["dead_rows"]);
        assert!(checks(&Counts { dead: 900, rows: 10, ..alone }).is_empty());
    }
}
