//! A place in the log behind which nothing is that could be seen before.
//!
//! MySQL puts a transaction into `gtid_executed` a moment after others can see its rows, but it owns its GTID from before
//! it is in the log until then: what is owned, and then what is executed, have it between them. `MariaDB`'s list and the
//! end of a file have a transaction before it can be seen.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};

use crate::mysql::owned::owned;
use crate::mysql::source::{other, start};
use crate::position::{GtidSet, Point, Position};

/// Asks for such a place; an error when the server writes no log.
pub(super) async fn end(conn: &mut Conn, mariadb: bool) -> Result<Position, Error> {
    let owned = if mariadb {
        GtidSet::default()
    } else {
        let text: Option<String> = conn.query_first("SELECT @@GLOBAL.gtid_owned").await?;
        owned(&text.unwrap_or_default()).map_err(|error| other(&format!("gtid_owned: {error}")))?
    };
    let mut end = start(conn, false).await?.ok_or_else(|| other(&"the server writes no binlog"))?;
    if let Point::Gtid(executed) = &mut end.point {
        *executed = executed.union(&owned);
    }
    Ok(end)
}
