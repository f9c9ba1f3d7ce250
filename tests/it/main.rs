//! The daemon between a real MySQL and a real Kafka, judged by the history checker.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "seeds and logs of what fails")]

mod account;
mod admin_tls;
mod binlog;
mod browser;
mod certificates;
mod chaos;
mod check;
mod cleanup;
mod contract;
mod crashes;
mod daemon;
mod demo;
mod detach;
mod encryption;
mod exactly_once;
mod failover;
mod gtids;
mod hand;
mod hostile;
mod import_debezium;
mod kafka_admin;
mod kafka_cluster;
mod kafka_security;
mod kafka_topics;
mod mariadb;
mod memory;
mod migrate;
mod monitoring;
mod names;
mod network;
mod nights;
mod openapi;
mod order;
mod outages;
mod ownership;
#[path = "../book/page.rs"]
#[allow(dead_code, reason = "links and headings are for tests/book")]
mod page;
mod pages;
mod poison;
mod proxy;
mod recovery;
mod refusals;
mod reload;
mod rotation;
mod routing;
mod secrets;
mod service_manager;
mod shards;
mod sizes;
mod snapshot;
#[cfg(feature = "otel")]
mod spans;
mod stage;
mod startup;
mod statements;
mod status;
mod status_page;
mod stops;
mod tls;
mod verify;
mod writing;
