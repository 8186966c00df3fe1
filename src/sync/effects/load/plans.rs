//! Keeps the plans of the statements that look up keys, and plans again before an old plan can cost much.
//!
//! To plan over a thousand partitions takes longer than to read from one, so plans are kept. PostgreSQL plans a kept
//! statement again when its tables are analyzed or altered, but not because they have grown: a plan that reads the whole
//! of a small table would go on doing so while a million rows are loaded into it. So a plan is kept only for as long as
//! what it has cost is small against what planning again costs, in time.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use pgrx::prelude::*;
use pgrx::spi::{OwnedPreparedStatement, SpiClient};

use crate::error::Result;

/// Plans that the process keeps.
const KEPT_PLANS: usize = 256;

/// How many times the first run, which plans, all runs together may take before the statement is planned again.
/// PostgreSQL plans each of the first five runs, so this is at most 6 % of the time.
const RUNS_WORTH: u32 = 100;

/// What a kept plan has cost.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    /// The first run, with its planning.
    first: Duration,
    /// All runs.
    spent: Duration,
}

impl Cost {
    /// Adds a run. True if it is time to plan again.
    fn add(&mut self, took: Duration) -> bool {
        if self.spent.is_zero() {
            self.first = took;
        }
        self.spent += took;
        self.spent > self.first * RUNS_WORTH
    }
}

struct Kept {
    plan: Rc<OwnedPreparedStatement>,
    cost: Cost,
}

thread_local! {
    static PLANS: RefCell<HashMap<String, Kept>> = RefCell::default();
}

/// Runs a query whose only argument is an array of keys with a kept plan.
pub fn run<T>(
    client: &SpiClient<'_>,
    query: &str,
    work: impl FnOnce(&OwnedPreparedStatement) -> Result<T>,
) -> Result<T> {
    let plan = match PLANS.with_borrow(|plans| plans.get(query).map(|kept| kept.plan.clone())) {
        Some(plan) => plan,
        None => keep(client, query)?,
    };
    let begin = Instant::now();
    let outcome = work(&plan);
    PLANS.with_borrow_mut(|plans| {
        let is_spent = plans.get_mut(query).is_some_and(|kept| kept.cost.add(begin.elapsed()));
        if is_spent {
            plans.remove(query);
        }
    });
    outcome
}

fn keep(client: &SpiClient<'_>, query: &str) -> Result<Rc<OwnedPreparedStatement>> {
    let plan = Rc::new(client.prepare(query, &[PgBuiltInOids::TEXTARRAYOID.oid()])?.keep());
    PLANS.with_borrow_mut(|plans| {
        if plans.len() >= KEPT_PLANS {
            plans.clear();
        }
        plans.insert(query.to_string(), Kept { plan: plan.clone(), cost: Cost::default() });
    });
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_plan_that_stays_as_fast_is_kept_for_a_hundred_runs() {
        let mut cost = Cost::default();
        let kept = (0..1000).take_while(|_| !cost.add(MS)).count();
        assert_eq!(kept, 100);
    }

    #[test]
    fn a_plan_that_becomes_slow_is_dropped_by_what_it_costs() {
        let mut cost = Cost::default();
        assert!(!cost.add(MS), "the first run, with its planning");
        assert!(!cost.add(90 * MS));
        assert!(cost.add(10 * MS));
    }

    #[test]
    fn a_plan_that_costs_little_against_planning_is_kept_long() {
        let mut cost = Cost::default();
        assert!(!cost.add(160 * MS));
        assert!((0..1000).all(|_| !cost.add(MS)));
    }
}
