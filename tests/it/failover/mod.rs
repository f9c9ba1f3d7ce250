//! Failovers between real servers that replicate, under load, judged by the history checker.

mod cluster;
mod mariadb;
mod mysql;
mod replicas;
