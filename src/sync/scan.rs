//! Goes over a whole vector table in pages: a backfill, a comparison, or what follows a TRUNCATE.

mod page;
mod step;

use std::collections::VecDeque;

use pgrx::spi::SpiClient;

use self::page::Found;
pub use self::step::{NewPage, Step};
use super::backlog::Backlog;
use super::load::By;
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
    Marks(Vec<Mark>),
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
    ///
    /// What has gone goes first, as that waits for nobody. Where rows have only gone, nothing in the source can be new.
    pub fn of_marks(marks: Vec<Mark>, portion: Portion) -> Self {
        let pages: Vec<u64> = marks.iter().map(|mark| mark.recheck).collect();
        let mut scan = Self {
            phase: Phase::Orphans,
            is_read: marks.iter().all(|mark| mark.sweep == Sweep::Recheck),
            ..Self::new(Reason::Marks(marks), portion)
        };
        pages.into_iter().for_each(|page| scan.wait_for(page));
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

    /// Whether it can make way: a task is taken up again where it was, and marks that only wait for what is in work can
    /// wait for it together with others.
    pub fn can_make_way(&self) -> bool {
        match self.reason {
            Reason::Task(_) => self.phase != Phase::Index,
            Reason::Marks(_) => self.phase == Phase::Source || self.is_read,
        }
    }

    /// Rows of the queue that the scan is for.
    pub fn marks(&self) -> &[Mark] {
        match &self.reason {
            Reason::Marks(marks) => marks,
            Reason::Task(_) => &[],
        }
    }

    /// The same, when nothing else is done with it.
    pub fn into_marks(self) -> Vec<Mark> {
        match self.reason {
            Reason::Marks(marks) => marks,
            Reason::Task(_) => Vec::new(),
        }
    }

    /// Whether it stands for rows of the queue and not for a task.
    pub fn is_of_marks(&self) -> bool {
        matches!(self.reason, Reason::Marks(_))
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

    /// Whether it goes over the source itself.
    pub fn reads_rows(&self) -> bool {
        self.phase == Phase::Source
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
        let mut waiting = backlog.paged_len();
        if self.phase == Phase::Orphans {
            // To remove rows nobody waits for the provider.
            waiting -= backlog.parked_paged_len();
        }
        waiting < PAGE as usize / 2 && handed < HANDED_PAGES
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
        // What takes long keeps nobody from asking for another one.
        let takes_long = table.reads_run || self.is_careful;
        if !takes_long && self.is_overtaken(client)? {
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
        if takes_long && self.is_overtaken(client)? {
            return Ok((Step::Overtaken, next));
        }
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
                let ids: Vec<i64> = marks.iter().map(|mark| mark.id).collect();
                queue::remove(client, self.portion, table.id, &ids)?;
            }
            Reason::Marks(_) => {}
        }
        Ok((step, next))
    }

    /// Whether its task has ended or was asked for anew since; if not, it stays so until the transaction ends.
    pub fn is_overtaken(&self, client: &mut SpiClient<'_>) -> Result<bool> {
        match &self.reason {
            Reason::Task(task) => Ok(!task::is_current(client, task.id, task.attempt)?),
            Reason::Marks(_) => Ok(false),
        }
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
                Phase::Source if self.is_of_marks() => return Ok(Step::Done),
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
                    if !self.marks().iter().any(|mark| mark.sweep == Sweep::Changed) {
                        return Ok(Step::Done);
                    }
                    self.go_on_with(Phase::Source);
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

    /// How rows are found in the next step.
    pub fn by(&self) -> By {
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
        let task = match &self.reason {
            Reason::Task(task) => Some(task),
            Reason::Marks(_) => None,
        };
        page::of_source(client, table, after, task, self.is_careful)
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
        let has_gone = self.phase == Phase::Orphans;
        Step::Page(NewPage { keys: mine, last, rows, different, handed, has_gone })
    }
}
