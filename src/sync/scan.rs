//! Goes over a whole vector table in pages: a backfill, or what follows a TRUNCATE.

use pgrx::spi::SpiClient;

use crate::catalog::{self, VectorTable};
use crate::error::Result;
use crate::name::quote_ident;
use crate::queue;
use crate::server::Rights;
use crate::task::{self, Phase, Task};

/// Keys in one page.
const PAGE: i64 = 1000;

/// Who asked for the scan.
#[derive(Debug)]
enum Reason {
    Task(i64),
    /// Rows of the queue that stand for a change of any number of rows.
    Marks(Vec<i64>),
}

/// A scan under way. Its keys go through the same backlog as changes.
#[derive(Debug)]
pub struct Scan {
    reason: Reason,
    phase: Phase,
    /// Every key up to this one is done.
    last_key: Option<String>,
    /// Last key of the page that is in work, and how many keys it has.
    page: Option<(String, i64)>,
}

/// What a step of a scan has brought.
pub enum Step {
    /// The keys of the next page.
    Page(Vec<String>),
    /// The scan is over.
    Done,
}

impl Scan {
    /// Begins a task, or takes it up again where it was.
    pub fn of_task(client: &mut SpiClient<'_>, task: &Task) -> Result<Self> {
        task::begin(client, task.id)?;
        Ok(Self {
            reason: Reason::Task(task.id),
            phase: task.phase,
            last_key: task.last_key.clone(),
            page: None,
        })
    }

    /// A scan that stands for these rows of the queue.
    pub fn of_marks(marks: Vec<i64>) -> Self {
        Self { reason: Reason::Marks(marks), phase: Phase::Source, last_key: None, page: None }
    }

    /// Rows of the queue that the scan is for.
    pub fn marks(&self) -> &[i64] {
        match &self.reason {
            Reason::Marks(marks) => marks,
            Reason::Task(_) => &[],
        }
    }

    /// Notes that the page in work is done, and reads the next one. Call it when every key of the page is done.
    ///
    /// The scan itself stays as it was, for the case of a rollback; the one returned takes its place after the commit.
    pub fn step(&self, client: &mut SpiClient<'_>, table: &VectorTable) -> Result<(Step, Self)> {
        let mut next = Self {
            reason: match &self.reason {
                Reason::Task(id) => Reason::Task(*id),
                Reason::Marks(marks) => Reason::Marks(marks.clone()),
            },
            phase: self.phase,
            last_key: self.last_key.clone(),
            page: None,
        };
        let mut rows = 0;
        if let Some((last, count)) = &self.page {
            next.last_key = Some(last.clone());
            rows = if self.phase == Phase::Source { *count } else { 0 };
        }
        loop {
            let (keys, last, count) = match next.phase {
                Phase::Source => source_page(client, table, next.last_key.as_deref())?,
                Phase::Orphans => orphan_page(client, table, next.last_key.as_deref())?,
            };
            let step = match (last, next.phase) {
                (Some(last), _) if keys.is_empty() => {
                    // A page without orphans is done; the next one is for the next transaction.
                    next.last_key = Some(last);
                    Step::Page(keys)
                }
                (Some(last), _) => {
                    next.page = Some((last, count));
                    Step::Page(keys)
                }
                (None, Phase::Source) => {
                    next.phase = Phase::Orphans;
                    next.last_key = None;
                    continue;
                }
                (None, Phase::Orphans) => Step::Done,
            };
            match &next.reason {
                Reason::Task(id) => {
                    let last_key = next.last_key.as_deref();
                    task::checkpoint(client, *id, next.phase, last_key, rows)?;
                    if matches!(step, Step::Done) {
                        task::complete(client, *id)?;
                        catalog::set_working_status(client, table.id)?;
                        catalog::set_synced_now(client, table.id)?;
                    }
                }
                Reason::Marks(marks) if matches!(step, Step::Done) => {
                    queue::remove(client, table.id, marks)?;
                }
                Reason::Marks(_) => {}
            }
            return Ok((step, next));
        }
    }
}

/// The next keys of the source, the last of them, and their number.
fn source_page(
    client: &SpiClient<'_>,
    table: &VectorTable,
    after: Option<&str>,
) -> Result<(Vec<String>, Option<String>, i64)> {
    let source = table.source_name()?;
    let key = quote_ident(&table.key);
    let key_type = &table.key_type;
    let condition =
        if after.is_some() { format!("where s.{key} > $1::{key_type}") } else { String::new() };
    let query =
        format!("select s.{key}::text from {source} s {condition} order by s.{key} limit {PAGE}");
    let _rights = Rights::of_owner(table.owner);
    let arguments: &[pgrx::datum::DatumWithOid<'_>] =
        &after.map(|a| vec![a.into()]).unwrap_or_default();
    let mut keys = Vec::new();
    for row in client.select(&query, None, arguments)? {
        keys.extend(row.get::<String>(1)?);
    }
    let last = keys.last().cloned();
    let count = keys.len() as i64;
    Ok((keys, last, count))
}

/// Of the next rows of the vector table those without a source row, the last of all looked at, and their number.
fn orphan_page(
    client: &SpiClient<'_>,
    table: &VectorTable,
    after: Option<&str>,
) -> Result<(Vec<String>, Option<String>, i64)> {
    let source = table.source_name()?;
    let relation = table.relation_name()?;
    let key = quote_ident(&table.key);
    let key_type = &table.key_type;
    let query = format!(
        "select v.pk_value, exists (
                select from {source} s
                 where s.{key} = v.pk_value::{key_type} and s.{key}::text collate \"default\" = v.pk_value)
           from (select pk_value from {relation} where pk_value > $1 or $1 is null
                  order by pk_value limit {PAGE}) v
          order by v.pk_value"
    );
    let _rights = Rights::of_owner(table.owner);
    let (mut keys, mut last, mut count) = (Vec::new(), None, 0);
    for row in client.select(&query, None, &[after.into()])? {
        let key = row.get::<String>(1)?;
        if row.get::<bool>(2)? == Some(false) {
            keys.extend(key.clone());
        }
        last = key.or(last);
        count += 1;
    }
    Ok((keys, last, count))
}
