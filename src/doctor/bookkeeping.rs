//! Checks of embedd's own tables: retiring models, and sequences.

use pgrx::spi::SpiClient;

use super::finding::Finding;
use super::report::Report;
use super::{Scope, remedy};
use crate::catalog::VectorTable;
use crate::cluster::system_id;
use crate::error::Result;
use crate::fdw::Server;
use crate::name::quote_literal;
use crate::rights::RoleSwitch;

/// How many days before its retirement a model is reported.
const AHEAD: i32 = 365;

/// Checks the models in use and the sequences; the sequences only for roles that may see the whole server.
pub fn examine(report: &mut Report, scope: &Scope) -> Result<()> {
    for seen in &scope.tables {
        let table = &seen.table;
        report.check("model", &table.name, |client| model(client, table))?;
    }
    if !scope.sees_server {
        let meaning = "not checked: only members of pg_monitor may see it";
        report.add(Finding::fine("sequence", "", meaning));
        return Ok(());
    }
    for sequence in &SEQUENCES {
        report.check("sequence", sequence.name, |client| sequence.examine(client))?;
    }
    Ok(())
}

/// Whether the model of a vector table retires, and its replacement. Before ALTER EXTENSION UPDATE the catalog may not
/// have that.
fn model(client: &SpiClient<'_>, table: &VectorTable) -> Result<Vec<Finding>> {
    // A missing provider is reported by another check.
    let kind = match Server::of_table(table) {
        Ok(Some(server)) => server.options.kind,
        Ok(None) => embedd_wire::Kind::Local,
        Err(_) => return Ok(Vec::new()),
    };
    let rows = client.select(
        "select m.row ->> 'retires_on', (m.row ->> 'retires_on')::date - current_date, m.row ->> 'replacement'
           from (select pg_catalog.to_jsonb(m) as row from embedd.models m where m.provider = $1 and m.model = $2) m
          where m.row ->> 'retires_on' is not null",
        None,
        &[kind.as_str().into(), table.model.as_str().into()],
    )?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let (day, left, replacement) = rows.first().get_three::<String, i32, String>()?;
    let (day, left) = (day.unwrap_or_default(), left.unwrap_or_default());
    if left > AHEAD {
        return Ok(Vec::new());
    }
    let (name, model) = (&table.name, &table.model);
    let found = match left > 0 {
        true => Finding::warning(
            "model",
            name,
            format!("its model {model} retires on {day}: from then on nothing is embedded"),
        ),
        false => Finding::problem(
            "model",
            name,
            format!("its model {model} has retired on {day}: nothing is embedded any more"),
        ),
    };
    let remedy = replacement.and_then(|replacement| {
        let new_name = format!("{name}-{replacement}");
        let create = remedy::create(table, &new_name, table.stored.sync_mode, &replacement)?;
        Some(format!("{create} -- then let queries name it, and drop the old one"))
    });
    Ok(vec![found.with(remedy)])
}

/// A sequence of embedd, and the table that uses its numbers.
struct Sequence {
    name: &'static str,
    /// A query for the largest number in use in this cluster, $2; the queue may be long, so it reads some rows only,
    /// and the positions up to which workers are done.
    largest: &'static str,
    /// Whether a number below one already given out would never be read.
    only_grows: bool,
}

const SEQUENCES: [Sequence; 3] = [
    Sequence {
        name: "embedd.vector_tables_id_seq",
        largest: "select max(v.id)::bigint from embedd.vector_tables v",
        only_grows: false,
    },
    Sequence {
        name: "embedd.tasks_task_id_seq",
        largest: "select max(t.task_id) from embedd.tasks t",
        only_grows: false,
    },
    Sequence {
        name: "embedd.queue_id_seq",
        largest: "select greatest((select max(q.id) from (select q.id from embedd.queue q where q.system_id = $2 limit 10000) q),
                          (select max(s.done_id) from embedd.sync_state s
                             join embedd.vector_tables v on v.id = s.table_id where v.system_id = $2))",
        only_grows: true,
    },
];

impl Sequence {
    fn examine(&self, client: &SpiClient<'_>) -> Result<Vec<Finding>> {
        let _rights = RoleSwitch::of_extension()?;
        let rows = client.select(
            &format!(
                "select case when s.is_called then s.last_value else s.last_value - 1 end,
                        coalesce(({}), 0), (select q.seqmax from pg_catalog.pg_sequence q where q.seqrelid = $1::regclass)
                   from {} s where $2 is not null",
                self.largest, self.name
            ),
            None,
            &[self.name.into(), system_id().into()],
        )?;
        let (last, largest, most) = rows.first().get_three::<i64, i64, i64>()?;
        let (last, largest) = (last.unwrap_or_default(), largest.unwrap_or_default());
        let stand = SequenceState { last, largest, most: most.unwrap_or(i64::MAX) };
        Ok(judge(self.name, self.only_grows, &stand).into_iter().collect())
    }
}

/// The state of a sequence: the last number given out, the largest in use, and the maximum.
struct SequenceState {
    last: i64,
    largest: i64,
    most: i64,
}

/// The problem of a sequence, if any.
fn judge(
    name: &str,
    only_grows: bool,
    &SequenceState { last, largest, most }: &SequenceState,
) -> Option<Finding> {
    let near = most / 10 * 9;
    let remedy = match largest {
        0 => format!("SELECT pg_catalog.setval({}, 1, false);", quote_literal(name)),
        _ => format!("SELECT pg_catalog.setval({}, {largest});", quote_literal(name)),
    };
    if last < largest {
        let stands = format!(
            "its last value is {last}, but {largest} is in use, as after copying the rows without the sequence"
        );
        return Some(match only_grows {
            true => Finding::problem("sequence", name, format!("{stands}: changes with a lower number may be missed until embedd.reconcile() finds them")),
            false => Finding::warning("sequence", name, format!("{stands}: it has to skip numbers in use")),
        }
        .with(remedy));
    }
    if last < near {
        return None;
    }
    let meaning = format!("it is at {last} of {most}: it will soon run out of numbers");
    let found = Finding::problem("sequence", name, meaning);
    Some(if largest < near && !only_grows { found.with(remedy) } else { found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_is_ahead_of_its_table_and_far_from_its_end() {
        let says = |last, largest| {
            judge("s", false, &SequenceState { last, largest, most: 1000 })
                .map(|f| (f.state.as_str(), f.remedy))
        };
        assert_eq!(says(0, 0), None);
        assert_eq!(says(5, 5), None);
        assert_eq!(
            says(4, 5),
            Some(("warning", Some("SELECT pg_catalog.setval('s', 5);".to_string())))
        );
        assert_eq!(
            says(950, 7),
            Some(("problem", Some("SELECT pg_catalog.setval('s', 7);".to_string())))
        );
        assert_eq!(
            says(950, 0),
            Some(("problem", Some("SELECT pg_catalog.setval('s', 1, false);".to_string())))
        );
        assert_eq!(says(950, 940), Some(("problem", None)));
        // Queue rows below the workers' positions are not read.
        let queue = |last| {
            judge("q", true, &SequenceState { last, largest: 5, most: 1000 })
                .map(|f| (f.state.as_str(), f.remedy.is_some()))
        };
        assert_eq!(
            [4, 5, 950].map(queue),
            [Some(("problem", true)), None, Some(("problem", false))]
        );
    }
}
