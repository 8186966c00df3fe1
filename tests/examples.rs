//! The examples ring: every program of examples/ runs against a cluster of its own with the local model, and prints what
//! examples/output.txt says. `make test-examples` installs what they need.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on says why")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::Cluster;
use support::binaries::pg_config_says;
use support::cluster::SUPERUSER;

/// A cluster with a copy of the examples, and what was installed for them.
struct Examples {
    cluster: Cluster,
    tools: PathBuf,
}

impl Examples {
    fn start() -> Examples {
        let tools =
            std::env::var("EMBEDD_EXAMPLES").expect("make test-examples sets EMBEDD_EXAMPLES");
        let model = pg_config_says("--sharedir").join("embedd/all-MiniLM-L6-v2");
        let cluster = Cluster::builder()
            .set("embedd.local_model_path", model.to_str().expect("the path is UTF-8"))
            .listening()
            .start();
        copy(&home(), &cluster.dir().join("examples"));
        Examples { cluster, tools: PathBuf::from(tools) }
    }

    /// Runs a program in the directory of an example, and returns what it prints.
    fn run(&self, example: &str, program: &Path, arguments: &[&str]) -> String {
        let port = self.cluster.port();
        let output = Command::new(program)
            .args(arguments)
            .current_dir(self.cluster.dir().join("examples").join(example))
            .env("PGHOST", self.cluster.socket_dir())
            .env("PGPORT", port.to_string())
            .env("PGUSER", SUPERUSER)
            .env("PGDATABASE", "postgres")
            .env(
                "JDBC_URL",
                format!("jdbc:postgresql://127.0.0.1:{port}/postgres?user={SUPERUSER}"),
            )
            .output()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let (out, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(
            output.status.success(),
            "{example}: {} {arguments:?}\n{out}{errors}",
            program.display()
        );
        out.into_owned()
    }

    fn python(&self, example: &str, arguments: &[&str]) -> String {
        self.run(example, &self.tools.join("python/bin/python"), arguments)
    }

    /// The output of a search, which is that of every example.
    fn check(&self, output: &str) {
        let expected =
            fs::read_to_string(home().join("output.txt")).expect("output.txt can be read");
        assert_eq!(output, expected);
        let differences =
            self.cluster.psql("postgres", "select count(*) from embedd.verify('products')");
        assert_eq!(differences, "0");
    }
}

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// Copies a directory, so that nothing is written into the checkout.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory can be made");
    for entry in fs::read_dir(from).expect("a directory can be read") {
        let entry = entry.expect("an entry can be read");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("an entry has a type").is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("a file can be copied")),
        }
    }
}

#[test]
fn psycopg() {
    let examples = Examples::start();
    examples.check(&examples.python("psycopg", &["search.py"]));
}

/// Autogenerate finds nothing to change: the vector table is not in the models, and stays, also while another one is built.
#[test]
fn sqlalchemy_and_alembic() {
    let examples = Examples::start();
    let alembic = |arguments: &[&str]| {
        let all = [&["-m", "alembic"], arguments].concat();
        examples.python("sqlalchemy", &all)
    };
    alembic(&["upgrade", "head"]);
    alembic(&["check"]);
    examples.check(&examples.python("sqlalchemy", &["search.py"]));
    alembic(&["check"]);
    examples.cluster.psql(
        "postgres",
        "select embedd.update_vector_table('products', vector_type => 'halfvec');
         select embedd.backfill('products', auto_swap => false)",
    );
    alembic(&["check"]);
    examples.cluster.psql("postgres", "select embedd.discard('products')");
    alembic(&["downgrade", "base"]);
}

#[test]
fn django() {
    let examples = Examples::start();
    examples.python("django", &["manage.py", "migrate"]);
    examples.python("django", &["manage.py", "makemigrations", "--check"]);
    examples.python("django", &["manage.py", "test"]);
    examples.check(&examples.python("django", &["search.py"]));
    examples.python("django", &["manage.py", "migrate", "shop", "zero"]);
}

#[test]
fn node() {
    let examples = Examples::start();
    let modules = examples.cluster.dir().join("examples/node/node_modules");
    symlink(examples.tools.join("node/node_modules"), modules).expect("a link can be made");
    examples.check(&examples.run("node", Path::new("node"), &["search.js"]));
}

#[test]
fn jdbc() {
    let examples = Examples::start();
    let driver = ["-cp", "/usr/share/java/postgresql.jar", "Search.java"];
    examples.check(&examples.run("jdbc", Path::new("java"), &driver));
}
