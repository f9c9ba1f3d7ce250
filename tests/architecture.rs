//! The direction between the rooms, as the source has it: a room uses only what it may, and no two use each other in a
//! circle. A room is a first path segment of the crate; what only tests use does not count.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "architecture/matrix.rs"]
mod matrix;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Ident, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, Meta, UseTree};

/// Who may use whom. Where a line says more than the picture of the crate, it says why.
const ALLOWED: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    // Subcommands read the configuration, run the daemon, and answer questions about servers and positions.
    (
        "cli",
        &[
            "admin",
            "config",
            "credentials",
            "daemon",
            "debezium",
            "demo",
            "kafka",
            "mysql",
            "outbox",
            "position",
            "preflight",
            "relay",
            "source",
            "status",
            "table",
            "telemetry",
            "terminal",
            "verify",
        ],
    ),
    (
        "daemon",
        &[
            "admin",
            "config",
            "kafka",
            "mysql",
            "outbox",
            "outlet",
            "position",
            "preflight",
            "relay",
            "source",
            "table",
            "telemetry",
            "verify",
        ],
    ),
    ("credentials", &[]),
    ("debezium", &["position"]),
    // The settings of each room, and the table patterns they are checked against.
    ("config", &["admin", "kafka", "mysql", "outbox", "relay", "table", "telemetry"]),
    // Rows of the log are put together as relays put them together.
    ("verify", &["position", "relay", "source"]),
    ("relay", &["outbox", "outlet", "planted", "position", "size", "source", "table"]),
    // Column mappings are checked by name against what a server has.
    ("mysql", &["credentials", "outbox", "planted", "position", "preflight", "source", "table"]),
    ("kafka", &["credentials", "outbox", "outlet", "planted", "position", "preflight", "size", "table"]),
    // A row is what the source seam gives; mapping it is what this room is for.
    ("outbox", &["source", "table"]),
    ("source", &["position", "table"]),
    // What is published is a record.
    ("outlet", &["outbox", "position"]),
    // A position is kept under its table's name.
    ("position", &["planted", "table"]),
    // Bugs on purpose stand where they would be; a usual build has none.
    ("planted", &[]),
    ("preflight", &["table"]),
    ("size", &[]),
    ("table", &[]),
    // It exports what relays, and the seams at both ends, tell of themselves, which are plain values.
    // What a log line may hold is what a terminal may.
    ("telemetry", &["outlet", "position", "relay", "source", "table", "terminal"]),
    // It shows metrics, and carries orders to relays.
    ("admin", &["credentials", "position", "relay", "table", "telemetry"]),
    ("history", &["table"]),
    ("services", &[]),
    // It reads what the daemon answers; the forms are those of the admin listener.
    ("status", &["admin", "credentials", "position", "table", "terminal"]),
    ("terminal", &[]),
    ("demo", &["admin", "config", "history", "services", "status", "table", "terminal"]),
    ("testing", &["outbox", "outlet", "planted", "position", "source", "table"]),
];

/// One use of a room by another.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    from: String,
    to: String,
    file: PathBuf,
    line: usize,
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {} uses {}", self.file.display(), self.line, self.from, self.to)
    }
}

/// Walks one file's items.
struct Walk<'e> {
    file: PathBuf,
    /// The module's path from the crate's root; the first segment is the room.
    module: Vec<String>,
    /// Inner modules that have a file of their own.
    files: Vec<(Vec<String>, Option<PathBuf>)>,
    edges: &'e mut Vec<Edge>,
}

impl Walk<'_> {
    /// Notes the room that an absolute or relative path leads to.
    fn path(&mut self, segments: &[&Ident]) {
        let Some(first) = segments.first() else { return };
        let to = match first.to_string().as_str() {
            "crate" | "outboxd" => segments.get(1).map(ToString::to_string),
            "super" => {
                let up = segments.iter().take_while(|segment| **segment == "super").count();
                match self.module.len().checked_sub(up) {
                    Some(0) => segments.get(up).map(ToString::to_string),
                    _ => None,
                }
            }
            _ => None,
        };
        let (Some(to), Some(from)) = (to, self.module.first()) else { return };
        if to != *from {
            let line = first.span().start().line;
            self.edges.push(Edge { from: from.clone(), to, file: self.file.clone(), line });
        }
    }

    fn tree<'t>(&mut self, prefix: &mut Vec<&'t Ident>, tree: &'t UseTree) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(&path.ident);
                self.tree(prefix, &path.tree);
                prefix.pop();
            }
            UseTree::Group(group) => group.items.iter().for_each(|item| self.tree(prefix, item)),
            UseTree::Name(name) => self.leaf(prefix, &name.ident),
            UseTree::Rename(rename) => self.leaf(prefix, &rename.ident),
            UseTree::Glob(_) => self.path(prefix),
        }
    }

    fn leaf<'t>(&mut self, prefix: &mut Vec<&'t Ident>, ident: &'t Ident) {
        prefix.push(ident);
        self.path(prefix);
        prefix.pop();
    }

    /// Paths within the arguments of a macro, which are not parsed: `crate :: room`.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        for (index, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(root) if root == "crate" => {
                    if let Some(TokenTree::Ident(room)) = tokens.get(index + 3) {
                        self.path(&[root, room]);
                    }
                }
                _ => {}
            }
        }
    }
}

fn only_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => list.tokens.to_string() == "test",
        _ => false,
    })
}

