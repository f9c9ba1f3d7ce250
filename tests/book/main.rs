//! The documents as one book: every page is in it, every link and anchor leads somewhere, every command is one, and so
//! is every key.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod commands;
mod configuration;
mod links;
mod page;
