//! The golden ring: every file in tests/pg_regress/sql runs through psql, and its output must equal
//! tests/pg_regress/expected, word for word. PostgreSQL's pg_regress does it, against a cluster of this test's own.
//!
//!     make test-golden TEST="query filters"         only these files
//!     make test-golden EMBEDD_GOLDEN_ACCEPT=1       accepts the output as expected

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on says why")]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Cluster, binaries};

const DATABASE: &str = "contrib_regression";

#[test]
fn golden_sql() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("pg_regress");
    let cluster = Cluster::start();
    let names = without_what_the_server_lacks(&cluster, chosen(&home));
    cluster.create_database(DATABASE);
    let input = cluster.dir().join("golden");
    copy_input(&home, &input);

    let output = pg_regress(&cluster, &input, &names).output().expect("pg_regress can be run");
    println!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if std::env::var("EMBEDD_GOLDEN_ACCEPT").is_ok_and(|value| value == "1") {
        accept(&input, &home.join("expected"), &names);
    } else if !output.status.success() {
        println!("{}", fs::read_to_string(input.join("regression.diffs")).unwrap_or_default());
        panic!(
            "the answers differ from tests/pg_regress/expected (EMBEDD_GOLDEN_ACCEPT=1 accepts them)"
        );
    }
}

/// All files in alphabetical order, or those named by TEST.
fn chosen(home: &Path) -> Vec<String> {
    let mut all: Vec<String> =
        files_with(&home.join("sql"), "sql").iter().map(|path| stem(path)).collect();
    all.sort();
    let wanted = std::env::var("TEST").unwrap_or_default();
    let wanted: Vec<&str> = wanted.split([' ', ',']).filter(|name| !name.is_empty()).collect();
    if let Some(unknown) = wanted.iter().find(|name| !all.iter().any(|known| known == *name)) {
        panic!("there is no tests/pg_regress/sql/{unknown}.sql, but: {}", all.join(" "));
    }
    if !wanted.is_empty() {
        all.retain(|name| wanted.contains(&name.as_str()));
    }
    assert!(!all.is_empty(), "there are no files in tests/pg_regress/sql");
    all
}

/// The file that needs a server built with ICU and XML, which some test servers lack.
const NEEDS_ICU_AND_XML: &str = "icu_and_xml";

/// Leaves out, with a message, what the server does not support.
fn without_what_the_server_lacks(cluster: &Cluster, mut names: Vec<String>) -> Vec<String> {
    let mut client = cluster.connect("postgres");
    let mut takes = |sql: &str| client.batch_execute(sql).is_ok();
    let has_icu = takes("CREATE COLLATION pg_temp.no_case (provider = icu, locale = 'und')");
    let has_xml = takes("SELECT '<a/>'::xml");
    if !(has_icu && has_xml) && names.iter().any(|name| name == NEEDS_ICU_AND_XML) {
        println!("left out: {NEEDS_ICU_AND_XML} (ICU: {has_icu}, XML: {has_xml})");
        names.retain(|name| name != NEEDS_ICU_AND_XML);
    }
    names
}

/// Copies sql and expected, so that nothing is written into the checkout. A file without an expectation gets an empty
/// one, because pg_regress would stop at the first missing one instead of showing the output.
fn copy_input(home: &Path, input: &Path) {
    for kind in ["sql", "expected"] {
        fs::create_dir_all(input.join(kind)).expect("the copy's directory can be made");
    }
    for sql in files_with(&home.join("sql"), "sql") {
        copy_into(&sql, &input.join("sql"));
        let expected = input.join("expected").join(stem(&sql) + ".out");
        fs::write(expected, "").expect("an empty expectation can be written");
    }
    for out in files_with(&home.join("expected"), "out") {
        copy_into(&out, &input.join("expected"));
    }
}

fn pg_regress(cluster: &Cluster, input: &Path, names: &[String]) -> Command {
    let pgxs = binaries::pg_config_says("--pgxs");
    let makefiles = pgxs.parent().expect("pgxs.mk is in a directory");
    let mut command = Command::new(makefiles.join("../test/regress/pg_regress"));
    command
        .arg("--use-existing")
        .arg(format!("--bindir={}", binaries::pg_config_says("--bindir").display()))
        .arg(format!("--inputdir={}", input.display()))
        .arg(format!("--outputdir={}", input.display()))
        .arg(format!("--host={}", cluster.socket_dir().display()))
        .arg(format!("--port={}", cluster.port()))
        .arg(format!("--user={}", support::cluster::SUPERUSER))
        .arg(format!("--dbname={DATABASE}"))
        .args(names)
        .current_dir(input);
    command
}

/// Copies the output into the checkout.
fn accept(input: &Path, expected: &Path, names: &[String]) {
    fs::create_dir_all(expected).expect("tests/pg_regress/expected can be made");
    for name in names {
        copy_into(&input.join("results").join(format!("{name}.out")), expected);
    }
    println!("accepted: {}", names.join(" "));
}

fn copy_into(file: &Path, directory: &Path) {
    let target = directory.join(file.file_name().expect("a file has a name"));
    fs::copy(file, &target)
        .unwrap_or_else(|error| panic!("{} to {}: {error}", file.display(), target.display()));
}

/// The files of a directory with this extension; none where there is no such directory.
fn files_with(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.extension() == Some(OsStr::new(extension)))
        .collect()
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
