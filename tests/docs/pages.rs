//! Each page says what language its blocks have, links to what is there, and lists what the source has.

use std::collections::BTreeSet;

use support::pages;

/// README is a front page: everything else is in docs.
const README_LINES: usize = 200;

const LANGUAGES: [&str; 4] = ["json", "sh", "sql", "text"];

/// Words at the beginning of a statement.
const STATEMENTS: [&str; 12] = [
    "ALTER ",
    "CREATE ",
    "DELETE ",
    "DO ",
    "DROP ",
    "GRANT ",
    "INSERT ",
    "REVOKE ",
    "SELECT ",
    "SET ",
    "TRUNCATE ",
    "UPDATE ",
];

/// Words in place of which a page names the process or the role, or says it in plain words.
const VAGUE: [&str; 10] = [
    "anew",
    "everybody",
    "goes over",
    "is told of",
    "nobody",
    "none of ours",
    "somebody",
    "takes over",
    "whoever",
    "whom",
];

/// What is wrong with the blocks of a page.
fn blocks_problems(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for block in pages::blocks(text) {
        let has_sql =
            block.text.lines().any(|line| STATEMENTS.iter().any(|word| line.starts_with(word)));
        if !LANGUAGES.contains(&block.language()) {
            problems.push(format!("{}: no language, or an unknown one", block.line));
        } else if block.language() != "sql" && has_sql {
            problems.push(format!("{}: SQL that no test runs", block.line));
        }
        if block.ignored().is_some_and(|reason| reason.split(' ').count() < 3) {
            problems.push(format!("{}: no reason why it is not run", block.line));
        }
    }
    let prose = prose(text);
    let after_blank =
        prose.iter().zip(prose.iter().skip(1)).filter(|(before, _)| before.1.is_empty());
    for (_, (number, line)) in after_blank {
        if line.starts_with("    ") && !line.trim().is_empty() {
            problems.push(format!("{number}: code without a fence"));
        }
    }
    problems
}

/// The lines outside of blocks, with their numbers.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut inside = false;
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.starts_with("```") {
            inside = !inside;
        } else if !inside {
            lines.push((number + 1, line));
        }
    }
    lines
}

/// The vague words of a text, each with its line. Code does not count.
fn vague(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let plain: String = line.to_lowercase().split('`').step_by(2).collect();
        let words: String =
            plain.chars().map(|c| if c.is_alphanumeric() { c } else { ' ' }).collect();
        let words = format!(" {words} ");
        let said = VAGUE.iter().filter(|word| words.contains(&format!(" {word} ")));
        found.extend(said.map(|word| format!("{number}: {word}")));
    }
    found
}

/// The anchors that a page has: one for each heading.
fn anchors(text: &str) -> BTreeSet<String> {
    let heading = |line: &&str| line.starts_with('#');
    let anchor = |line: &str| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        title
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    };
    prose(text).into_iter().map(|(_, line)| line).filter(heading).map(anchor).collect()
}

/// The links of a page that lead nowhere.
fn dead_links(page: &str, text: &str) -> Vec<String> {
    let prose: String = prose(text).into_iter().map(|(_, line)| format!("{line}\n")).collect();
    let folder = page.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
    let mut dead = Vec::new();
    for link in prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        if link.starts_with("http") {
            continue;
        }
        let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
        let path = if file.is_empty() { page.to_string() } else { format!("{folder}{file}") };
        let is_there = pages::path(&path).exists()
            && (anchor.is_empty() || anchors(&pages::read(&path)).contains(anchor));
        if !is_there {
            dead.push(format!("{page}: {link}"));
        }
    }
    dead
}

/// The condition names of the SQLSTATEs in a text of the source: `ERRCODE_UNDEFINED_TABLE` is undefined_table.
fn conditions(source: &str) -> BTreeSet<String> {
    let name = |rest: &str| {
        let end = rest.find(|c: char| !c.is_ascii_uppercase() && c != '_').unwrap_or(rest.len());
        // PostgreSQL's constants of class 40 have a prefix that its condition names lack.
        rest[..end].trim_start_matches("T_R_").to_lowercase()
    };
    source.split("ERRCODE_").skip(1).map(name).collect()
}

