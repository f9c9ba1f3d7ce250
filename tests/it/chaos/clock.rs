//! A wall clock that jumps, for the daemon alone.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::{NamedTempFile, TempDir};

/// The library that is preloaded, and the offset that it reads.
pub(super) struct Clock {
    _dir: TempDir,
    library: PathBuf,
    offset: NamedTempFile,
}

impl Clock {
    /// Compiles the library.
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let library = dir.path().join("clock.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/chaos/clock.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O2", "-o"]).arg(&library).arg(source).arg("-ldl");
        assert!(cc.status().unwrap().success());
        let clock = Self { _dir: dir, library, offset: NamedTempFile::new().unwrap() };
        clock.jump(0);
        clock
    }

    /// The process of the command goes by this clock.
    pub(super) fn rule(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("CHAOS_CLOCK", self.offset.path());
    }

    /// So many seconds off.
    pub(super) fn jump(&self, seconds: i64) {
        self.offset.as_file().write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }
}
