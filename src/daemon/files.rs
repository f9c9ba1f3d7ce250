//! Files that clients are made with, and when they have changed.
//!
//! Promise: files that are still being written are not taken for new ones. Nothing of what is in them is read here.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// What tells a file from the one that was there before, without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

/// Some files, as they were when somebody looked.
#[derive(Debug)]
pub(super) struct Files {
    paths: Vec<PathBuf>,
    /// As they are in use.
    known: Vec<Option<Mark>>,
    /// As they were at the last look.
    seen: Vec<Option<Mark>>,
}

impl Files {
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        let known = marks(&paths);
        Self { seen: known.clone(), known, paths }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Whether they are others than those in use, and have been so for two looks. From then on these are in use.
    pub(super) fn have_changed(&mut self) -> bool {
        let now = marks(&self.paths);
        let settled = now == self.seen;
        self.seen = now;
        if settled && self.seen != self.known {
            self.known.clone_from(&self.seen);
            return true;
        }
        false
    }
}

fn marks(paths: &[PathBuf]) -> Vec<Option<Mark>> {
    let mark = |path: &PathBuf| {
        // Of what a link leads to: secrets that are mounted change by another link.
        let found = std::fs::metadata(path).ok()?;
        Some(Mark { inode: found.ino(), size: found.size(), changed: (found.ctime(), found.ctime_nsec()) })
    };
    paths.iter().map(mark).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::{remove_file, rename, write};
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_counts_as_another_once_it_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let [cert, next, link] = ["cert", "next", "link"].map(|name| folder.path().join(name));
        write(&cert, "one").unwrap();
        symlink(&cert, &link).unwrap();
        let mut files = Files::new(vec![link.clone(), folder.path().join("absent")]);
        assert!(!files.have_changed());
        for _ in 0..2 {
            write(&next, "two").unwrap();
            rename(&next, &cert).unwrap();
            assert!(!files.have_changed(), "somebody may still be at it");
            assert!(files.have_changed());
            assert!(!files.have_changed());
        }
        write(&next, "six").unwrap();
        remove_file(&link).unwrap();
        symlink(&next, &link).unwrap();
        assert_eq!([files.have_changed(), files.have_changed(), files.have_changed()], [false, true, false]);
        assert!(Files::new(Vec::new()).is_empty());
    }
}
