//! What the documents list is what the code has: every halt and every metric stands in docs/operations.md.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use regex::Regex;

/// The source below a folder, without tests.
fn source(folder: &Path, into: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if !["tests", "testing", "history"].contains(&name) {
                source(&path, into);
            }
        } else if name != "tests.rs" {
            let text = fs::read_to_string(&path).unwrap();
            into.push_str(text.split("#[cfg(test)]\nmod tests {").next().unwrap());
        }
    }
}

/// What the code names by these patterns and the page does not explain in a table.
fn undocumented(patterns: &[&str]) -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    source(&root.join("src"), &mut code);
    let page = fs::read_to_string(root.join("docs/operations.md")).unwrap();
    let first_cells: String =
        page.lines().filter(|line| line.starts_with("| `")).map(|line| line.split(" | ").next().unwrap()).collect();
    let mut names = BTreeSet::new();
    for pattern in patterns {
        let before = names.len();
        names.extend(Regex::new(pattern).unwrap().captures_iter(&code).map(|found| found[1].to_owned()));
        assert!(names.len() > before, "nothing is found by {pattern}: has the code another form now?");
    }
    names.retain(|name| !first_cells.contains(&format!("`{name}`")));
    names
}

#[test]
fn every_halt_has_its_cure() {
    let patterns = [
        r#"(?:Fault|Halt) \{\s*name: "([a-z_]+)""#,
        r#"\bfault\(\s*"([a-z_]+)""#,
        r#"\bdefinite\(\s*"([a-z_]+)""#,
        r#"StoreError::[^=]+=> "([a-z_]+)""#,
    ];
    assert_eq!(undocumented(&patterns), BTreeSet::new());
}

#[test]
fn every_metric_is_explained() {
    assert_eq!(undocumented(&[r#"(?:counter|gauge|seconds|single|new)\(\s*"(outboxd_[a-z_]+)""#]), BTreeSet::new());
}
