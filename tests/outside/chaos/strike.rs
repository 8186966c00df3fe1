//! The faults of a chaos run: misbehaviour of the provider, frozen processes, kills, crashes.

use std::thread;
use std::time::{Duration, Instant};

use super::script::{Crash, Faults, Moment, Victim, Weather};
use super::writers::Writers;
use support::fake_provider::{FakeProvider, Respond, Rule};
use support::processes::{EMBEDDER, LAUNCHER, SYNC_WORKER, kill9};
use support::wait::{SHORT, until};
use support::{Cluster, Frozen, Shutdown};

/// The beginning of an index builder's title.
pub const INDEX_BUILDER: &str = "embedd index builder";

/// How long a kill waits for its moment; after that it comes at any moment.
const MOMENT: Duration = Duration::from_millis(1500);

/// Applies the provider's behaviour of a round, replacing the previous one.
pub fn weather(fake: &FakeProvider, weather: Weather, requests: u64) {
    clear(fake);
    let respond = match weather {
        Weather::Calm => return,
        Weather::Down => return fake.down(),
        Weather::Limited(None) => Respond::rate_limited(),
        Weather::Limited(Some(wait)) => Respond::rate_limited().retry_after_ms(wait),
        Weather::Status(status) => Respond::status(status),
        Weather::Hanging => Respond::never(),
        Weather::Slow(wait) => Respond::delay(Duration::from_millis(wait)),
        Weather::Closing => Respond::close(),
        Weather::Half => Respond::half(),
        Weather::Broken => Respond::broken_json(),
        Weather::OneLess => Respond::one_less(),
        Weather::WrongSize => Respond::dimensions(5),
    };
    fake.script(Rule::always().respond(respond).times(requests));
}

/// Ends all misbehaviour.
pub fn clear(fake: &FakeProvider) {
    fake.clear_script();
    fake.let_go();
    fake.up();
}

/// Waits for the moment of a kill.
pub fn await_moment(fake: &FakeProvider, moment: Moment) {
    let paid = fake.paid_total();
    let more = match moment {
        Moment::After(more) => more,
        Moment::Working(more) => {
            until(MOMENT, || fake.concurrent() > 0);
            more
        }
        Moment::Paid(more) => {
            until(MOMENT, || fake.paid_total() > paid);
            more
        }
    };
    // The time of a kill is part of the script; no assertion depends on it.
    thread::sleep(more);
}

/// Freezes a process for a while.
pub fn freeze(cluster: &Cluster, writers: &Writers, who: Victim, time: Duration) {
    if let Some((_, pid)) = find(cluster, writers, who) {
        let _frozen = Frozen::new(pid);
        thread::sleep(time);
    }
}

/// Kills the victim of a round, or the sync worker if there is none of its kind; returns what it was and when.
pub fn kill(cluster: &Cluster, writers: &Writers, faults: &Faults) -> Option<(Victim, Instant)> {
    let (who, pid) = find(cluster, writers, faults.victim)?;
    kill9(pid);
    Some((who, Instant::now()))
}

/// Crashes the whole server and restarts it.
pub fn crash(cluster: &Cluster, how: Crash) {
    match how {
        Crash::ImmediateStop => cluster.stop(Shutdown::Immediate),
        Crash::PowerCut => cluster.crash(),
    }
    cluster.start_again();
}

/// A process of this kind, or the sync worker.
fn find(cluster: &Cluster, writers: &Writers, who: Victim) -> Option<(Victim, i32)> {
    let title = match who {
        Victim::SyncWorker => SYNC_WORKER,
        Victim::Embedder => EMBEDDER,
        Victim::Launcher => LAUNCHER,
        Victim::IndexBuilder => INDEX_BUILDER,
        Victim::WritersBackend => "",
    };
    let mut pid = None;
    if who == Victim::WritersBackend {
        until(MOMENT, || {
            pid = writers.backend();
            pid.is_some()
        });
    } else if who == Victim::IndexBuilder {
        pid = cluster.pids(title).first().copied();
    } else {
        until(SHORT, || {
            pid = cluster.pids(title).first().copied();
            pid.is_some()
        });
    }
    // If a backend has just exited, its id may not belong to the cluster any more.
    let is_ours = |pid: &i32| cluster.processes().iter().any(|(known, _)| known == pid);
    match pid.filter(is_ours) {
        Some(pid) => Some((who, pid)),
        None if who == Victim::SyncWorker => None,
        None => find(cluster, writers, Victim::SyncWorker),
    }
}
