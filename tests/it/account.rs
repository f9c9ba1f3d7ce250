//! The account that the daemons of tests have: that of the documents, with no more than they grant.
//!
//! Statements are those of `config/mysql/local.sql`, so what is documented is what everything here runs with.

use std::collections::BTreeSet;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use outboxd::services::Service;
use outboxd::table::{TableName, quote};

/// Its name.
pub(crate) const USER: &str = "outboxd";

/// Its password, a word that stands nowhere else: who finds it in a log has found a secret.
pub(crate) const PASSWORD: &str = "river-0f-Quiet-boxes";

const DOCUMENTED: &str = include_str!("../../config/mysql/local.sql");

/// As the daemon is told of a server on this port.
pub(crate) fn url(port: u16) -> String {
    format!("mysql://{USER}@127.0.0.1:{port}")
}

/// The same, with the password.
pub(crate) fn url_with_password(port: u16) -> String {
    format!("mysql://{USER}:{PASSWORD}@127.0.0.1:{port}")
}

/// What the documents grant to it, granted to this user of a test.
pub(crate) fn grants(user: &str) -> impl Iterator<Item = String> {
    let granted = DOCUMENTED.lines().filter(|line| line.starts_with("GRANT") && line.contains("'outboxd'@'%'"));
    granted.map(move |line| line.trim_end_matches(';').replace("'outboxd'@'%'", &format!("'{user}'@'%'")))
}

/// Creates it on a server, for tables in these schemas, with further grants such as `DELETE ON delivery.*`. The log knows
/// nothing of it.
pub(crate) async fn create(server: &Service, tables: &[TableName], grants: &[String]) {
    let way = OptsBuilder::default().user(Some("admin")).pass(Some("admin"));
    let way = way.socket(Some(server.dir().join("mysql.sock").display().to_string()));
    let mut conn = Conn::new(way).await.unwrap();
    let documented = DOCUMENTED.lines().filter(|line| line.contains("'outboxd'@'%'"));
    let mut statements = vec!["SET sql_log_bin = 0".to_owned()];
    statements.extend(documented.map(|line| line.replace("BY 'outboxd'", &format!("BY '{PASSWORD}'"))));
    assert!(statements.len() > 3, "the account stands in another form in config/mysql/local.sql now");
    let schemas: BTreeSet<_> = tables.iter().map(TableName::schema).filter(|schema| *schema != "delivery").collect();
    statements.extend(schemas.iter().map(|schema| format!("GRANT SELECT ON {}.* TO {USER}", quote(schema))));
    statements.extend(grants.iter().map(|grant| format!("GRANT {grant} TO {USER}")));
    for sql in statements {
        conn.query_drop(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    conn.disconnect().await.unwrap();
}
