//! Faults are injected one by one: doctor() reports each with a remedy, and after the remedy nothing is wrong.

mod bookkeeping;
mod indexes;
mod providers;
mod roles;
mod server;
mod sources;
mod sync;

use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;

use postgres::Client;
use support::source::synced_texts;
use support::{Cluster, LONG, Shared};

/// The cluster of most of these tests.
static SHARED: Shared = Shared::new();

/// A row of doctor().
#[derive(Clone, Debug)]
struct Told {
    check: String,
    state: String,
    object: String,
    meaning: String,
    remedy: Option<String>,
}

impl Told {
    /// The remedy, which must exist.
    fn remedy(&self) -> &str {
        self.remedy.as_deref().unwrap_or_else(|| panic!("there is no remedy: {self:?}"))
    }
}

/// Every row of doctor().
fn doctor(client: &mut Client) -> Vec<Told> {
    told_by(client, "embedd.doctor()")
}

/// Every row of a call of doctor().
fn told_by(client: &mut Client, call: &str) -> Vec<Told> {
    let sql = format!("SELECT \"check\", state, coalesce(object, ''), meaning, remedy FROM {call}");
    let rows = client.query(&sql, &[]).expect("doctor() never fails");
    rows.iter()
        .map(|row| Told {
            check: row.get(0),
            state: row.get(1),
            object: row.get(2),
            meaning: row.get(3),
            remedy: row.get(4),
        })
        .collect()
}

/// The problems and warnings; known bugs of the server's pgvector are left out.
fn faults(client: &mut Client) -> Vec<Told> {
    let mut told = doctor(client);
    let old = "SELECT string_to_array(default_version, '.')::int[] < '{0,8,4}' FROM pg_available_extensions WHERE name = 'vector'";
    let is_old: bool = client.query_one(old, &[]).unwrap().get(0);
    told.retain(|row| row.state != "ok" && !(is_old && row.check == "pgvector"));
    told
}

/// Waits until nothing is wrong.
fn wait_healthy(cluster: &Cluster, client: &mut Client) {
    let mut last = Vec::new();
    let limit = LONG;
    if support::wait::until(limit, || {
        last = faults(client);
        last.is_empty()
    })
    .is_none()
    {
        panic!("waited {limit:?} for health: {last:#?}\n{}", cluster.log_tail(40));
    }
}

/// Waits until a fault is reported, and returns the row.
fn wait_told(
    cluster: &Cluster,
    client: &mut Client,
    check: &str,
    state: &str,
    object: &str,
) -> Told {
    let (mut found, mut all) = (None, Vec::new());
    support::wait::until(LONG, || {
        all = faults(client);
        found = all
            .iter()
            .find(|row| row.check == check && row.state == state && row.object == object)
            .cloned();
        found.is_some()
    });
    found.unwrap_or_else(|| {
        panic!("{check} of \"{object}\" is no {state}: {all:#?}\n{}", cluster.log_tail(40))
    })
}

/// Pastes a text into psql, which must succeed.
fn paste(cluster: &Cluster, db: &str, text: &str) {
    let mut psql = cluster.psql_command(db);
    psql.args(["-v", "ON_ERROR_STOP=1", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut running = psql.spawn().expect("psql can be run");
    let mut input = running.stdin.take().expect("it has an input");
    input.write_all(text.as_bytes()).expect("psql reads");
    drop(input);
    assert!(running.wait().expect("psql ends").success(), "psql refuses: {text}");
}

/// A database with a vector table `t` of 30 rows, in which nothing is wrong until a fault is injected.
struct Patient {
    cluster: Arc<Cluster>,
    db: &'static str,
    client: Client,
}

impl Patient {
    fn new(db: &'static str) -> Self {
        Self::with_rows(db, 30)
    }

    fn with_rows(db: &'static str, rows: i64) -> Self {
        let cluster = SHARED.cluster();
        let mut client = cluster.database(db);
        synced_texts(&cluster, db, &mut client, "t", rows);
        let mut patient = Self { cluster, db, client };
        let wrong = faults(&mut patient.client);
        assert!(wrong.is_empty(), "just made, and this is wrong: {wrong:#?}");
        patient
    }

    fn run(&mut self, sql: &str) {
        self.client.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// The one text that a query returns.
    fn text(&mut self, sql: &str) -> String {
        self.client.query_one(sql, &[]).expect("the query runs").get(0)
    }

    /// The table with the vectors of `t`.
    fn vectors(&mut self) -> String {
        support::source::relation(&mut self.client, "t")
    }

    fn told(&mut self, check: &str, state: &str, object: &str) -> Told {
        wait_told(&self.cluster, &mut self.client, check, state, object)
    }

    /// The fault is reported, and after the remedy nothing is wrong.
    fn cured(&mut self, check: &str, state: &str, object: &str) -> Told {
        let told = self.told(check, state, object);
        paste(&self.cluster, self.db, told.remedy());
        self.is_healthy();
        told
    }

    fn is_healthy(&mut self) {
        wait_healthy(&self.cluster, &mut self.client);
    }
}
