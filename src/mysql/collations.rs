//! Which collation stands for a character set where its text has to be converted.

use std::collections::HashMap;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};

/// The lowest collation of each character set that the server knows, by id.
#[derive(Debug, Clone, Default)]
pub(super) struct Collations(HashMap<String, u16>);

impl Collations {
    /// Asks the server.
    pub(super) async fn read(conn: &mut Conn) -> Result<Self, Error> {
        // MariaDB lists the newer ones without character set and id.
        let rows: Vec<(String, u16)> = conn
            .query(
                "SELECT CHARACTER_SET_NAME, MIN(ID) FROM information_schema.COLLATIONS WHERE CHARACTER_SET_NAME IS NOT NULL \
                 AND ID IS NOT NULL GROUP BY CHARACTER_SET_NAME",
            )
            .await?;
        Ok(Self(rows.into_iter().collect()))
    }

    /// Any collation of the character set tells which it is. `None` for a column without one.
    pub(super) fn of(&self, charset: Option<&str>) -> Option<u16> {
        self.0.get(charset?).copied()
    }
}
