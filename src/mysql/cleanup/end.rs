//! A place in the log behind which nothing is that could be seen before.
//!
//! MySQL puts a transaction into `gtid_executed` a moment after others can see its rows, but it owns its GTID from before
//! it is in the log until then: what is owned, and then what is executed, have it between them. `MariaDB`'s list and the
//! end of a file have a transaction before it can be seen.

use std::sync::LazyLock;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use regex::Regex;

use crate::mysql::source::{other, start};
use crate::position::{GtidError, GtidSet, Point, Position};

/// Asks for such a place; an error when the server writes no log.
pub(super) async fn end(conn: &mut Conn, mariadb: bool) -> Result<Position, Error> {
    let owned = if mariadb {
        GtidSet::default()
    } else {
        let text: Option<String> = conn.query_first("SELECT @@GLOBAL.gtid_owned").await?;
        owned(&text.unwrap_or_default()).map_err(|error| other(&error))?
    };
    let mut end = start(conn, false).await?.ok_or_else(|| other(&"the server writes no binlog"))?;
    if let Point::Gtid(executed) = &mut end.point {
        *executed = executed.union(&owned);
    }
    Ok(end)
}

/// `gtid_owned`: each number is followed by `#` and the thread that owns it, and nothing stands between two servers.
fn owned(text: &str) -> Result<GtidSet, GtidError> {
    static SERVER: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}").ok());
    static OWNER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"#[0-9]*").ok());
    let (Some(server), Some(owner)) = (&*SERVER, &*OWNER) else { return text.parse() };
    let apart = server.replace_all(text, ",$0");
    owner.replace_all(&apart, "").replace(['\n', ' '], "").replace(",,", ",").trim_matches(',').parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const B: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";

    #[test]
    fn owned_transactions_are_read_without_their_owners() {
        let read = |text: &str| owned(text).unwrap().to_string();
        assert_eq!(read(""), "");
        assert_eq!(read(&format!("{A}:23#7")), format!("{A}:23"));
        assert_eq!(read(&format!("{A}:23#7:25#1234")), format!("{A}:23:25"));
        for between in ["", ",", ",\n"] {
            assert_eq!(read(&format!("{A}:23#7:25#12{between}{B}:4#8")), format!("{A}:23:25,{B}:4"), "{between:?}");
        }
        assert!(owned("what is this").is_err(), "what is not understood is not passed over");
    }
}
