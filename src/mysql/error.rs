//! What the errors of a server and of a connection to it mean: one table of the codes that are told apart.
//!
//! Promise: a code has one meaning, wherever in this room it comes from; docs/errors.md has the same table, and a test
//! holds the two together. What is not in the table is refused for good, and halts by name with the server's own words.

use mysql_async::{DriverError, Error};

/// What an error means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Time cures it: the same request again, after the wait of `relay.retry_initial`, doubled up to `relay.retry_max`.
    Retry,
    /// As [`Verdict::Retry`]; besides, only the row was not to be had.
    Locked,
    /// A login or a grant is refused.
    Denied,
    /// Schema or table is not there.
    Missing,
    /// A table was altered while it was read.
    Redefined,
    /// The log cannot be sent; the message says why.
    Log,
    /// Anything else that the server says no to.
    Refused,
}

/// Codes of MySQL and `MariaDB` with their names.
const TABLE: &[(Verdict, &[(u16, &str)])] = &[
    (
        Verdict::Retry,
        &[
            (1021, "ER_DISK_FULL"),
            (1037, "ER_OUTOFMEMORY"),
            (1040, "ER_CON_COUNT_ERROR"),
            (1041, "ER_OUT_OF_RESOURCES"),
            (1042, "ER_BAD_HOST_ERROR"),
            (1053, "ER_SERVER_SHUTDOWN"),
            (1077, "ER_NORMAL_SHUTDOWN"),
            (1079, "ER_SHUTDOWN_COMPLETE"),
            (1080, "ER_FORCING_CLOSE"),
            (1114, "ER_RECORD_FILE_FULL"),
            (1152, "ER_ABORTING_CONNECTION"),
            (1158, "ER_NET_READ_ERROR"),
            (1159, "ER_NET_READ_INTERRUPTED"),
            (1160, "ER_NET_ERROR_ON_WRITE"),
            (1161, "ER_NET_WRITE_INTERRUPTED"),
            (1180, "ER_ERROR_DURING_COMMIT"),
            (1184, "ER_NEW_ABORTING_CONNECTION"),
            (1203, "ER_TOO_MANY_USER_CONNECTIONS"),
            (1226, "ER_USER_LIMIT_REACHED"),
            (1290, "ER_OPTION_PREVENTS_STATEMENT"),
            (1317, "ER_QUERY_INTERRUPTED"),
            (1836, "ER_READ_ONLY_MODE"),
            (1927, "ER_CONNECTION_KILLED"),
            (1969, "ER_STATEMENT_TIMEOUT"),
            (3024, "ER_QUERY_TIMEOUT"),
            (3100, "ER_RUN_HOOK_ERROR"),
            (3101, "ER_TRANSACTION_ROLLBACK_DURING_COMMIT"),
            (3169, "ER_SESSION_WAS_KILLED"),
            (4031, "ER_CLIENT_INTERACTION_TIMEOUT"),
        ],
    ),
    (Verdict::Locked, &[(1205, "ER_LOCK_WAIT_TIMEOUT"), (1213, "ER_LOCK_DEADLOCK"), (3572, "ER_LOCK_NOWAIT")]),
    (
        Verdict::Denied,
        &[
            (1044, "ER_DBACCESS_DENIED_ERROR"),
            (1045, "ER_ACCESS_DENIED_ERROR"),
            (1130, "ER_HOST_NOT_PRIVILEGED"),
            (1142, "ER_TABLEACCESS_DENIED_ERROR"),
            (1143, "ER_COLUMNACCESS_DENIED_ERROR"),
            (1227, "ER_SPECIFIC_ACCESS_DENIED_ERROR"),
            (1698, "ER_ACCESS_DENIED_NO_PASSWORD_ERROR"),
            (1820, "ER_MUST_CHANGE_PASSWORD"),
            (1862, "ER_MUST_CHANGE_PASSWORD_LOGIN"),
            (3118, "ER_ACCOUNT_HAS_BEEN_LOCKED"),
        ],
    ),
    (Verdict::Missing, &[(1049, "ER_BAD_DB_ERROR"), (1146, "ER_NO_SUCH_TABLE")]),
    (Verdict::Redefined, &[(1412, "ER_TABLE_DEF_CHANGED")]),
    (Verdict::Log, &[(1236, "ER_MASTER_FATAL_ERROR_READING_BINLOG")]),
];

/// What a server's code means.
pub(super) fn judge(code: u16) -> Verdict {
    let has = |codes: &[(u16, &str)]| codes.iter().any(|(known, _)| *known == code);
    TABLE.iter().find(|(_, codes)| has(codes)).map_or(Verdict::Refused, |(verdict, _)| *verdict)
}

/// What an error of the server or of the connection means.
pub(super) fn of(error: &Error) -> Verdict {
    match error {
        Error::Server(server) => judge(server.code),
        // Waiting teaches nobody a way to log in.
        Error::Driver(DriverError::UnknownAuthPlugin { .. }) => Verdict::Refused,
        Error::Io(_) | Error::Driver(_) => Verdict::Retry,
        _ => Verdict::Refused,
    }
}

/// Whether the same request may succeed later without anybody's doing.
pub fn is_transient(error: &Error) -> bool {
    matches!(of(error), Verdict::Retry | Verdict::Locked)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_connection_is_tried_again_and_a_login_that_nobody_knows_is_not() {
        let server =
            |code| Error::Server(mysql_async::ServerError { code, message: String::new(), state: String::new() });
        assert!(is_transient(&server(1040)) && is_transient(&server(1213)) && is_transient(&server(1021)));
        assert!(!is_transient(&server(1045)) && !is_transient(&server(1236)) && !is_transient(&server(1064)));
        assert!(is_transient(&Error::Driver(DriverError::ConnectionClosed)));
        assert!(!is_transient(&Error::Driver(DriverError::UnknownAuthPlugin { name: "x".to_owned() })));
        assert_eq!((judge(1146), judge(1064)), (Verdict::Missing, Verdict::Refused));
    }

    #[test]
    fn every_code_has_one_meaning_and_the_page_has_the_same_table() {
        let page = include_str!("../../docs/errors.md");
        let (_, mysql) = page.split_once("\n## MySQL and MariaDB\n").unwrap();
        let mysql = mysql.split("\n## ").next().unwrap();
        let mut written: BTreeMap<u16, (String, String)> = BTreeMap::new();
        for line in mysql.lines().filter(|line| line.starts_with("| ")) {
            let cells: Vec<_> = line.trim_matches(['|', ' ']).split(" | ").collect();
            for code in cells[1].split(", ") {
                let Some((number, name)) = code.split_once(' ') else { continue };
                let named = (cells[0].to_owned(), name.trim_matches('`').to_owned());
                assert!(written.insert(number.parse().unwrap(), named).is_none(), "{number} is there twice");
            }
        }
        for (verdict, codes) in TABLE {
            let class = match verdict {
                Verdict::Retry => "retry",
                Verdict::Locked => "retry: locked",
                Verdict::Denied => "halt: denied",
                Verdict::Missing => "halt: missing",
                Verdict::Redefined => "retry: altered",
                Verdict::Log => "halt: log",
                Verdict::Refused => "halt",
            };
            for (code, name) in *codes {
                let expected = (class.to_owned(), (*name).to_owned());
                assert_eq!(written.remove(code), Some(expected), "docs/errors.md: {code}");
            }
        }
        assert!(written.is_empty(), "docs/errors.md has codes that nobody knows: {written:?}");
    }
}
