//! Binlog files that real servers wrote (`tests/data`), and what they must yield: what the server answered to a SELECT of
//! the same rows, and what other decoders read.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod capture;
mod cases;
mod decode;
mod oracle;
