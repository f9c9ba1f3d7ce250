//! Fuzz targets: each runs one of [`Target::ALL`] on what libFuzzer comes up with, and holds it to its promise.
//! `make fuzz`

use outboxd::mysql::hostile::Target;
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Runs a target. Panics if it does, or if it holds more memory than the input can account for.
pub fn run(name: &str, bytes: &[u8]) {
    let target = Target::named(name).expect("a target of this name");
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    (target.run)(bytes);
    let held = MEMORY.peak_usage().saturating_sub(before);
    let most = target.most(bytes.len());
    assert!(held <= most, "{held} bytes of memory were held for {} of input, which accounts for {most}", bytes.len());
}
