//! The imports between the rooms of src go one way: a room imports only rooms above it in the list of src/lib.rs, so
//! there are no circles. The crates do not import each other's internals.
#![allow(clippy::expect_used, reason = "a test that cannot go on says why")]

use std::fs;
use std::path::{Path, PathBuf};

/// What a path names at the root of the crate.
#[derive(Debug, PartialEq, Eq)]
struct Import {
    name: String,
    /// Whether the path gets there by super:: instead of crate::.
    climbs: bool,
}

/// What a file imports from the root: every `crate::X`, and every `super::..::X` that reaches the root. `depth` is
/// that of the file's module, 1 for a room.
fn imports(text: &str, depth: usize) -> Vec<Import> {
    let tokens = tokens(text);
    let token = |at: usize| tokens.get(at).map_or("", String::as_str);
    let (mut found, mut braces) = (Vec::new(), Vec::new());
    for at in 0..tokens.len() {
        match token(at) {
            "{" => braces.push(at >= 2 && token(at - 2) == "mod"),
            "}" => drop(braces.pop()),
            _ => {}
        }
        let begins = at == 0 || !matches!(token(at - 1), "::" | "$");
        let module = depth + braces.iter().filter(|is_module| **is_module).count();
        let (base, climbs) = match token(at) {
            "crate" if begins => (0, false),
            "super" if begins => (module - 1, true),
            _ => continue,
        };
        let mut names = Vec::new();
        match token(at + 1) {
            "::" => follow(&tokens[at + 2..], base, &mut names),
            // The whole crate under an alias.
            "as" if base == 0 => names.push(token(at).to_string()),
            _ => {}
        }
        found.extend(names.into_iter().map(|name| Import { name, climbs }));
    }
    found
}

/// Follows a path, or a list of paths in braces, from a module of this depth, and collects the names at the root.
fn follow(tokens: &[String], depth: usize, names: &mut Vec<String>) {
    match tokens.first().map(String::as_str) {
        Some("{") => {
            let (mut open, mut is_first) = (0, true);
            for (at, token) in tokens.iter().enumerate() {
                match token.as_str() {
                    "{" => open += 1,
                    "}" => open -= 1,
                    "," if open == 1 => is_first = true,
                    _ => continue,
                }
                if open == 0 {
                    break;
                }
                if std::mem::take(&mut is_first) && tokens[at + 1] != "}" {
                    follow(&tokens[at + 1..], depth, names);
                }
            }
        }
        Some("super") if depth > 0 && tokens.get(1).is_some_and(|token| token == "::") => {
            follow(&tokens[2..], depth - 1, names);
        }
        Some(name) if depth == 0 => names.push(name.to_string()),
        _ => {}
    }
}

/// The tokens of Rust code, without comments, strings and characters.
fn tokens(text: &str) -> Vec<String> {
    let is_of_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
        } else if rest.starts_with("/*") {
            rest = after_comment(rest);
        } else if is_of_word(c) {
            let length = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(length);
            let marks = after.len() - after.trim_start_matches('#').len();
            rest = after;
            match word {
                "r" | "br" | "cr" if after[marks..].starts_with('"') => {
                    let end = format!("\"{}", "#".repeat(marks));
                    let body = &after[marks + 1..];
                    rest = body.split_once(end.as_str()).map_or("", |(_, after)| after);
                }
                _ => tokens.push(word.to_string()),
            }
        } else if c == '"' {
            rest = after_quote(&rest[1..], '"');
        } else if c == '\'' {
            let mut next = rest.chars().skip(1);
            let (first, second) = (next.next(), next.next());
            let is_character = first == Some('\\') || second == Some('\'');
            // Otherwise it is a lifetime.
            rest = if is_character { after_quote(&rest[1..], '\'') } else { &rest[1..] };
        } else {
            let length = if rest.starts_with("::") { 2 } else { c.len_utf8() };
            if !c.is_whitespace() {
                tokens.push(rest[..length].to_string());
            }
            rest = &rest[length..];
        }
    }
    tokens
}

/// What follows the end of a string or character literal.
fn after_quote(text: &str, quote: char) -> &str {
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            _ if c == quote => return &text[at + 1..],
            _ => {}
        }
    }
    ""
}

