//! Failovers between real servers that replicate, under load, judged by the history checker.

mod clones;
mod cluster;
mod group;
mod mariadb;
mod mysql;
mod replicas;
