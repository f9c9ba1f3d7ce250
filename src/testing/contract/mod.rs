//! What each seam promises, as checks that run over every implementation, in memory and real. A broken promise panics.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a check fails by panicking")]

pub mod outlet;
pub mod source;
pub mod store;

#[cfg(test)]
mod tests;
