//! Goes over a whole vector table in pages: a backfill, a comparison, or what follows a TRUNCATE.

mod page;

use std::collections::VecDeque;

use pgrx::spi::SpiClient;

use self::page::Found;
use super::backlog::Backlog;
use super::load::{self, By};
use super::run;
use super::work::Mark;
use crate::catalog::{self, VectorTable};
use crate::error::Result;
use crate::index;
use crate::queue::{self, Sweep};
use crate::shared::Portion;
use crate::task::{self, Kind, Phase, Task};

/// Keys in one page.
const PAGE: i64 = 1000;
/// Pages that other workers have to do, beyond which no more are read.
const HANDED_PAGES: usize = 4;

/// Who asked for the scan.
#[derive(Clone, Debug)]
enum Reason {
    Task(Task),
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
    /// How many of them differ.
    different: i64,
    /// Rows of the queue through which other workers do their part, by portion and id.
    handed: Vec<(u16, i64)>,
}

/// A scan under way. Its keys go through the same backlog as changes.
#[derive(Clone, Debug)]
pub struct Scan {
    portion: Portion,
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
    /// Whether a batch run has compared source and vector table.
    has_compared: bool,
    /// A row of the last page that was tried could not be read: the next try does not look at the rows themselves.
    is_careful: bool,
}

/// What a step of a scan has brought.
pub enum Step {
    /// The keys of another page that are to be looked at, to be noted with [`Scan::add_page`].
    Page(NewPage),
    /// Nothing to read before pages are done, or before the indexes are built.
    Wait,
    /// The scan is over.
    Done,
    /// Its task has ended or was asked for anew since.
    Overtaken,
}

/// A page that was read.
pub struct NewPage {
    pub keys: Vec<String>,
    last: String,
    rows: i64,
    different: i64,
    handed: Vec<(u16, i64)>,
}

impl NewPage {
    /// Whether other workers have a part of it to do.
    pub fn is_shared(&self) -> bool {
        !self.handed.is_empty()
    }
}

impl Scan {
    /// Goes on with a task where it was.
    pub fn of_task(task: Task, portion: Portion) -> Self {
        Self {
            done_key: task.last_key.clone(),
            read_key: task.last_key.clone(),
            phase: task.phase,
            has_looked_at_indexes: task.last_key.is_some() || task.phase != Phase::Source,
            ..Self::new(Reason::Task(task), portion)
        }
    }

    /// A scan that stands for rows of the queue.
    pub fn of_marks(marks: &[Mark], portion: Portion) -> Self {
        // Where rows have only gone, nothing in the source can be new.
        let has_changed = marks.iter().any(|mark| mark.sweep == Sweep::Changed);
        let ids = marks.iter().map(|mark| mark.id).collect();
        let mut scan = Self {
            phase: if has_changed { Phase::Source } else { Phase::Orphans },
            ..Self::new(Reason::Marks(ids), portion)
        };
        marks.iter().for_each(|mark| scan.wait_for(mark.recheck));
        scan
    }

