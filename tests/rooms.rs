//! The imports between the rooms of src go one way: a room imports only rooms that stand above it in the list of src/lib.rs,
//! so that there are no circles. The crates keep to themselves.
#![allow(clippy::expect_used, reason = "a test that cannot go on says why")]

use std::fs;
use std::path::{Path, PathBuf};

/// What a file of `room` imports, seen from the root: every `crate::X` and `super::..::X` that leaves the room.
fn imports(text: &str) -> Vec<String> {
    let code = without_comments_and_texts(text);
    let mut found = Vec::new();
    let mut rest = code.as_str();
    while let Some(at) = rest.find("crate::") {
        let is_word = rest[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
        rest = &rest[at + "crate::".len()..];
        if is_word {
            continue;
        }
        match rest.strip_prefix('{') {
            Some(list) => found.extend(first_names(list)),
            None => found.push(name(rest)),
        }
    }
    found
}

/// The first name of each item of a list in braces, whose opening brace was read.
fn first_names(list: &str) -> Vec<String> {
    let (mut names, mut depth, mut begin) = (Vec::new(), 0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(name(list[begin..at].trim_start()));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(name(list[begin..at].trim_start()));
                begin = at + 1;
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The identifier that a text begins with.
fn name(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Code without line comments and without what stands between double quotes.
fn without_comments_and_texts(text: &str) -> String {
    let mut code = String::new();
    let (mut in_text, mut chars) = (false, text.chars().peekable());
    while let Some(c) = chars.next() {
        match c {
            '\\' if in_text => drop(chars.next()),
            '"' => in_text = !in_text,
            _ if in_text => {}
            '\'' if chars.peek() == Some(&'"') => drop(chars.next()),
            '/' if chars.peek() == Some(&'/') => {
                chars.by_ref().take_while(|c| *c != '\n').for_each(drop);
                code.push('\n');
            }
            _ => code.push(c),
        }
    }
    code
}

/// The rooms in the order of src/lib.rs, from the ground up.
fn rooms(lib: &str) -> Vec<String> {
    let declared = lib.lines().filter_map(|line| line.strip_prefix("mod "));
    declared.map(name).collect()
}

/// What is wrong with the imports of a file of this room.
fn problems(room: &str, path: &Path, text: &str, rooms: &[String]) -> Vec<String> {
    let place = |name: &str| rooms.iter().position(|room| room == name);
    let Some(own) = place(room) else {
        return vec![format!(
            "{}: room \"{room}\" is not in the list of src/lib.rs",
            path.display()
        )];
    };
    let mut problems = Vec::new();
    for name in imports(text) {
        match place(&name) {
            Some(other) if other > own => problems.push(format!(
                "{}: \"{room}\" imports \"{name}\", which stands below it in src/lib.rs",
                path.display()
            )),
            _ => {}
        }
    }
    let code = without_comments_and_texts(text);
    let depth = path.iter().count() - usize::from(path.ends_with("mod.rs"));
    // A path that climbs out of its room has to say so: crate::.
    let climbs = "super::".repeat(depth);
    for other in rooms.iter().filter(|other| *other != room) {
        if code.contains(&format!("{climbs}{other}::"))
            || code.contains(&format!("{climbs}{other};"))
        {
            problems.push(format!("{}: write crate::{other} for {climbs}{other}", path.display()));
        }
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
fn crates_keep_to_themselves() {
    let crates = project().join("crates");
    for (krate, forbidden) in [
        ("wire", &["embedd_embedder", "pgrx", "std::fs", "std::net", "std::os"][..]),
        ("embedder", &["pgrx"]),
    ] {
        for (path, text) in files(&crates.join(krate).join("src")) {
            let code = without_comments_and_texts(&text);
            let used = forbidden.iter().find(|word| code.contains(**word));
            assert!(used.is_none(), "crates/{krate}/src/{} uses {used:?}", path.display());
        }
    }
}

#[test]
fn an_upward_import_is_found_however_it_is_written() {
    let rooms: Vec<String> = ["name", "error", "sync"].map(String::from).to_vec();
    let check =
        |room: &str, path: &str, text: &str| problems(room, Path::new(path), text, &rooms).len();
    assert_eq!(
        check("error", "error.rs", "use crate::name;\nuse crate::{name::quote, error::X};"),
        0
    );
    assert_eq!(check("error", "error.rs", "use crate::sync;"), 1);
    assert_eq!(check("error", "error/hint.rs", "use crate::{name, sync::{self, Engine}};"), 1);
    assert_eq!(check("error", "error/hint.rs", "fn f() { crate::sync::run() }"), 1);
    assert_eq!(check("error", "error/hint.rs", "// crate::sync\nlet x = \"crate::sync\";"), 0);
    assert_eq!(check("error", "error.rs", "use super::sync::Engine;"), 1);
    assert_eq!(check("error", "error/hint.rs", "use super::super::name::quote;"), 1);
    assert_eq!(check("unknown", "unknown.rs", ""), 1);
}
