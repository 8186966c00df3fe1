//! docs/reference.md says of functions, settings, tables and views what the catalog says of them.
//!
//! A part between `<!-- catalog: function query -->` and `<!-- end -->` is made from the catalog. EMBEDD_DOCS_ACCEPT=1 writes these
//! parts; what stands outside them is written by hand.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use postgres::{Client, Row};
use support::{Cluster, pages};

const PAGE: &str = "docs/reference.md";

/// Where a part begins, before its name and the end of the comment.
const BEGIN: &str = "<!-- catalog: ";
const END: &str = "<!-- end -->";

/// Functions that embedd, its triggers and its views call. Every other function has a heading.
const INTERNAL: [&str; 13] = [
    "all_sync_status",
    "check_provider_options",
    "is_preloaded",
    "may_change",
    "may_read_source",
    "may_see",
    "note_change",
    "replace_built_in_model",
    "start_sync",
    "to_integer",
    "to_options",
    "usage_counts",
    "utc_datetime",
];

/// The functions of the extension, without those that take or return the types for arguments of other types.
const FUNCTIONS: &str = "
    SELECT p.proname::text, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), obj_description(p.oid, 'pg_proc')
      FROM pg_proc p
      JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
      JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'embedd'
     WHERE p.prorettype::regtype::text !~ 'argument' AND array_to_string(p.proargtypes::regtype[], ' ') !~ 'argument'
     ORDER BY p.proname, p.pronargs";

/// Tables and views of the extension, and whether every role may read them.
const RELATIONS: &str = "
    SELECT c.relname::text, c.relkind = 'v', coalesce(bool_or(a.grantee = 0 AND a.privilege_type = 'SELECT'), false),
           obj_description(c.oid, 'pg_class')
      FROM pg_class c
      LEFT JOIN LATERAL aclexplode(c.relacl) a ON true
     WHERE c.relnamespace = 'embedd'::regnamespace AND c.relkind IN ('r', 'v')
     GROUP BY c.oid, c.relname, c.relkind
     ORDER BY c.relname";

const COLUMNS: &str = "
    SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), col_description(a.attrelid, a.attnum)
      FROM pg_attribute a
     WHERE a.attrelid = ('embedd.' || $1::text)::regclass AND a.attnum > 0 AND NOT a.attisdropped
     ORDER BY a.attnum";

const SETTINGS: &str = "
    SELECT name, vartype, boot_val, coalesce(unit, ''), coalesce(min_val, ''), coalesce(max_val, ''), context, short_desc, extra_desc
      FROM pg_settings WHERE name LIKE 'embedd.%' ORDER BY name";

/// What each part has to hold, by its name.
type Parts = BTreeMap<String, String>;

/// Every part, from the catalog.
fn parts(client: &mut Client) -> Parts {
    let mut parts = Parts::new();
    let mut internal = String::from("| object | meaning |\n|---|---|\n");
    for row in client.query(FUNCTIONS, &[]).unwrap() {
        let name: &str = row.get(0);
        if INTERNAL.contains(&name) {
            writeln!(internal, "| `{name}({})` | {} |", row.get::<_, &str>(1), cell(&row, 3))
                .unwrap();
        } else {
            parts.entry(format!("function {name}")).or_default().push_str(&function(&row));
        }
    }
    for row in client.query(RELATIONS, &[]).unwrap() {
        let (name, is_view): (&str, bool) = (row.get(0), row.get(1));
        if row.get(2) {
            let kind = if is_view { "view" } else { "table" };
            let text = format!("{}.\n\n{}", row.get::<_, &str>(3), columns(client, name));
            parts.insert(format!("{kind} {name}"), text);
        } else {
            writeln!(internal, "| table `{name}` | {} |", cell(&row, 3)).unwrap();
        }
    }
    for row in client.query(SETTINGS, &[]).unwrap() {
        parts.insert(format!("setting {}", row.get::<_, &str>(0)), setting(&row));
    }
    parts.insert("internal".into(), internal);
    parts
}

/// A text of the catalog as a cell of a table.
fn cell(row: &Row, column: usize) -> String {
    row.get::<_, Option<&str>>(column).expect("every object has a comment").replace('|', "\\|")
}

/// A function: how it is called, and its comment.
fn function(row: &Row) -> String {
    let (name, arguments, result): (&str, &str, &str) = (row.get(0), row.get(1), row.get(2));
    let arguments: Vec<String> = arguments.split(", ").map(argument).collect();
    let mut call = format!("embedd.{name}({})", arguments.join(", "));
    if call.len() > 100 {
        call = format!("embedd.{name}(\n    {}\n)", arguments.join(",\n    "));
    }
    let result = match result.strip_prefix("TABLE(") {
        Some(table) if result.len() > 60 => {
            let columns = table.trim_end_matches(')').replace(", ", ",\n    ");
            format!("TABLE(\n    {columns}\n)")
        }
        _ => result.to_string(),
    };
    format!("```text\n{call} RETURNS {result}\n```\n\n{}.\n", row.get::<_, &str>(3))
}

/// An argument, its default without a cast.
fn argument(text: &str) -> String {
    match text.split_once(" DEFAULT ") {
        Some((before, default)) => {
            format!("{before} DEFAULT {}", default.split("::").next().unwrap_or(default))
        }
        None => text.to_string(),
    }
}

