//! What can be wrong with the bytes.

use super::column::ColumnType;

/// Why bytes could not be decoded. `column` is always the index in the table map, counted from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The event ends before one of its own fields does.
    #[error("{part} is cut short: {needed} bytes are wanted at offset {offset}, {left} are left")]
    Truncated {
        /// What was being read.
        part: &'static str,
        /// Where in it, in bytes.
        offset: usize,
        /// How many bytes the field takes.
        needed: u64,
        /// How many there are.
        left: usize,
    },
    /// The first byte of a length-encoded integer is 251 or 255.
    #[error("{part} holds {byte:#04x} at offset {offset}, which begins no length-encoded integer")]
    BadLength {
        /// What was being read.
        part: &'static str,
        /// Where in it, in bytes.
        offset: usize,
        /// The byte.
        byte: u8,
    },
    /// The event is not one that inserts rows.
    #[error("event type {code} is not a WRITE_ROWS event")]
    NotWriteRows {
        /// The type code of the event's header.
        code: u8,
    },
    /// The event's header says another size than the event has.
    #[error("an event says to be {size} bytes long, and {there} are there")]
    BadEventSize {
        /// What the header says, in bytes.
        size: u32,
        /// How many bytes there are.
        there: usize,
    },
    /// The log uses a checksum that is not known.
    #[error("the log's checksum algorithm {code} is not known")]
    UnknownChecksum {
        /// Its code (`enum_binlog_checksum_alg`).
        code: u8,
    },
    /// An event is not what was written.
    #[error("an event's checksum is {written:#010x} and should be {found:#010x}")]
    BadChecksum {
        /// The one in the event.
        written: u32,
        /// The one of the bytes that are there.
        found: u32,
    },
    /// A part that `MariaDB` has compressed cannot be expanded (`log_bin_compress`).
    #[error("a compressed event cannot be expanded: {problem}")]
    BadCompression {
        /// What is wrong.
        problem: &'static str,
    },
    /// A compressed transaction cannot be expanded (`binlog_transaction_compression`).
    #[error("a compressed transaction cannot be expanded: {problem}")]
    BadPayload {
        /// What is wrong.
        problem: &'static str,
    },
    /// A GTID event is malformed.
    #[error("a GTID event is malformed: {problem}")]
    BadGtid {
        /// What is wrong.
        problem: &'static str,
    },
    /// The length of the extra data of a rows event leaves no room for itself.
    #[error("the extra data of a rows event says to be {length} bytes long, with 2 for the length itself")]
    BadExtraData {
        /// What the event says, in bytes.
        length: u16,
    },
    /// A schema or table name is not UTF-8.
    #[error("the {part} is not UTF-8")]
    BadName {
        /// Which name.
        part: &'static str,
    },
    /// The table map has a column of a type that is not known, so nothing behind it can be found.
    #[error("column {column} is of type {code}, which is not known")]
    UnknownType {
        /// Which column.
        column: usize,
        /// The type code.
        code: u8,
    },
    /// A column's metadata contradict its type.
    #[error("column {column} is of type {ty} with metadata {meta:#06x}, which make no sense together")]
    BadMetadata {
        /// Which column.
        column: usize,
        /// Its type.
        ty: ColumnType,
        /// The metadata.
        meta: u16,
    },
    /// A field of the optional metadata does not fit the columns.
    #[error("the {field} field of the table map does not fit its {columns} columns")]
    BadOptionalMetadata {
        /// The field, as the server's source calls it.
        field: &'static str,
        /// How many columns the table has.
        columns: usize,
    },
    /// The rows belong to another table map.
    #[error("rows of table {rows_id} with {rows_columns} columns do not fit table {table_id} with {table_columns}")]
    WrongTable {
        /// Table id of the rows.
        rows_id: u64,
        /// Number of columns of the rows.
        rows_columns: usize,
        /// Table id of the table map.
        table_id: u64,
        /// Number of columns of the table map.
        table_columns: usize,
    },
    /// The image lists no columns, so it cannot be told how many rows there are.
    #[error("the row image of table {table_id} has no columns (binlog_row_image must be FULL)")]
    EmptyImage {
        /// Table id of the rows.
        table_id: u64,
    },
    /// A row ends before one of its values does.
    #[error("column {column} ({ty}) is cut short: {needed} bytes are wanted, {left} are left")]
    ValueTruncated {
        /// Which column.
        column: usize,
        /// Its type.
        ty: ColumnType,
        /// How many bytes the value takes.
        needed: usize,
        /// How many there are.
        left: usize,
    },
    /// The bytes are no value of their type.
    #[error("column {column} ({ty}) holds bytes that are no value of its type")]
    BadValue {
        /// Which column.
        column: usize,
        /// Its type.
        ty: ColumnType,
    },
    /// There is no text form for the type.
    #[error("column {column} is of type {ty}, which is not supported")]
    UnsupportedType {
        /// Which column.
        column: usize,
        /// Its type.
        ty: ColumnType,
    },
    /// Nobody said whether the integer is signed: neither the optional metadata nor the caller.
    #[error("whether column {column} ({ty}) is UNSIGNED is not known")]
    UnknownSignedness {
        /// Which column.
        column: usize,
        /// Its type.
        ty: ColumnType,
    },
    /// Nobody said which character set the text is in: neither the optional metadata nor the caller.
    #[error("the collation of column {column} ({ty}) is not known")]
    UnknownCollation {
        /// Which column.
        column: usize,
        /// Its type.
        ty: ColumnType,
    },
    /// The text is in a character set that cannot be converted.
    #[error("column {column} ({ty}) has collation {collation}, whose character set is not supported")]
    UnsupportedCollation {
        /// Which column.
        column: usize,
        /// Its type.
        ty: ColumnType,
        /// The collation's id, as `information_schema.collations` has it.
        collation: u16,
    },
    /// A JSON document is malformed.
    #[error("column {column} holds malformed binary JSON: {problem}")]
    BadJson {
        /// Which column.
        column: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// A JSON document is nested more deeply than the server allows.
    #[error("column {column} holds JSON nested more than {limit} levels deep")]
    JsonTooDeep {
        /// Which column.
        column: usize,
        /// The limit.
        limit: usize,
    },
}