    fn new(reason: Reason, portion: Portion) -> Self {
        Self {
            portion,
            reason,
            phase: Phase::Source,
            done_key: None,
            read_key: None,
            pages: VecDeque::new(),
            is_read: false,
            has_looked_at_indexes: true,
            has_compared: false,
            is_careful: false,
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

    /// Whether it can make way and be taken up again where it was.
    pub fn can_make_way(&self) -> bool {
        matches!(self.reason, Reason::Task(_)) && self.phase != Phase::Index
    }

    /// Rows of the queue that the scan is for.
    pub fn marks(&self) -> &[i64] {
        match &self.reason {
            Reason::Marks(marks) => marks,
            Reason::Task(..) => &[],
        }
    }

    /// Whether a step looks at the source: all but those of a batch run that has compared.
    pub fn reads_source(&self, table: &VectorTable) -> bool {
        !table.reads_run || !self.has_compared
    }

    /// Has the scan wait for keys that are looked at besides its own.
    pub fn wait_for(&mut self, number: u64) {
        let page = Page { number, last: None, rows: 0, different: 0, handed: Vec::new() };
        self.pages.push_back(page);
    }

    /// Notes that a page which a step has brought is in work under this number.
    pub fn add_page(&mut self, number: u64, page: NewPage) {
        let NewPage { last, rows, different, handed, .. } = page;
        self.is_careful = false;
        self.read_key = Some(last.clone());
        self.pages.push_back(Page { number, last: Some(last), rows, different, handed });
    }

    /// Whether a step has brought it on; where only other workers' parts are missing, none does.
    pub fn is_newer_than(&self, before: &Self) -> bool {
        self.pages.len() != before.pages.len()
            || self.phase != before.phase
            || self.has_compared != before.has_compared
    }

    /// Whether it goes over a task and has got past something for good.
    pub fn has_passed(&self, before: &Self) -> bool {
        matches!(self.reason, Reason::Task(_))
            && (self.done_key != before.done_key || self.phase != before.phase)
    }

    /// A row of the page could not be read; false when that was known already.
    pub fn take_care(&mut self) -> bool {
        !std::mem::replace(&mut self.is_careful, true)
    }

    /// Whether a step would bring the scan on: its first page is done, or there is room for another one.
    pub fn can_step(&self, backlog: &Backlog) -> bool {
        match self.pages.front() {
            _ if self.waits_for_indexes() => false,
            None => true,
            Some(page) if backlog.is_page_done(page.number) => true,
            Some(_) => !self.is_read && self.has_room(backlog),
        }
    }

    fn has_room(&self, backlog: &Backlog) -> bool {
        let handed = self.pages.iter().filter(|page| !page.handed.is_empty()).count();
        backlog.paged_len() < PAGE as usize / 2 && handed < HANDED_PAGES
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
        if let Reason::Task(task) = &self.reason
            && !task::is_current(client, task.id, task.attempt)?
        {
            return Ok((Step::Overtaken, next));
        }
        let (mut rows, mut different) = (0, 0);
        while let Some(page) = next.pages.front_mut().filter(|p| backlog.is_page_done(p.number)) {
            if !page.handed.is_empty() {
                let count = self.portion.count;
                page.handed = queue::still_there(client, table.id, count, &page.handed)?;
                if !page.handed.is_empty() {
                    break;
                }
            }
            rows += page.rows;
            different += page.different;
            let last = page.last.take();
            next.done_key = last.or(next.done_key);
            next.pages.pop_front();
        }
        let step = next.read(client, table, backlog)?;
        match &next.reason {
            Reason::Task(task) => {
                let done_key = next.done_key.as_deref();
                task::checkpoint(client, task.id, next.phase, done_key, rows, different)?;
                if matches!(step, Step::Done) {
                    if task.kind == Kind::Rebackfill {
                        catalog::forget_earlier_failed(client, table.id, task.id)?;
                    }
                    task::complete(client, task.id)?;
                    catalog::set_working_status(client, table.id)?;
                }
            }
            Reason::Marks(marks) if matches!(step, Step::Done) => {
                queue::remove(client, self.portion, table.id, marks)?;
            }
            Reason::Marks(_) => {}
        }
        Ok((step, next))
    }

    /// Reads the next page; goes over to the next phase when all of this one is done.
    fn read(
        &mut self,
        client: &mut SpiClient<'_>,
        table: &VectorTable,
        backlog: &Backlog,
    ) -> Result<Step> {
        loop {
            if table.reads_run && !self.has_compared {
                return self.compare(client, table);
            }
            if !self.is_read {
                if !self.pages.is_empty() && !self.has_room(backlog) {
                    return Ok(Step::Wait);
                }
                if self.phase == Phase::Index {
                    return Ok(Step::Wait);
                }
                let found = self.find(client, table)?;
                if let Some(last) = found.last.clone() {
                    return Ok(self.hand_out(table, found, last));
                }
                self.is_read = true;
            }
            if !self.pages.is_empty() {
                return Ok(Step::Wait);
            }
            match self.phase {
                // A batch run knows of both.
                Phase::Source if !table.reads_run => self.go_on_with(Phase::Orphans),
                Phase::Source | Phase::Orphans
                    if matches!(self.reason, Reason::Task(..))
                        && index::is_held(client, table.id)? =>
                {
                    self.go_on_with(Phase::Index);
                    return Ok(Step::Wait);
                }
                Phase::Orphans if !table.reads_run => {
                    page::forget_gone(client, table, self.by())?;
                    return Ok(Step::Done);
                }
                _ => return Ok(Step::Done),
            }
        }
    }

    fn kind(&self) -> Option<Kind> {
        match &self.reason {
            Reason::Task(task) => Some(task.kind),
            Reason::Marks(_) => None,
        }
    }

    fn by(&self) -> By {
        if self.is_careful { By::Text } else { By::Key }
    }

    fn go_on_with(&mut self, phase: Phase) {
        *self = Self {
            phase,
            has_compared: self.has_compared,
            is_careful: self.is_careful,
            ..Self::new(self.reason.clone(), self.portion)
        };
    }

    /// Begins a batch run.
    fn compare(&mut self, client: &mut SpiClient<'_>, table: &VectorTable) -> Result<Step> {
        let takes_failed = self.kind() != Some(Kind::Reconcile);
        let total = run::compare(client, table, takes_failed)?;
        if let Reason::Task(task) = &self.reason {
            task::begin_count(client, task.id, total)?;
        }
        self.read_key = None;
        self.done_key = None;
        self.has_compared = true;
        Ok(Step::Wait)
    }

    /// The next page of this phase: which of its keys are to be looked at.
    fn find(&self, client: &mut SpiClient<'_>, table: &VectorTable) -> Result<Found> {
        let after = self.read_key.as_deref();
        if table.reads_run {
            return page::of_run(client, after);
        }
        if self.phase == Phase::Orphans {
            return page::of_orphans(client, table, after, self.by());
        }
        let mut found = page::of_source(client, table, after)?;
        // What a first load finds is new, unless it was interrupted: then others may have done their part of it.
        let is_first_load = self.kind() == Some(Kind::Backfill)
            && matches!(&self.reason, Reason::Task(task) if task.attempt <= 1);
        if is_first_load || self.is_careful {
            return Ok(found);
        }
        let failed = catalog::failed_keys(client, table.id, Some(&found.keys))?;
        found.keys.retain(|key| !failed.contains(key));
        found.keys = load::different(client, table, &found.keys)?;
        if let Reason::Task(task) = &self.reason
            && task.kind == Kind::Rebackfill
        {
            // They are tried again whatever is stored of them, once.
            found.keys.extend(catalog::earlier_failed_keys(client, table.id, task.id, &failed)?);
        }
        Ok(found)
    }

    /// Gives other workers their part of a page.
    fn hand_out(&self, table: &VectorTable, found: Found, last: String) -> Step {
        let Found { keys, rows, .. } = found;
        let different = keys.len() as i64;
        let count = self.portion.count;
        let (mine, others): (Vec<String>, Vec<String>) = keys
            .into_iter()
            .partition(|key| queue::portion_of(key.as_bytes(), count) == self.portion.index);
        let handed = match self.reason {
            Reason::Task(..) => {
                let others: Vec<&[u8]> = others.iter().map(|key| key.as_bytes()).collect();
                queue::write_paged(table.id, count, &others)
            }
            // Each worker has a mark of its own.
            Reason::Marks(_) => Vec::new(),
        };
        Step::Page(NewPage { keys: mine, last, rows, different, handed })
    }
}
