//! The daemon between a real MySQL and a real Kafka, judged by the history checker.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod check;
mod contract;
mod crashes;
mod demo;
mod migrate;
mod outages;
mod ownership;
mod stage;
mod status;
mod stops;
