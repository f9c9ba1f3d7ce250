//! MySQL and MariaDB: the log as a source, and the position store in a table.

mod anonymous;
pub mod archive;
pub mod cleanup;
mod collations;
pub mod connect;
pub mod decode;
mod definition;
pub mod error;
pub mod files;
mod history;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod hostile;
mod indexes;
pub mod migrate;
mod owned;
pub mod preflight;
pub mod retention;
pub mod scan;
pub mod servers;
pub mod settings;
mod snapshot;
mod source;
mod statement;
mod store;
mod stream;
mod tables;
pub mod tls;
mod wire;

pub use snapshot::MysqlScan;
pub use source::MysqlSource;
pub use store::MysqlStore;