/// `#[path = "…"]` of a module.
fn path_of(attributes: &[Attribute]) -> Option<PathBuf> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value().into()),
            _ => None,
        },
        _ => None,
    })
}

impl<'ast> Visit<'ast> for Walk<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !only_for_tests(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.module.push(item.ident.to_string());
        if item.content.is_some() {
            visit::visit_item_mod(self, item);
        } else {
            self.files.push((self.module.clone(), path_of(&item.attrs)));
        }
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&mut Vec::new(), &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.path(&path.segments.iter().map(|segment| &segment.ident).collect::<Vec<_>>());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}
}

/// The edges in one source text; and which files its modules are in.
fn read(text: &str, file: &Path, module: &[String], edges: &mut Vec<Edge>) -> Vec<(Vec<String>, Option<PathBuf>)> {
    let parsed = syn::parse_file(text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut walk = Walk { file: file.to_owned(), module: module.to_vec(), files: Vec::new(), edges };
    walk.visit_file(&parsed);
    walk.files
}

/// Reads a file and the modules under it.
fn follow(root: &Path, file: &Path, module: &[String], edges: &mut Vec<Edge>) {
    let text = fs::read_to_string(root.join(file)).unwrap();
    for (module, path) in read(&text, file, module, edges) {
        let folder = if let Some(path) = path {
            vec![file.parent().unwrap().join(path)]
        } else {
            let stem: PathBuf = ["src"].into_iter().chain(module.iter().map(String::as_str)).collect();
            vec![stem.with_extension("rs"), stem.join("mod.rs")]
        };
        let found = folder.iter().find(|file| root.join(file).exists());
        follow(root, found.unwrap_or_else(|| panic!("module {module:?} has no file")), &module, edges);
    }
}

/// Edges that are not allowed.
fn forbidden(edges: &[Edge]) -> Vec<String> {
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    let may = |edge: &&Edge| allowed.get(edge.from.as_str()).is_some_and(|rooms| rooms.contains(&edge.to.as_str()));
    edges.iter().filter(|edge| !may(edge)).map(ToString::to_string).collect()
}

/// A circle of rooms, if there is one.
fn circle(edges: &[Edge]) -> Option<Vec<&str>> {
    let mut uses: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for edge in edges {
        uses.entry(&edge.from).or_default().insert(&edge.to);
    }
    // Rooms that use nothing that is left cannot be in a circle.
    loop {
        let rooms: BTreeSet<&str> = uses.keys().copied().collect();
        for used in uses.values_mut() {
            used.retain(|room| rooms.contains(room));
        }
        let before = uses.len();
        uses.retain(|_, used| !used.is_empty());
        if uses.len() == before {
            break;
        }
    }
    let mut walked: Vec<&str> = vec![uses.keys().next()?];
    loop {
        let next = *uses[walked[walked.len() - 1]].first()?;
        if let Some(begin) = walked.iter().position(|room| *room == next) {
            return Some(walked.split_off(begin));
        }
        walked.push(next);
    }
}

fn edges_of_this_crate() -> Vec<Edge> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut edges = Vec::new();
    follow(root, Path::new("src/lib.rs"), &[], &mut edges);
    follow(root, Path::new("src/main.rs"), &["main".to_owned()], &mut edges);
    edges
}

#[test]
fn rooms_use_only_what_they_may() {
    let edges = edges_of_this_crate();
    assert!(edges.len() > 100, "the walk sees the crate: {}", edges.len());
    let forbidden = forbidden(&edges);
    assert!(forbidden.is_empty(), "{}\nsee ALLOWED in tests/architecture.rs", forbidden.join("\n"));
}

#[test]
fn rooms_do_not_use_each_other_in_a_circle() {
    assert_eq!(circle(&edges_of_this_crate()), None);
    let written: Vec<_> = ALLOWED.iter().flat_map(|(from, rooms)| rooms.iter().map(|to| edge(from, to))).collect();
    assert_eq!(circle(&written), None, "nor may they");
}

fn edge(from: &str, to: &str) -> Edge {
    Edge { from: from.to_owned(), to: to.to_owned(), file: PathBuf::new(), line: 0 }
}

#[test]
fn a_room_that_uses_what_it_may_not_is_found_however_it_is_written() {
    let text = r#"
use crate::{position::Position, kafka::Producer};
use super::super::mysql as database;
use super::queue;
mod inner { use super::super::super::telemetry::admin; }
fn go() { crate::daemon::run(); tracing::warn!(of = crate::cli::name(), "said"); }
fn kind(of: &dyn crate::history::Kind) {}
#[cfg(test)]
mod tests { use crate::config::Config; }
"#;
    let mut edges = Vec::new();
    read(text, Path::new("src/relay/bad.rs"), &["relay".to_owned(), "bad".to_owned()], &mut edges);
    let found = forbidden(&edges);
    let expected = ["2: relay uses kafka", "3: relay uses mysql", "5: relay uses telemetry", "6: relay uses daemon"];
    let expected = expected.into_iter().chain(["6: relay uses cli", "7: relay uses history"]);
    assert_eq!(found, expected.map(|line| format!("src/relay/bad.rs:{line}")).collect::<Vec<_>>());
}

#[test]
fn a_circle_is_found() {
    let edges = [edge("a", "b"), edge("b", "c"), edge("c", "d"), edge("d", "b"), edge("d", "e")];
    assert_eq!(circle(&edges), Some(vec!["b", "c", "d"]));
    assert_eq!(circle(&edges[..3]), None);
}
