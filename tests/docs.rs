//! Checks docs/architecture.md: each promise has a row of tests, each test exists, and each room of the extension is
//! listed. What every page has to be like is in docs/pages.rs.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on says why")]

#[path = "docs/pages.rs"]
mod pages;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use support::pages::read;

/// The number of promises.
const PROMISES: usize = 13;

/// What a row says if no test attacks its promise, or a part of it.
const NO_TEST: &str = "no test yet";

/// Where the tests of a ring are, and how the table names the ring.
const RINGS: [&str; 5] = ["outside", "golden", "backend", "pure", "bench"];

/// The sources in which names are looked up, each with its path and text.
struct Sources(Vec<(PathBuf, String)>);

impl Sources {
    /// Reads every file that may contain a test.
    fn read() -> Self {
        let mut files = Vec::new();
        for directory in ["src", "crates", "tests", "pg_test", "benches"] {
            collect(Path::new(directory), &mut files);
        }
        Self(files)
    }

    /// Whether there is a test with this ring and name.
    fn has(&self, ring: &str, name: &str) -> bool {
        match ring {
            "golden" => ["sql", "out"].iter().all(|ending| {
                let directory = if *ending == "sql" { "sql" } else { "expected" };
                self.has_file(&format!("tests/pg_regress/{directory}/{name}.{ending}"))
            }),
            "bench" => self.has_file(&format!("benches/{name}.rs")),
            "outside" => self.has_function("tests/outside", "#[test]", name),
            "backend" => self.has_function("pg_test", "#[pg_test", name),
            _ => ["src", "crates"].iter().any(|root| self.has_function(root, "#[test]", name)),
        }
    }

    fn has_file(&self, end: &str) -> bool {
        self.0.iter().any(|(path, _)| path.ends_with(end))
    }

    /// Whether a function below this directory has the attribute, in a file of the module that the name begins with.
    fn has_function(&self, root: &str, attribute: &str, name: &str) -> bool {
        let Some((module, function)) = name.rsplit_once("::") else { return false };
        let module: Vec<&str> = module.split("::").collect();
        self.0
            .iter()
            .filter(|(path, _)| path.starts_with(root) && module_of(path).ends_with(&module))
            .any(|(_, text)| has_function(text, attribute, function))
    }
}

