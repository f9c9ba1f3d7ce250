//! What real servers write into their binlogs, read through the source and compared with what the server answers.
//!
//! One server of each flavour serves all cases of this folder; every case has tables of its own.

mod columns;
mod decode;
mod events;
mod json;
mod login;
mod mariadb;
mod scans;
mod shop;
mod xa;