/// The columns of a table or view.
fn columns(client: &mut Client, name: &str) -> String {
    let mut table = String::from("| column | type | meaning |\n|---|---|---|\n");
    for row in client.query(COLUMNS, &[&name]).unwrap() {
        let (column, of_type): (&str, &str) = (row.get(0), row.get(1));
        writeln!(table, "| `{column}` | {of_type} | {} |", cell(&row, 2)).unwrap();
    }
    table
}

/// A setting: its descriptions, default, range, and what a change of it needs.
fn setting(row: &Row) -> String {
    let [kind, default, unit, least, most, context] =
        [1, 2, 3, 4, 5, 6].map(|n| row.get::<_, &str>(n));
    let default =
        if default.is_empty() { "empty".into() } else { format!("`{}`", human(default, unit)) };
    let range = match kind {
        "integer" => format!(" Range: {} to {}.", human(least, unit), human(most, unit)),
        _ => String::new(),
    };
    let change = match context {
        "sighup" => "in postgresql.conf or by `ALTER SYSTEM`, and a reload of the server",
        "user" => "by `SET` in a session, or for a role or a database",
        other => panic!("{other} has no words yet"),
    };
    let (short, extra): (&str, &str) = (row.get(7), row.get(8));
    format!("{short} {extra}\n\nDefault: {default}.{range} Change: {change}.\n")
}

/// A number with its unit, in the largest unit that leaves it whole.
fn human(value: &str, unit: &str) -> String {
    let units: &[(&str, i64)] = match unit {
        "ms" => &[("ms", 1000), ("s", 60), ("min", 60), ("h", 24), ("d", i64::MAX)],
        "s" => &[("s", 60), ("min", 60), ("h", 24), ("d", i64::MAX)],
        "kB" => &[("kB", 1024), ("MB", 1024), ("GB", 1024), ("TB", i64::MAX)],
        "MB" => &[("MB", 1024), ("GB", 1024), ("TB", i64::MAX)],
        _ => return value.to_string(),
    };
    let mut number: i64 = value.parse().expect("a setting with a unit is a number");
    for (unit, next) in units {
        if number == 0 || number % next != 0 {
            return if number == 0 { "0".into() } else { format!("{number} {unit}") };
        }
        number /= next;
    }
    unreachable!("the last unit has no next one")
}

/// The page with each of its parts as it has to be, and the names of parts that it does not have or should not have.
fn rewritten(page: &str, parts: &Parts) -> (String, Vec<String>) {
    let (mut text, mut wrong, mut seen) = (String::new(), Vec::new(), Vec::new());
    let mut pieces = page.split(BEGIN);
    text.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let (name, rest) = piece.split_once(" -->\n").expect("a part has a name");
        let (_, after) = rest.split_once(END).unwrap_or_else(|| panic!("part {name} has no end"));
        match parts.get(name) {
            Some(part) if !seen.contains(&name) => {
                write!(text, "{BEGIN}{name} -->\n{part}{END}{after}").unwrap();
            }
            _ => wrong.push(format!("{name} is not in the catalog, or stands on the page twice")),
        }
        seen.push(name);
    }
    let missing = parts.keys().filter(|name| !seen.contains(&name.as_str()));
    wrong.extend(missing.map(|name| format!("{name} is not on the page")));
    (text, wrong)
}

#[test]
fn the_reference_says_what_the_catalog_says() {
    let cluster = Cluster::start();
    let parts = parts(&mut cluster.database("catalog"));
    let page = pages::read(PAGE);
    let (text, wrong) = rewritten(&page, &parts);
    assert_eq!(wrong, [""; 0], "{PAGE}: add or remove {BEGIN}.. --> and {END}");
    if std::env::var("EMBEDD_DOCS_ACCEPT").is_ok_and(|value| value == "1") {
        fs::write(pages::path(PAGE), text).unwrap();
        return;
    }
    let differs: Vec<(&str, &str)> =
        page.lines().zip(text.lines()).filter(|(is, shall)| is != shall).take(3).collect();
    assert!(
        page == text,
        "{PAGE} differs from the catalog (EMBEDD_DOCS_ACCEPT=1 writes it): {differs:#?}"
    );
}

#[test]
fn a_page_that_differs_from_the_catalog_is_found() {
    let parts = Parts::from([("function f".into(), "F\n".into()), ("view v".into(), "V\n".into())]);
    let page = "# Page\n<!-- catalog: function f -->\nF\n<!-- end -->\nby hand\n<!-- catalog: view v -->\nV\n<!-- end -->\n";
    assert_eq!(rewritten(page, &parts), (page.to_string(), Vec::new()));
    let (text, wrong) = rewritten(&page.replace("\nV\n", "\nW\n"), &parts);
    assert!(text == page && wrong.is_empty(), "{text} {wrong:?}");
    let (_, wrong) = rewritten(&page.replace("view v", "view w"), &parts);
    assert_eq!(
        wrong,
        ["view w is not in the catalog, or stands on the page twice", "view v is not on the page"]
    );
    let (_, wrong) = rewritten(&page.replace("view v", "function f"), &parts);
    assert_eq!(wrong.len(), 2, "{wrong:?}");
}