/// The condition names of the headings like `### 42P01 undefined_table`.
fn documented_conditions(page: &str) -> BTreeSet<String> {
    let heading = |line: &str| {
        let (code, name) = line.strip_prefix("### ")?.split_once(' ')?;
        (code.len() == 5 && name.contains('_')).then(|| name.to_string())
    };
    pages::section(page, "Errors").lines().filter_map(heading).collect()
}

/// The checks of doctor() in its source.
fn checks(source: &str) -> BTreeSet<String> {
    let list = source.split("const CHECKS").nth(1).expect("there is a list of checks");
    let list = list.split("];").next().unwrap_or_default();
    let name =
        |entry: &str| Some(entry.trim_start().strip_prefix('"')?.split('"').next()?.to_string());
    list.split('(').skip(1).filter_map(name).collect()
}

/// The checks in the first column of the table.
fn documented_checks(page: &str) -> BTreeSet<String> {
    let cells =
        pages::section(page, "Checks of doctor").lines().filter_map(|line| line.split('|').nth(1));
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_string).collect()
}

#[test]
fn readme_is_a_front_page() {
    let lines = pages::read("README.md").lines().count();
    assert!(lines < README_LINES, "README.md has {lines} lines");
}

#[test]
fn every_block_has_a_language_and_no_sql_hides() {
    for page in pages::all() {
        assert_eq!(blocks_problems(&pages::read(&page)), [""; 0], "{page}");
    }
    for (text, problem) in [
        ("```\nx\n```\n", "1: no language, or an unknown one"),
        ("x\n\n```text\nSELECT 1;\n```\n", "3: SQL that no test runs"),
        ("```sql ignore: why\nSELECT 1;\n```\n", "1: no reason why it is not run"),
        ("x\n\n    SELECT 1;\n", "3: code without a fence"),
    ] {
        assert_eq!(blocks_problems(text), [problem]);
    }
}

#[test]
fn every_page_names_who_does_what() {
    for page in pages::all() {
        assert_eq!(vague(&pages::read(&page)), [""; 0], "{page}");
    }
    assert_eq!(vague("x\nNobody, `somebody` or a nobody's\n"), ["2: nobody"]);
}

#[test]
fn every_link_leads_somewhere() {
    let dead: Vec<String> =
        pages::all().iter().flat_map(|page| dead_links(page, &pages::read(page))).collect();
    assert_eq!(dead, [""; 0]);
    let text = "# A page\n[a](#a-page) [b](#b) [c](nowhere.md) [d](roles.md) [e](roles.md#nowhere) [f](https://x.y)\n";
    let expected = [
        "docs/a.md: #a-page",
        "docs/a.md: #b",
        "docs/a.md: nowhere.md",
        "docs/a.md: roles.md#nowhere",
    ];
    assert_eq!(dead_links("docs/a.md", text), expected);
    assert_eq!(dead_links("docs/roles.md", "[a](#for-a-role-that-only-asks)"), [""; 0]);
}

#[test]
fn every_sqlstate_is_in_the_reference() {
    let (source, page) = (pages::read("src/error/sqlstate.rs"), pages::read("docs/reference.md"));
    assert_eq!(documented_conditions(&page), conditions(&source));
    assert_ne!(
        documented_conditions(&page.replace("42P01 undefined", "42P01 defined")),
        conditions(&source)
    );
}

#[test]
fn every_check_of_doctor_is_in_the_reference() {
    let (source, page) = (pages::read("src/doctor/finding.rs"), pages::read("docs/reference.md"));
    assert!(checks(&source).len() > 30);
    assert_eq!(documented_checks(&page), checks(&source));
    assert_ne!(documented_checks(&page.replace("`preload`", "`reload`")), checks(&source));
}
