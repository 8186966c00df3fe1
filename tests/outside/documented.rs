//! Every SQL block of README and docs runs: those of one page in their order, in a cluster of the page's own.
//!
//! A fence says ```` ```sql ````, with ` role=app` for the role that runs the block, or ` ignore: reason` where no test can. What a
//! page needs and does not show is in tests/data/docs, in a file of the page's name.

use std::io::Write;
use std::process::Stdio;

use support::Cluster;
use support::pages::{self, Block};

/// The database in which the blocks of a page run.
const DATABASE: &str = "documented";

/// One test for each page, and the list of them.
macro_rules! pages {
    ($($name:ident $page:literal)*) => {
        $(#[test]
        fn $name() {
            run($page);
        })*

        const PAGES: &[&str] = &[$($page),*];
    };
}

pages! {
    readme "README.md"
    operations "docs/operations.md"
    reference "docs/reference.md"
    roles "docs/roles.md"
    applications "docs/guides/applications.md"
    batch_sources "docs/guides/batch-sources.md"
    filters "docs/guides/filters.md"
    keys_and_costs "docs/guides/keys-and-costs.md"
    moving "docs/guides/moving.md"
    changing "docs/guides/changing.md"
    providers "docs/guides/providers.md"
    questions "docs/guides/questions.md"
    sizing "docs/guides/sizing.md"
    testing "docs/guides/testing.md"
}

/// The SQL blocks of a text that a test can run.
fn runnable(text: &str) -> Vec<Block> {
    let mut blocks = pages::blocks(text);
    blocks.retain(|block| block.language() == "sql" && block.ignored().is_none());
    blocks
}

/// Runs the blocks of a page in a new cluster, after what the page needs.
fn run(page: &str) {
    let cluster = Cluster::start();
    cluster.create_database(DATABASE);
    let name = page.trim_start_matches("docs/").replace('/', "-").replace(".md", ".sql");
    let setup = format!("tests/data/docs/{name}");
    if pages::path(&setup).exists() {
        psql(&cluster, "postgres", &pages::read(&setup)).unwrap_or_else(|e| panic!("{setup}: {e}"));
    }
    let blocks = runnable(&pages::read(page));
    assert!(!blocks.is_empty(), "{page} has no SQL block");
    run_blocks(&cluster, &blocks).unwrap_or_else(|error| panic!("{page}:{error}"));
}

/// Runs blocks one after the other. The error of the first that fails begins with its line.
fn run_blocks(cluster: &Cluster, blocks: &[Block]) -> Result<(), String> {
    for block in blocks {
        let role = block.role().unwrap_or("postgres");
        psql(cluster, role, &block.text)
            .map_err(|error| format!("{}: {error}\n{}", block.line, block.text))?;
    }
    Ok(())
}

/// Pastes statements into psql as a role; the errors it prints when one fails.
fn psql(cluster: &Cluster, role: &str, sql: &str) -> Result<(), String> {
    let mut psql = cluster.psql_command(DATABASE);
    psql.args(["-U", role, "-v", "ON_ERROR_STOP=1"]);
    psql.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = psql.spawn().unwrap();
    running.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
    let output = running.wait_with_output().unwrap();
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn every_page_with_sql_has_a_test() {
    let with_sql: Vec<String> =
        pages::all().into_iter().filter(|page| !runnable(&pages::read(page)).is_empty()).collect();
    let mut tested = PAGES.to_vec();
    tested.sort_unstable();
    assert_eq!(with_sql, tested);
}

#[test]
fn a_broken_block_is_found() {
    let cluster = Cluster::start();
    cluster.create_database(DATABASE);
    let page =
        "# Page\n\n```sql\nCREATE TABLE t (id int);\n```\n\n```sql\nSELECT nothing FROM t;\n```\n";
    let error = run_blocks(&cluster, &runnable(page)).unwrap_err();
    assert!(error.starts_with("7: ") && error.contains("\"nothing\" does not exist"), "{error}");
    let page = page.replace("nothing", "id").replacen("```sql", "```sql role=stranger", 1);
    let error = run_blocks(&cluster, &runnable(&page)).unwrap_err();
    assert!(error.starts_with("3: ") && error.contains("\"stranger\" does not exist"), "{error}");
    let page = page.replace("role=stranger", "ignore: it needs a stranger");
    assert_eq!(runnable(&page).len(), 1);
}
