//! A page of Markdown, as far as the tests read it.

use std::fs;
use std::path::{Path, PathBuf};

/// The folder of the package.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A fenced block.
pub(crate) struct Block {
    /// What stands behind the fence.
    pub(crate) language: String,
    pub(crate) text: String,
    /// The comment in front of it, `<!-- MARK: why -->`: `not run`.
    pub(crate) mark: Option<String>,
}

/// One page.
pub(crate) struct Page {
    /// From the package's folder.
    pub(crate) path: PathBuf,
    /// The lines outside of fenced blocks.
    pub(crate) prose: Vec<String>,
    pub(crate) blocks: Vec<Block>,
}

impl Page {
    pub(crate) fn read(path: &Path) -> Self {
        let text = fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // A block within a list is as far in as what opens it.
        let (mut prose, mut blocks, mut open, mut indent) = (Vec::new(), Vec::new(), None::<Block>, "");
        for line in text.lines() {
            match (line.trim_start().strip_prefix("```"), &mut open) {
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(language), None) => {
                    indent = &line[..line.len() - line.trim_start().len()];
                    let before = prose.iter().rev().find(|line: &&String| !line.is_empty());
                    let mark = before.and_then(|line| line.strip_prefix("<!-- ")?.split_once(':'));
                    let mark = mark.map(|(mark, _)| mark.to_owned());
                    open = Some(Block { language: language.to_owned(), text: String::new(), mark });
                }
                (None, Some(block)) => block.text.extend([line.strip_prefix(indent).unwrap_or(line), "\n"]),
                (None, None) => prose.push(line.to_owned()),
            }
        }
        assert!(open.is_none(), "{}: a block is not closed", path.display());
        Self { path: path.to_owned(), prose, blocks }
    }

    /// What the headings can be linked by.
    pub(crate) fn anchors(&self) -> Vec<String> {
        let headings = self
            .prose
            .iter()
            .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')));
        headings.map(anchor).collect()
    }
}

/// As mdBook and GitHub make it of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|char| char.is_alphanumeric() || [' ', '-', '_'].contains(char));
    kept.map(|char| if char == ' ' { '-' } else { char }).collect()
}

/// Every page of the book but its summary, sorted.
pub(crate) fn book() -> Vec<Page> {
    let mut paths = Vec::new();
    below(&root().join("docs"), &mut paths);
    paths.retain(|path| path.file_name().is_some_and(|name| name != "SUMMARY.md"));
    paths.sort();
    paths.iter().map(|path| Page::read(path.strip_prefix(root()).unwrap())).collect()
}

fn below(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            below(&path, paths);
        } else if path.extension().is_some_and(|end| end == "md") {
            paths.push(path);
        }
    }
}

/// The pages beside the book that people read.
pub(crate) fn beside() -> Vec<Page> {
    ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "scripts/README.md"].map(|path| Page::read(Path::new(path))).into()
}
