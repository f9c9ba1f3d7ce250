//! What cures a halt, in the words of docs/operations.md, so that who looks at a halted table need not look it up.

/// A line each: the halt's name, a colon, its cure. Made of the page's table by the test below.
const CURES: &str = include_str!("cures.txt");

/// The cure of a halt that a table tells as `name: detail`.
pub(super) fn of(reason: &str) -> Option<&'static str> {
    let (halt, _) = reason.split_once(": ")?;
    CURES.lines().filter_map(|line| line.split_once(": ")).find(|(name, _)| *name == halt).map(|(_, cure)| cure)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use regex::{Captures, Regex};

    use super::*;

    /// Words without marks; a link to a section becomes its title.
    fn plain(marked: &str) -> String {
        let link = Regex::new(r"\[([^\]]+)\]\(([^)#]*)(?:#([^)]*))?\)").unwrap();
        let worded = link.replace_all(marked, |found: &Captures<'_>| {
            let (text, page) = (&found[1], if found[2].is_empty() { "operations.md" } else { &found[2] });
            let page = format!("docs/{}", page.trim_start_matches("docs/")).replace("docs/../", "");
            match found.get(3).map(|section| section.as_str().replace('-', " ")) {
                Some(section) if text == "below" => format!("“{section}” in {page}"),
                Some(section) => format!("{text} (“{section}” in {page})"),
                None => format!("{text} ({page})"),
            }
        });
        worded.replace(['`', '*'], "")
    }

    fn of_page(page: &str) -> String {
        let table = page.split("\n## ").find(|section| section.starts_with("Halts\n")).unwrap();
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
        let cures = rows.flat_map(|row| {
            let (names, rest) = row.split_once("` | ").unwrap();
            let cure = plain(rest.rsplit_once(" | ").unwrap().1);
            names.split("`, `").map(move |name| format!("{name}: {cure}\n"))
        });
        cures.collect()
    }

    #[test]
    fn cures_are_those_of_the_page() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let cures = of_page(&std::fs::read_to_string(root.join("docs/operations.md")).unwrap());
        if std::env::var_os("OUTBOXD_WRITE_CURES").is_some() {
            std::fs::write(root.join("src/admin/cures.txt"), &cures).unwrap();
        }
        let is_same = std::fs::read_to_string(root.join("src/admin/cures.txt")).unwrap() == cures;
        assert!(is_same, "docs/operations.md has changed: OUTBOXD_WRITE_CURES=1 cargo test --lib cures");
    }

    #[test]
    fn a_halt_has_its_cure_and_what_is_none_has_not() {
        assert_eq!(of("topic_missing: topic `x` is not there"), Some("create it"));
        assert_eq!(of("position_purged: ?"), Some("see “a position was purged” in docs/operations.md"));
        assert_eq!(of("record_format: ?"), of("policy_violation: ?"));
        assert_eq!((of("by ann at 12:00: the topic moves"), of("fenced")), (None, None));
    }
}
