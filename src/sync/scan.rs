//! Goes over a whole vector table in pages: a backfill, or what follows a TRUNCATE.

use std::collections::VecDeque;

use pgrx::spi::SpiClient;

use super::backlog::Backlog;
use crate::catalog::{self, VectorTable};
use crate::error::Result;
use crate::index;
use crate::name::quote_ident;
use crate::queue;
use crate::server::Rights;
use crate::task::{self, Phase, Task};

/// Keys in one page.
const PAGE: i64 = 1000;

/// Who asked for the scan.
#[derive(Clone, Debug)]
enum Reason {
    Task(i64),
    /// Rows of the queue that stand for a change of any number of rows.
    Marks(Vec<i64>),
}

/// A page that is in work.
#[derive(Clone, Debug)]
struct Page {
    /// Its number in the backlog.
    number: u64,
    /// The last key of it; none for keys that are looked at besides.
    last: Option<String>,
    /// Rows of the source that were looked at for it.
    rows: i64,
}

/// A scan under way. Its keys go through the same backlog as changes.
#[derive(Clone, Debug)]
pub struct Scan {
    reason: Reason,
    phase: Phase,
    /// Every key up to this one is done in this phase.
    done_key: Option<String>,
    /// Every key up to this one is read in this phase.
    read_key: Option<String>,
    /// Pages read and not done, in their order.
    pages: VecDeque<Page>,
    /// Whether all of this phase is read.
    is_read: bool,
    /// Whether it is known if the load is great enough to do without the indexes meanwhile.
    has_looked_at_indexes: bool,
}

/// What a step of a scan has brought.
pub enum Step {
    /// The keys of another page, and how its number is to be noted: [`Scan::add_page`].
    Page { keys: Vec<String>, last: String, rows: i64 },
    /// Nothing to read before pages are done, or before the indexes are built.
    Wait,
    /// The scan is over.
    Done,
}

impl Scan {
    /// Begins a task, or takes it up again where it was.
    pub fn of_task(client: &mut SpiClient<'_>, task: &Task) -> Result<Self> {
        task::begin(client, task.id)?;
        Ok(Self {
            done_key: task.last_key.clone(),
            read_key: task.last_key.clone(),
            phase: task.phase,
            has_looked_at_indexes: task.last_key.is_some() || task.phase != Phase::Source,
            ..Self::new(Reason::Task(task.id))
        })
    }

    /// A scan that stands for these rows of the queue.
    pub fn of_marks(marks: Vec<i64>) -> Self {
        Self::new(Reason::Marks(marks))
    }

    fn new(reason: Reason) -> Self {
        Self {
            reason,
            phase: Phase::Source,
            done_key: None,
            read_key: None,
            pages: VecDeque::new(),
            is_read: false,
            has_looked_at_indexes: true,
        }
    }

    /// Whether it is only now decided if the indexes are in the way; asked once.
    pub fn shall_look_at_indexes(&mut self) -> bool {
        !std::mem::replace(&mut self.has_looked_at_indexes, true)
    }

    /// Whether all rows are done, and the indexes are to be built.
    pub fn waits_for_indexes(&self) -> bool {
        self.phase == Phase::Index
    }

    /// Rows of the queue that the scan is for.
    pub fn marks(&self) -> &[i64] {
        match &self.reason {
            Reason::Marks(marks) => marks,
            Reason::Task(_) => &[],
        }
    }

    /// Has the scan wait for keys that are looked at besides its own.
    pub fn wait_for(&mut self, number: u64) {
        self.pages.push_back(Page { number, last: None, rows: 0 });
    }

    /// Notes that a page which a step has brought is in work under this number.
    pub fn add_page(&mut self, number: u64, last: String, rows: i64) {
        self.read_key = Some(last.clone());
        self.pages.push_back(Page { number, last: Some(last), rows });
    }

    /// Whether a step would bring the scan on: its first page is done, or there is room for another one.
    pub fn can_step(&self, backlog: &Backlog) -> bool {
        match self.pages.front() {
            _ if self.waits_for_indexes() => false,
            None => true,
            Some(page) if backlog.is_page_done(page.number) => true,
            Some(_) => !self.is_read && backlog.paged_len() < PAGE as usize / 2,
        }
    }

    /// Notes which pages are done, and reads another one where there is room.
    ///
    /// The scan itself stays as it was, for the case of a rollback; the one returned takes its place after the commit.
    pub fn step(
        &self,
        client: &mut SpiClient<'_>,
        table: &VectorTable,
        backlog: &Backlog,
    ) -> Result<(Step, Self)> {
        let mut next = self.clone();
        let mut rows = 0;
        while let Some(page) = next.pages.pop_front_if(|page| backlog.is_page_done(page.number)) {
            next.done_key = page.last.or(next.done_key);
            rows += page.rows;
        }
        let step = next.read(client, table, backlog)?;
        match &next.reason {
            Reason::Task(id) => {
                let done_key = next.done_key.as_deref();
                task::checkpoint(client, *id, next.phase, done_key, rows)?;
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
        Ok((step, next))
    }

    /// Reads the next page; goes over to the next phase when all of this one is done.
    fn read(
        &mut self,
        client: &SpiClient<'_>,
        table: &VectorTable,
        backlog: &Backlog,
    ) -> Result<Step> {
        loop {
            if !self.is_read {
                if !self.pages.is_empty() && backlog.paged_len() >= PAGE as usize / 2 {
                    return Ok(Step::Wait);
                }
                let after = self.read_key.as_deref();
                let (keys, last, rows) = match self.phase {
                    Phase::Source => source_page(client, table, after)?,
                    Phase::Orphans => orphan_page(client, table, after)?,
                    Phase::Index => return Ok(Step::Wait),
                };
                if let Some(last) = last {
                    return Ok(Step::Page { keys, last, rows });
                }
                self.is_read = true;
            }
            if !self.pages.is_empty() {
                return Ok(Step::Wait);
            }
            match self.phase {
                Phase::Source => {
                    let reason = self.reason.clone();
                    *self = Self { phase: Phase::Orphans, ..Self::new(reason) };
                }
                Phase::Orphans
                    if matches!(self.reason, Reason::Task(_))
                        && index::is_held(client, table.id)? =>
                {
                    let reason = self.reason.clone();
                    *self = Self { phase: Phase::Index, ..Self::new(reason) };
                    return Ok(Step::Wait);
                }
                Phase::Orphans | Phase::Index => return Ok(Step::Done),
            }
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

/// Of the next rows of the vector table those without a source row, the last of all looked at, and no rows of the source.
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
    let (mut keys, mut last) = (Vec::new(), None);
    for row in client.select(&query, None, &[after.into()])? {
        let key = row.get::<String>(1)?;
        if row.get::<bool>(2)? == Some(false) {
            keys.extend(key.clone());
        }
        last = key.or(last);
    }
    // Rows of the source are counted once, in the other phase.
    Ok((keys, last, 0))
}
