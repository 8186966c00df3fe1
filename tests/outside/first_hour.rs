//! The first steps of a new user in README and docs/roles.md, copied word for word, as an ordinary role.

use std::io::Write;
use std::process::{Command, Stdio};

use support::{Cluster, pages};

/// The SQL under a heading of a page, as a reader copies it: its blocks one after the other.
fn code(page: &str, heading: &str) -> String {
    let blocks = pages::blocks(pages::section(page, heading));
    let code: Vec<String> =
        blocks.into_iter().filter(|b| b.language() == "sql").map(|b| b.text).collect();
    assert!(!code.is_empty(), "there is no SQL under {heading}");
    code.join("\n")
}

/// Pastes statements into psql as a role; what it prints, without notices.
fn paste(cluster: &Cluster, role: &str, sql: &str) -> String {
    let mut psql: Command = cluster.psql_command("shop");
    psql.args(["-U", role, "-v", "ON_ERROR_STOP=1"]);
    let mut running =
        psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    running.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
    let output = running.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{role}: {errors}\n{sql}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_readme_and_the_page_on_roles_can_be_pasted() {
    let cluster = Cluster::start();
    cluster.create_database("shop");
    let roles = pages::read("docs/roles.md");
    paste(&cluster, "postgres", &code(&roles, "Once in each database, as a superuser"));
    paste(&cluster, "postgres", "CREATE ROLE reader LOGIN");

    let example = code(&pages::read("README.md"), "First use");
    let printed = paste(&cluster, "app", &example);
    let names: Vec<&str> = printed.lines().filter_map(|line| line.split('|').nth(2)).collect();
    assert_eq!(names.len(), 7, "one vector table and three rows twice: {printed}");
    let (before, after) = (&names[1..4], &names[4..]);
    assert!(!before.contains(&"Wool hat") && !before.contains(&"Down sleeping bag"), "{printed}");
    assert!(!after.contains(&"Down sleeping bag"), "{printed}");

    let printed = paste(&cluster, "app", &code(&roles, "As the application's role"));
    assert!(printed.lines().any(|line| line.starts_with("1|")), "{printed}");
    paste(&cluster, "app", &code(&roles, "For a role that only asks"));
    let answers = paste(&cluster, "reader", "SELECT id FROM embedd.query('articles', 'moving')");
    assert_eq!(answers.trim(), "1");
    let mut refused = cluster.connect_as("shop", "reader");
    let error = refused.batch_execute("SELECT embedd.pause_sync('articles')").unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42501");
}

#[test]
fn the_extension_in_template1_is_in_new_databases() {
    let cluster = Cluster::start();
    cluster.psql("template1", "SET client_min_messages = error; CREATE EXTENSION embedd CASCADE");
    cluster.psql("postgres", "CREATE ROLE app LOGIN CREATEDB");
    let mut app = cluster.connect_as("postgres", "app");
    app.batch_execute("CREATE DATABASE test_1").unwrap();
    let mut app = cluster.connect_as("test_1", "app");
    app.batch_execute("CREATE EXTENSION IF NOT EXISTS embedd CASCADE").unwrap();
    app.batch_execute(
        "CREATE SCHEMA mine; CREATE TABLE mine.t (id int PRIMARY KEY, body text); INSERT INTO mine.t VALUES (1, 'one');",
    )
    .unwrap();
    app.batch_execute(
        "SELECT embedd.create_vector_table('t', 'mine.t', '[{\"name\": \"body\", \"role\": \"embedding\"}]', start_backfill => true)",
    )
    .unwrap();
    app.batch_execute("SELECT embedd.wait_until_synced('t')").unwrap();
    // A role without the privilege for CREATE EXTENSION gets an error.
    cluster.psql("postgres", "CREATE DATABASE bare TEMPLATE template0 OWNER app");
    let mut bare = cluster.connect_as("bare", "app");
    let error = bare.batch_execute("CREATE EXTENSION IF NOT EXISTS embedd CASCADE").unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42501");
}