/// What follows the comment at the start; comments may be nested.
fn after_comment(text: &str) -> &str {
    let (mut rest, mut open) = (&text[2..], 1);
    while open > 0 {
        let Some(at) = rest.find(['*', '/']) else { return "" };
        rest = &rest[at..];
        let change = [("*/", -1), ("/*", 1)].into_iter().find(|(sign, _)| rest.starts_with(sign));
        open += change.map_or(0, |(_, change)| change);
        rest = &rest[if change.is_some() { 2 } else { 1 }..];
    }
    rest
}

/// The rooms in the order of src/lib.rs, from the ground up.
fn rooms(lib: &str) -> Vec<String> {
    let declared = lib.lines().filter_map(|line| line.strip_prefix("mod "));
    declared.filter_map(|line| line.split_once(';')).map(|(name, _)| name.to_string()).collect()
}

/// The problems of the imports of a file in this room.
fn problems(room: &str, path: &Path, text: &str, rooms: &[String]) -> Vec<String> {
    let place = |name: &str| rooms.iter().position(|room| room == name);
    let Some(own) = place(room) else {
        return vec![format!(
            "{}: room \"{room}\" is not in the list of src/lib.rs",
            path.display()
        )];
    };
    let depth = path.iter().count() - usize::from(path.ends_with("mod.rs"));
    let mut problems = Vec::new();
    for Import { name, climbs } in imports(text, depth) {
        let problem = match place(&name) {
            None => format!("\"{room}\" imports \"{name}\", which is no room in src/lib.rs"),
            Some(other) if other > own => {
                format!("\"{room}\" imports \"{name}\", which stands below it in src/lib.rs")
            }
            // A path that leaves its room must use crate::.
            Some(other) if climbs && other != own => {
                format!("write crate::{name}, where super:: leads out of \"{room}\"")
            }
            Some(_) => continue,
        };
        problems.push(format!("{}: {problem}", path.display()));
    }
    problems
}

