//! Why a log that was open is not any more.

/// Why a log has to be opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// It could not be opened: the server cannot be reached, or refuses for now.
    Unreachable,
    /// The connection broke off, or the server ended it.
    Connection,
    /// Nothing was heard of the server for too long.
    Silence,
    /// Another server is to be read from.
    Server,
    /// A table was defined anew, and its definition has to be asked for.
    Definition,
}

impl Parting {
    /// Every cause, in their order.
    pub const ALL: [Self; 5] = [Self::Unreachable, Self::Connection, Self::Silence, Self::Server, Self::Definition];

    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Connection => "connection",
            Self::Silence => "silence",
            Self::Server => "server",
            Self::Definition => "definition",
        }
    }
}
