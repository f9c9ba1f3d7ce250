//! From a row to a record: pure, without I/O.
//!
//! Promise: the payload leaves as it was committed, byte for byte (JSON columns as JSON text); a row that cannot become
//! a record is an error that names the column, never a record with something missing.

pub mod aside;
mod cloudevents;
mod mapping;
mod murmur2;
mod record;
mod settings;
mod shard;
mod timestamp;
mod topic;
mod value;

pub use aside::{Aside, OnPoison};
pub use cloudevents::CloudEvents;
pub use mapping::{Mapping, MappingError};
pub use murmur2::murmur2;
pub use record::{AGAIN_HEADERS, Header, REPAIR_HEADER, REPLAY_HEADER, Record, SNAPSHOT_HEADER};
pub use settings::{Columns, HeaderColumn, STANDARD_HEADERS, TAKEN_HEADERS};
pub use shard::{ShardRule, ShardRuleError};
pub use topic::{TopicTemplate, TopicTemplateError};
pub use value::PayloadFormat;
