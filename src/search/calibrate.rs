//! Measures the recall of the index of a vector table, with questions near stored vectors, so that query() knows how much of the
//! index to visit. The calibrator runs it, with the rights of the vector table's owner.

use pgrx::spi::SpiClient;

use super::direction::moved;
use super::nearest::{Candidate, Wanted, exactly, extent, found_by};
use super::plan::{self, Known};
use super::recall::{right_of, sampled};
use crate::catalog::recall_curve::{self, MEASURED};
use crate::catalog::{self, RecallCurve, Status, VectorTable};
use crate::error::Result;
use crate::filter::Condition;
use crate::rights::RoleSwitch;
use crate::vector_column::IndexKey;

/// The rows that each question is to find.
const ROWS: i32 = 10;
/// How far a question is moved from one stored vector towards another. Texts of questions are not like documents, and an index
/// finds their neighbours less often than those of a stored vector (docs/decisions/0012).
const MOVED: f64 = 0.6;

/// What is being measured.
pub struct Measurement {
    questions: Vec<Vec<f32>>,
    curve: RecallCurve,
    found: [usize; MEASURED.len()],
    wanted: usize,
}

/// The vector table in which the recall of an index is to be measured, of those that `skip` leaves; None where none is.
pub fn next(
    client: &SpiClient<'_>,
    skip: impl Fn(&VectorTable) -> bool,
) -> Result<Option<VectorTable>> {
    for mut table in catalog::all(client)?.tables {
        if !skip(&table) && table.resolve().is_ok() && due(client, &table, None)?.is_some() {
            return Ok(Some(table));
        }
    }
    Ok(None)
}

/// The measurement of a vector table that is due, with its questions; None where none is due any more.
pub fn begin(client: &SpiClient<'_>, table: &VectorTable) -> Result<Option<Measurement>> {
    // Before the first ANALYZE the size of a table is a guess, often ten times too much.
    let rows = count(client, table)?;
    let Some((curve, exact)) = due(client, table, Some(rows))? else { return Ok(None) };
    let _rights = RoleSwitch::of_owner(table.owner);
    let stored = sampled(client, table, recall_curve::questions(exact))?;
    let others = stored.iter().cycle().skip(1);
    let pairs = stored.iter().zip(others);
    let questions = pairs.filter_map(|((_, one), (_, other))| moved(one, other, MOVED)).collect();
    Ok(Some(Measurement { questions, curve, found: Default::default(), wanted: 0 }))
}

/// Whether a vector table is in sync, with no backfill or swap ahead, and no session waits for a lock on it.
pub fn is_at_rest(table: &VectorTable) -> bool {
    table.status == Status::Synced
        && table.stored.replaces.is_none()
        && table.is_responsible()
        && catalog::partitions::lock_if_free(table.relation)
}

fn count(client: &SpiClient<'_>, table: &VectorTable) -> Result<f64> {
    let _rights = RoleSwitch::of_owner(table.owner);
    let sql = format!("select count(*) from {}", table.relation_name()?);
    Ok(client.select(&sql, None, &[])?.first().get_one::<i64>()?.unwrap_or(0) as f64)
}

/// The curve to be filled and the microseconds of an exact answer, where a measurement is due and nothing else is at work. The
/// rows are estimated where they were not counted.
fn due(
    client: &SpiClient<'_>,
    table: &VectorTable,
    counted: Option<f64>,
) -> Result<Option<(RecallCurve, f64)>> {
    if !is_at_rest(table) {
        return Ok(None);
    }
    let extent = extent(client, table)?;
    let Some(index) = &extent.index else { return Ok(None) };
    if index.method != "hnsw" || index.key == IndexKey::Bits || !extent.rows.is_finite() {
        return Ok(None);
    }
    let (index, rows) = (index.oid.to_u32(), counted.unwrap_or(extent.rows));
    let curve = RecallCurve { index, rows, ..RecallCurve::default() };
    let known = Known::of(rows, table.dimensions);
    let exact = plan::time_of_exact(&known);
    let measured = table.stored.measured_recall.as_ref();
    let is_due = recall_curve::is_due(measured, curve.index, curve.rows, exact);
    Ok(is_due.then_some((curve, exact)))
}

impl Measurement {
    /// How many questions there are.
    pub fn questions(&self) -> usize {
        self.questions.len()
    }

    /// Asks one of the questions at each hnsw.ef_search, and exactly.
    pub fn ask(&mut self, client: &SpiClient<'_>, table: &VectorTable, at: usize) -> Result<()> {
        let Some(vector) = self.questions.get(at) else { return Ok(()) };
        let _rights = RoleSwitch::of_owner(table.owner);
        let distances = |rows: Vec<Candidate>| -> Vec<f64> {
            rows.into_iter().map(|candidate| candidate.distance).collect()
        };
        let right = distances(exactly(client, table, vector, ROWS, Condition::all())?);
        for (found, ef_search) in self.found.iter_mut().zip(MEASURED) {
            let ef_search = Some(ef_search);
            let wanted = Wanted { limit: ROWS, ef_search, ..Wanted::default() };
            let (rows, _) = found_by(client, table, vector, &wanted, Condition::all())?;
            *found += right_of(&distances(rows), &right);
        }
        self.wanted += right.len();
        Ok(())
    }

    /// What was measured; None without a question.
    pub fn curve(mut self) -> Option<RecallCurve> {
        let wanted = self.wanted as f64;
        self.curve.questions = self.questions.len() as i32;
        self.curve.recall = self.found.map(|found| found as f64 / wanted).into();
        (self.wanted > 0).then_some(self.curve)
    }
}