/// The Rust files below a directory, by their paths from it.
fn files(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(directory.join(&at)).expect("the directory can be read").flatten()
        {
            let path = at.join(entry.file_name());
            if entry.file_type().expect("an entry has a type").is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(entry.path()).expect("a source can be read");
                found.push((path, text));
            }
        }
    }
    found
}

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn imports_go_one_way() {
    let files = files(&project().join("src"));
    let lib =
        &files.iter().find(|(path, _)| path == Path::new("lib.rs")).expect("lib.rs is there").1;
    let rooms = rooms(lib);
    assert!(rooms.len() > 20, "the list of rooms was not found: {rooms:?}");
    let mut found = Vec::new();
    for (path, text) in files.iter().filter(|(path, _)| path != Path::new("lib.rs")) {
        let first = path.iter().next().and_then(|part| part.to_str()).unwrap_or_default();
        let room = first.trim_end_matches(".rs");
        found.extend(problems(room, path, text, &rooms));
    }
    found.sort();
    found.dedup();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn crates_do_not_link_what_they_must_not() {
    let crates = project().join("crates");
    for (krate, forbidden) in [
        ("wire", &["embedd", "embedd_embedder", "pgrx", "fs", "net", "os"][..]),
        ("embedder", &["embedd", "pgrx"]),
    ] {
        let files = files(&crates.join(krate).join("src"));
        assert!(!files.is_empty(), "crates/{krate} has no sources");
        for (path, text) in files {
            let words = tokens(&text);
            let used = words.iter().find(|word| forbidden.contains(&word.as_str()));
            assert!(used.is_none(), "crates/{krate}/src/{} uses {used:?}", path.display());
        }
    }
}

#[test]
fn an_upward_import_is_found_in_any_form() {
    let rooms: Vec<String> = ["name", "error", "sync"].map(String::from).to_vec();
    let count =
        |room: &str, path: &str, text: &str| problems(room, Path::new(path), text, &rooms).len();
    for (path, text, expected) in [
        ("error.rs", "use crate::name;\nuse crate::{name::quote, error::X};", 0),
        ("error.rs", "pub(crate) fn f() {} pub(super) fn g() {} pub(in crate::error) fn h() {}", 0),
        ("error.rs", "use crate::sync;", 1),
        ("error.rs", "use crate::*;", 1),
        ("error.rs", "use crate as root;", 1),
        ("error.rs", "use crate::{\n    // one, two\n    name,\n    sync,\n};", 1),
        ("error.rs", "use super::sync::Engine;", 1),
        ("error.rs", "use super::sync as other;", 1),
        ("error.rs", "use super::{sync::Engine};", 1),
        ("error.rs", "mod tests { use super::*; }", 0),
        ("error.rs", "mod tests { use super::super::{sync}; }", 1),
        ("error.rs", "mod tests { use super::{super::sync}; } fn f() {}", 1),
        ("error/mod.rs", "use super::sync;", 1),
        ("error/hint.rs", "use super::{Error, option::OptionError};", 0),
        ("error/hint.rs", "use super::super::error::Error;", 0),
        ("error/hint.rs", "use crate::{name, sync::{self, Engine}};", 1),
        ("error/hint.rs", "fn f() { crate::sync::run() }", 1),
        // It goes down, and must use crate::.
        ("error/hint.rs", "use super::super::name::quote;", 1),
        ("error/hint.rs", "use super::super::{name, sync};", 2),
        // Comments and strings import nothing, and hide nothing that follows.
        ("error/hint.rs", "// crate::sync\nlet x = \"crate::sync\";", 0),
        ("error/hint.rs", "/* \" /* crate::sync */ \" */ use crate::sync;", 1),
        ("error/hint.rs", "let x = ['\"', '\\\"', '\\'']; use crate::sync;", 1),
        ("error/hint.rs", "let x = r#\"a \" crate::sync\"#; use crate::sync;", 1),
        ("error/hint.rs", "let x = r\"\\\"; let r#type: &'static str = x; use crate::sync;", 1),
    ] {
        assert_eq!(count("error", path, text), expected, "{path}: {text}");
    }
    assert_eq!(count("unknown", "unknown.rs", ""), 1);
}

/// The core of the sync imports nothing of PostgreSQL, and of the crate only what is pure.
#[test]
fn the_core_knows_no_io() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src");
    let pure = ["backoff", "task", "provider_batch", "queue", "transaction", "sync"];
    let mut seen = 0;
    for (path, text) in files(&root.join("sync/core")) {
        let tokens = tokens(&text);
        for forbidden in ["pgrx", "pg_sys", "Spi", "SystemTime", "UnixStream"] {
            assert!(!tokens.iter().any(|token| token == forbidden), "{path:?} has {forbidden}");
        }
        for at in tokens.windows(3).filter(|at| at[0] == "crate" && at[1] == "::") {
            assert!(pure.contains(&at[2].as_str()), "{path:?} imports {}", at[2]);
        }
        seen += 1;
    }
    assert!(seen > 10);
    // What it imports of these rooms is in files of their own.
    for file in [
        "backoff.rs",
        "task/kind.rs",
        "provider_batch/noted.rs",
        "queue/bulk_change.rs",
        "transaction/blame.rs",
    ] {
        let text = fs::read_to_string(root.join(file)).expect("a source file");
        assert!(!tokens(&text).iter().any(|token| token == "pgrx"), "{file} is not pure");
    }
}

/// The names of the tests in a text.
fn tests_in(text: &str) -> Vec<String> {
    let tokens = tokens(text);
    let is_test = |at: &&[String]| at[0] == "test" && at[1] == "]" && at[2] == "fn";
    tokens.windows(4).filter(is_test).map(|at| at[3].clone()).collect()
}

/// Each schedule that is forced on a real cluster has a twin that runs against the core alone.
#[test]
fn every_schedule_has_a_pure_twin() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let core = files(&tests.join("../src/sync/core/model/schedules"));
    let twins: Vec<String> = core.iter().flat_map(|(_, text)| tests_in(text)).collect();
    let mut schedules = Vec::new();
    for (_, text) in files(&tests.join("outside/schedules")) {
        schedules.extend(tests_in(&text));
    }
    assert!(schedules.len() > 30);
    let alone: Vec<_> = schedules.iter().filter(|name| !twins.contains(name)).collect();
    assert!(alone.is_empty(), "without a twin: {alone:?}");
}