/// Adds the files below an existing directory.
fn collect(directory: &Path, files: &mut Vec<(PathBuf, String)>) {
    let Ok(entries) =
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(directory))
    else {
        return;
    };
    for entry in entries.flatten() {
        let path = directory.join(entry.file_name());
        if entry.file_type().expect("an entry has a type").is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs" || e == "sql" || e == "out") {
            let bytes = fs::read(entry.path()).expect("a source can be read");
            files.push((path, String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
}

/// The module of a file, as the parts of its path.
fn module_of(path: &Path) -> Vec<&str> {
    let mut parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    if let Some(last) = parts.pop()
        && last != "mod.rs"
    {
        parts.push(last.trim_end_matches(".rs"));
    }
    parts
}

/// Whether this text defines a function with this attribute directly above it.
fn has_function(text: &str, attribute: &str, function: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let head = format!("fn {function}(");
    lines.iter().enumerate().any(|(number, line)| {
        line.starts_with(&head)
            && lines[..number]
                .iter()
                .rev()
                .take_while(|above| above.starts_with("#["))
                .any(|above| above.starts_with(attribute))
    })
}

/// The problems of the promises and their table in this text.
fn problems(text: &str, sources: &Sources) -> Vec<String> {
    let promises = promises(text);
    let rows = rows(text);
    let mut problems = Vec::new();
    if !promises.keys().copied().eq(1..=PROMISES) {
        problems.push(format!("the promises are numbered {:?}", promises.keys()));
    }
    for (number, name) in &promises {
        match rows.iter().filter(|row| row.number == *number).count() {
            0 => problems.push(format!("promise {number} has no row")),
            1 => {}
            _ => problems.push(format!("promise {number} has more than one row")),
        }
        if rows.iter().any(|row| row.number == *number && row.name != *name) {
            problems.push(format!("the row of promise {number} does not call it \"{name}\""));
        }
    }
    for row in &rows {
        if !promises.contains_key(&row.number) {
            problems.push(format!("row {} is of no promise", row.number));
        }
        if row.tests.is_empty() && !row.cell.contains(NO_TEST) {
            problems.push(format!("row {} has to name a test or say \"{NO_TEST}\"", row.number));
        }
        for (ring, name) in &row.tests {
            if !RINGS.contains(&ring.as_str()) {
                problems.push(format!("row {}: there is no ring \"{ring}\"", row.number));
            } else if !sources.has(ring, name) {
                problems.push(format!("row {}: there is no {ring} test \"{name}\"", row.number));
            }
        }
    }
    problems
}

/// The promises by number: lines like `1. **Equal.**`.
fn promises(text: &str) -> BTreeMap<usize, String> {
    let promise = |line: &str| {
        let (number, rest) = line.split_once(". **")?;
        Some((number.parse().ok()?, rest.split_once(".**")?.0.to_string()))
    };
    text.lines().filter_map(promise).collect()
}

/// A row of the table, like `| 1 Equal |`.
struct Row {
    number: usize,
    name: String,
    cell: String,
    /// Ring and name.
    tests: Vec<(String, String)>,
}

fn rows(text: &str) -> Vec<Row> {
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| ")?.split('|').map(str::trim);
        let (number, name) = cells.next()?.split_once(' ')?;
        let cell = cells.next()?.to_string();
        Some(Row {
            number: number.parse().ok()?,
            name: name.to_string(),
            tests: named(&cell),
            cell,
        })
    };
    text.lines().filter_map(row).collect()
}

/// The tests of a cell: names in backticks, each with the ring named last before it.
fn named(cell: &str) -> Vec<(String, String)> {
    let (mut ring, mut tests) = (String::new(), Vec::new());
    for (number, part) in cell.split('`').enumerate() {
        if number % 2 == 1 {
            tests.push((ring.clone(), part.to_string()));
        } else if let Some((before, _)) = part.rsplit_once(':') {
            ring = before.rsplit([' ', '>']).next().unwrap_or_default().to_string();
        }
    }
    tests
}

/// The rooms in the table of this text, in order.
fn rooms_listed(text: &str) -> Vec<&str> {
    let table = text.split("| rooms |").nth(1).unwrap_or_default();
    let table = table.split("\n\n").next().unwrap_or_default();
    let cells = table.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    cells.flat_map(|cell| cell.split(['`', ' '])).filter(|room| !room.is_empty()).collect()
}

/// The rooms of src/lib.rs, in order.
fn rooms(library: &str) -> Vec<&str> {
    library.lines().filter_map(|line| line.strip_prefix("mod ")?.split(';').next()).collect()
}

fn architecture() -> String {
    read("docs/architecture.md")
}

#[test]
fn every_promise_has_existing_tests() {
    assert_eq!(problems(&architecture(), &Sources::read()), [""; 0]);
}

#[test]
fn a_wrong_row_is_found() {
    let (text, sources) = (architecture(), Sources::read());
    let row = |number: usize| {
        let begins = format!("| {number} ");
        text.lines().find(|line| line.starts_with(&begins)).expect("there is a row").to_string()
    };
    let untrue = [
        (text.replace(&row(2), ""), "promise 2 has no row"),
        (text.replace(&row(2), &row(1)), "promise 2 has no row"),
        (text.replace("| 3 ", "| 14 "), "row 14 is of no promise"),
        (text.replace("| 4 ", "| 4 Not "), "does not call it"),
        (text.replace(&row(5), "| 5 Writers never pay | some |"), "has to name a test"),
        (text.replace("`crash::", "`crush::"), "no outside test \"crush::"),
        (text.replace("`chaos::a_short_run`", "`chaos::run`"), "no outside test \"chaos::run\""),
        (text.replace("golden: `", "golden: `un"), "no golden test \"un"),
        (text.replace("bench: `", "bench: `un"), "no bench test \"un"),
        (text.replace("pure: `", "pure: `un"), "no pure test \"un"),
        (text.replace("backend: `", "backend: `un"), "no backend test \"un"),
        (text.replace("outside: ", "inside: "), "no ring \"inside\""),
    ];
    for (text, expected) in untrue {
        let found = problems(&text, &sources);
        assert!(found.iter().any(|problem| problem.contains(expected)), "{expected}: {found:?}");
    }
}

#[test]
fn every_room_of_the_extension_is_listed() {
    let (text, library) = (architecture(), read("src/lib.rs"));
    assert!(rooms(&library).len() > 10);
    assert_eq!(rooms_listed(&text), rooms(&library));
    assert_ne!(rooms_listed(&text), rooms(&library.replace("mod error;", "mod errors;")));
}
