//! From a row to a record: pure, without I/O.
//!
//! Promise: the payload leaves as it was committed, byte for byte (JSON columns as JSON text); a row that cannot become
//! a record is an error that names the column, never a record with something missing.

mod mapping;
mod record;
mod settings;
mod timestamp;

pub use mapping::{Mapping, MappingError};
pub use record::{Header, Record};
pub use settings::{Columns, HeaderColumn, STANDARD_HEADERS, TopicTemplate, TopicTemplateError};
