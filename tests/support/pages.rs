//! The pages of the documentation: where they are, and the fenced blocks in them.

use std::fs;
use std::path::{Path, PathBuf};

/// A fenced block of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The line of the fence that opens it, counted from 1.
    pub line: usize,
    /// What stands behind that fence: a language, and for SQL perhaps more.
    pub info: String,
    pub text: String,
}

impl Block {
    /// The language: the first word behind the fence.
    pub fn language(&self) -> &str {
        self.info.split([' ', ':']).next().unwrap_or_default()
    }

    /// The role that runs it: `sql role=app`.
    pub fn role(&self) -> Option<&str> {
        self.info.split(' ').find_map(|word| word.strip_prefix("role="))
    }

    /// Why no test can run it: `sql ignore: it needs a second server`.
    pub fn ignored(&self) -> Option<&str> {
        Some(self.info.split_once("ignore")?.1.trim_start_matches(':').trim())
    }
}

/// A file of the checkout.
pub fn path(page: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page)
}

/// The text of a page.
pub fn read(page: &str) -> String {
    let path = path(page);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every page, by its path from the root of the checkout.
pub fn all() -> Vec<String> {
    let mut pages = vec!["CONTRIBUTING.md".into(), "README.md".into(), "SECURITY.md".into()];
    collect("docs", &mut pages);
    pages.sort();
    pages
}

fn collect(directory: &str, pages: &mut Vec<String>) {
    for entry in fs::read_dir(path(directory)).expect("the directory can be read") {
        let entry = entry.expect("the directory can be read");
        let name = format!("{directory}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            collect(&name, pages);
        } else if name.ends_with(".md") {
            pages.push(name);
        }
    }
}

/// The fenced blocks of a text. A fence that is not closed ends with the text.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in text.lines().enumerate() {
        let fence = line.strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(info)) => {
                let info = info.trim().to_string();
                open = Some(Block { line: number + 1, info, text: String::new() });
            }
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, None) => {}
        }
    }
    blocks.extend(open);
    blocks
}

/// The text below a heading of second order, without the heading.
pub fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, section) = text.split_once(&format!("\n## {heading}\n")).expect(heading);
    section.split("\n## ").next().unwrap_or_default()
}
