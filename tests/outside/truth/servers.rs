//! A copy of a whole server continues where the original was: base backup, point in time, pg_upgrade.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::binaries::{bin_dir, output_of, owner_runs};
use support::fake_provider::{Dialect, FakeProvider};
use support::{Cluster, LONG, SUPERUSER, Shutdown};

use super::{goes_on, paid, wait_status};

#[test]
fn a_base_backup() {
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(384).start();
    let cluster = Cluster::start();
    drop(paid(&cluster, "t", &fake));
    let copy = cluster.base_backup(&[]);
    copy.start_again();
    goes_on(&copy, "t", &fake);
    goes_on(&cluster, "t", &fake);
}

#[test]
fn a_point_in_time() {
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(384).start();
    let cluster =
        Cluster::builder().set("archive_mode", "on").set("archive_command", "false").start();
    let archive = cluster.dir().join("archive");
    fs::create_dir(&archive).unwrap();
    cluster.give_to_owner(&archive);
    let command = format!("cp %p {}/%f", archive.display());
    cluster.configure(&[("archive_command", command.as_str())]);
    cluster.reload();
    let mut client = paid(&cluster, "t", &fake);
    let copy = cluster.base_backup(&[]);
    client.batch_execute("UPDATE items SET body = 'before' WHERE id = 2").unwrap();
    wait_status(&cluster, "t", "items", "sync_status = 'synced' AND rows_pending = 0");
    client.batch_execute("SELECT pg_create_restore_point('here')").unwrap();
    client.batch_execute("SELECT embedd.drop_vector_table('items'); DROP TABLE items").unwrap();
    let segment: String =
        client.query_one("SELECT pg_walfile_name(pg_switch_wal())", &[]).unwrap().get(0);
    let archived = format!("SELECT last_archived_wal >= '{segment}' FROM pg_stat_archiver");
    cluster.wait_for("t", LONG, "the log to be archived", &archived);
    let restore = format!("cp {}/%f %p", archive.display());
    copy.configure(&[
        ("archive_mode", "off"),
        ("restore_command", restore.as_str()),
        ("recovery_target_name", "here"),
        ("recovery_target_action", "promote"),
    ]);
    let signal = copy.data().join("recovery.signal");
    fs::write(&signal, "").unwrap();
    copy.give_to_owner(&signal);
    copy.start_again();
    copy.wait_for("t", LONG, "the end of recovery", "SELECT NOT pg_is_in_recovery()");
    goes_on(&copy, "t", &fake);
}

/// The programs of an older server with the same version of embedd next to the one under test, otherwise those of the
/// server under test. Only servers from the same builder: another one's may have columns that no other server accepts.
fn old_server() -> PathBuf {
    let ours = bin_dir();
    // Of one version there may be several builds; what CREATE EXTENSION runs tells them apart.
    let script = |bin: &Path| {
        let mut command = Command::new(bin.join("pg_config"));
        let share = command.arg("--sharedir").output().ok()?.stdout;
        let share = PathBuf::from(String::from_utf8(share).ok()?.trim());
        let control = fs::read_to_string(share.join("extension/embedd.control")).ok()?;
        let line = control.lines().find(|line| line.starts_with("default_version"))?;
        let version = line.split('\'').nth(1)?;
        fs::read_to_string(share.join(format!("extension/embedd--{version}.sql"))).ok()
    };
    let servers = ours.parent().and_then(Path::parent).unwrap_or(&ours);
    let same = script(&ours);
    (15..18)
        .map(|major| servers.join(major.to_string()).join("bin"))
        .take_while(|bin| *bin != ours)
        .find(|bin| bin.join("initdb").exists() && script(bin) == same)
        .unwrap_or(ours.clone())
}

#[test]
fn an_upgrade_by_pg_upgrade() {
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(384).start();
    let old_server = old_server();
    eprintln!("from {} to {}", old_server.display(), bin_dir().display());
    let old = Cluster::builder().server(&old_server).initdb("--data-checksums").start();
    let mut client = paid(&old, "t", &fake);
    // A task that waits for the new server.
    client.batch_execute("SELECT embedd.pause_sync('items')").unwrap();
    client.batch_execute("UPDATE items SET body = 'text 3' WHERE id = 2").unwrap();
    drop(client);
    old.stop(Shutdown::Fast);
    let new = Cluster::builder().initdb("--data-checksums").start();
    new.stop(Shutdown::Fast);
    let mut upgrade = owner_runs(&bin_dir().join("pg_upgrade"));
    upgrade.arg("-b").arg(&old_server).arg("-B").arg(bin_dir());
    upgrade.arg("-d").arg(old.data()).arg("-D").arg(new.data()).arg("-s").arg(new.socket_dir());
    upgrade.args(["-U", SUPERUSER, "-p", &old.port().to_string(), "-P", &new.port().to_string()]);
    upgrade.current_dir(new.dir());
    output_of(upgrade);
    new.start_again();
    let before = fake.paid_total();
    new.connect("t").batch_execute("SELECT embedd.resume_sync('items')").unwrap();
    wait_status(&new, "t", "items", "sync_status = 'synced' AND rows_pending = 0");
    assert_eq!(fake.paid_total() - before, 1, "what has changed is embedded");
    goes_on(&new, "t", &fake);
    let roles = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'embedd sync worker'";
    new.wait_for("postgres", LONG, "one worker", &format!("SELECT ({roles}) = 1"));
}
