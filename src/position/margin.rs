//! How far a position is from being purged.

/// What the log still keeps for one position. What is not known, or never comes, is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Margin {
    /// Seconds until the server may delete what comes after the position; 0 when it may do so at any moment.
    pub seconds: Option<u64>,
    /// Bytes that may still be written before it does, where the server bounds the log's size.
    pub bytes: Option<u64>,
    /// Bytes of log behind the position, at most.
    pub behind: Option<u64>,
}
