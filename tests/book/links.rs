//! Links: none leads nowhere, and the book has every page.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use regex::Regex;

use crate::page::{Page, beside, book, root};

/// What a page links to.
fn targets(page: &Page) -> Vec<String> {
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let code = Regex::new("`[^`]*`").unwrap();
    let prose = page.prose.iter().map(|line| code.replace_all(line, "code").into_owned());
    prose.flat_map(|line| link.captures_iter(&line).map(|found| found[1].to_owned()).collect::<Vec<_>>()).collect()
}

/// A relative target from the package's folder.
fn resolved(page: &Page, target: &str) -> PathBuf {
    let mut path = page.path.parent().unwrap().to_owned();
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir => assert!(path.pop(), "{} links out of the package: {target}", page.path.display()),
            part => path.push(part),
        }
    }
    path
}

#[test]
fn the_summary_has_every_page_once() {
    let summary = Page::read(Path::new("docs/SUMMARY.md"));
    let mut listed: Vec<_> = targets(&summary).iter().map(|target| resolved(&summary, target)).collect();
    listed.sort();
    let pages: Vec<_> = book().into_iter().map(|page| page.path).collect();
    let missing: Vec<_> = pages.iter().filter(|page| !listed.contains(page)).collect();
    assert!(missing.is_empty(), "docs/SUMMARY.md wants a line for each of {missing:?}");
    let gone: Vec<_> = listed.iter().filter(|page| !pages.contains(page)).collect();
    assert!(gone.is_empty(), "docs/SUMMARY.md lists what is not there: {gone:?}");
    assert_eq!(listed, pages, "and each of them once");
}

#[test]
fn every_link_leads_somewhere() {
    let book = book();
    let inside: Vec<_> = book.iter().map(|page| page.path.clone()).collect();
    let pages: BTreeMap<_, _> = book.into_iter().chain(beside()).map(|page| (page.path.clone(), page)).collect();
    let mut wrong = Vec::new();
    let mut count = 0;
    for page in pages.values() {
        for target in targets(page) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            count += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let path = if file.is_empty() { page.path.clone() } else { resolved(page, file) };
            let has_anchor = || pages.get(&path).is_some_and(|page| page.anchors().iter().any(|found| found == anchor));
            // The site has the shipped files beside its pages: `make book`.
            let leaves = inside.contains(&page.path) && !["docs", "config"].iter().any(|kept| path.starts_with(kept));
            let why = if leaves {
                "leads out of the site: name the file instead"
            } else if !root().join(&path).exists() {
                "no such file"
            } else if !anchor.is_empty() && !has_anchor() {
                "no such heading"
            } else {
                continue;
            };
            wrong.push(format!("{}: {target}: {why}", page.path.display()));
        }
    }
    assert!(count > 100, "links are found: {count}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `{{#include FILE}}` and `{{#include FILE:ANCHOR}}`, which mdBook leaves as they are where it does not find them.
#[test]
fn every_include_has_its_file_and_its_anchor() {
    let include = Regex::new(r"\{\{#include ([^}:]+)(?::([a-z_]+))?\}\}").unwrap();
    let mut count = 0;
    for page in book() {
        for block in &page.blocks {
            for found in include.captures_iter(&block.text) {
                let path = resolved(&page, &found[1]);
                let text =
                    std::fs::read_to_string(root().join(&path)).unwrap_or_else(|_| panic!("no {}", path.display()));
                if let Some(anchor) = found.get(2) {
                    for mark in ["ANCHOR", "ANCHOR_END"] {
                        let mark = format!("{mark}: {}\n", anchor.as_str());
                        assert!(text.contains(&mark), "{} has no {mark}", path.display());
                    }
                }
                count += 1;
            }
        }
    }
    assert!(count > 5, "includes are found: {count}");
}
