//! The fuzz targets' seeds through the same functions as in fuzzing, with the compiler that everybody has: none panics,
//! and none holds more memory than its bytes account for.
//!
//! The seeds are made out of what real servers wrote: `cargo test --test corpus -- --ignored` writes them anew. An input
//! that fuzzing finds is put beside them, by a name that says what it is.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod seeds;

use std::fs;
use std::path::{Path, PathBuf};

use outboxd::mysql::hostile::Target;
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// One test, for memory is that of the process.
#[test]
fn given_every_seed_when_decoded_then_nothing_panics_and_memory_is_what_the_bytes_account_for() {
    for target in &Target::ALL {
        let mut files: Vec<_> = fs::read_dir(folder(target.name)).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        assert!(files.len() > 3, "{} has too few seeds", target.name);
        for file in files {
            let bytes = fs::read(&file).unwrap();
            let before = MEMORY.current_usage();
            MEMORY.reset_peak_usage();
            (target.run)(&bytes);
            let held = MEMORY.peak_usage().saturating_sub(before);
            assert!(held <= target.most(bytes.len()), "{}: {held} bytes for {}", file.display(), bytes.len());
        }
    }
}

#[test]
#[ignore = "writes into the working tree"]
fn write_seeds() {
    for (target, name, bytes) in seeds::all() {
        fs::create_dir_all(folder(target)).unwrap();
        fs::write(folder(target).join(name), bytes).unwrap();
    }
}
