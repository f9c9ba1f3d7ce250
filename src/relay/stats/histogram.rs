//! Histograms of durations: plain counters, one addition for however many that are alike.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How many durations were how long.
#[derive(Debug)]
pub struct Histogram {
    /// Upper bounds of all cells but the last, in microseconds, ascending.
    bounds: &'static [u64],
    cells: Box<[AtomicU64]>,
    sum_micros: AtomicU64,
}

impl Histogram {
    /// With cells up to these durations, in microseconds, ascending, and one for what is longer.
    pub fn new(bounds: &'static [u64]) -> Self {
        let cells = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, cells, sum_micros: AtomicU64::new(0) }
    }

    /// Counts `times` durations of so many microseconds.
    pub fn observe(&self, micros: u64, times: u64) {
        let cell = self.bounds.partition_point(|bound| *bound < micros);
        self.cells[cell].fetch_add(times, Relaxed);
        self.sum_micros.fetch_add(micros.saturating_mul(times), Relaxed);
    }

    /// For each cell, its upper bound in microseconds (`None` for the last) and how many were that long or shorter.
    pub fn cumulated(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = self.bounds.iter().copied().map(Some).chain([None]);
        let counts = self.cells.iter().scan(0, |sum, cell| {
            *sum += cell.load(Relaxed);
            Some(*sum)
        });
        bounds.zip(counts)
    }

    /// All durations together, in microseconds.
    pub fn sum_micros(&self) -> u64 {
        self.sum_micros.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_durations_when_counted_then_each_is_in_the_first_cell_that_it_fits() {
        let histogram = Histogram::new(&[10, 100]);
        for (micros, times) in [(0, 2), (10, 1), (11, 4), (100, 1), (101, 3)] {
            histogram.observe(micros, times);
        }
        let cells: Vec<_> = histogram.cumulated().collect();
        assert_eq!(cells, [(Some(10), 3), (Some(100), 8), (None, 11)]);
        assert_eq!(histogram.sum_micros(), 10 + 44 + 100 + 303);
    }
}
