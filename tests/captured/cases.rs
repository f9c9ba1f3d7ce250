//! What servers are made to write into `tests/data`, and what `outboxd decode` is to say of each file besides its rows.

mod columns;

use std::fmt::Write;

pub(crate) const MYSQL: &str = "mysql-9.7";
pub(crate) const MARIADB: &str = "mariadb-11.8";
const OLD_MARIADB: &str = "mariadb-10.11";
const ALL: &[&str] = &[MYSQL, OLD_MARIADB, MARIADB];
const MARIADBS: &[&str] = &[OLD_MARIADB, MARIADB];

/// The table of most cases.
const OUTBOX: &str = "CREATE TABLE `delivery-outbox1` (id BIGINT UNSIGNED PRIMARY KEY, kind ENUM('a','b') NOT NULL \
                      DEFAULT 'b', note VARCHAR(200), payload LONGTEXT)";

/// One thing to do on a server.
pub(crate) enum Step {
    /// A statement.
    Run(String),
    /// A statement that the server refuses, having written something.
    Refused(String),
    /// Statements in a session of their own, which ends.
    Aside(Vec<String>),
    /// The rows that the outbox has now, and had not before, are to come out of the log, in the order of their ids.
    Keep,
    /// They are not: the log does not have them.
    Pass,
}

/// What one file shows.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) servers: &'static [&'static str],
    /// Variables that are set before, and put back after.
    pub(crate) globals: Vec<(&'static str, &'static str)>,
    pub(crate) steps: Vec<Step>,
    /// Names of the columns, where the log has none.
    pub(crate) names: &'static str,
    /// What puts the server in order after the file is closed.
    pub(crate) after: Vec<&'static str>,
    /// What `outboxd decode` says on standard error: names of faults, and parts of its summary.
    pub(crate) said: &'static [&'static str],
    /// How it ends.
    pub(crate) code: i32,
}

impl Case {
    fn new(name: &'static str, servers: &'static [&'static str]) -> Self {
        Self { name, servers, globals: Vec::new(), steps: Vec::new(), names: "", after: Vec::new(), said: &[], code: 0 }
    }

    fn global(mut self, name: &'static str, value: &'static str) -> Self {
        self.globals.push((name, value));
        self
    }

    fn run(mut self, statements: &[&str]) -> Self {
        self.steps.extend(statements.iter().map(|statement| Step::Run((*statement).to_owned())));
        self
    }

    /// Statements whose rows come out of the log.
    fn rows(mut self, statements: &[&str]) -> Self {
        self = self.run(statements);
        self.steps.push(Step::Keep);
        self
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    fn prepare(self, xid: &str, id: u32) -> Self {
        let insert = format!("INSERT INTO `delivery-outbox1` (id, note) VALUES ({id}, 'xa {xid}')");
        let (start, end, prepare) =
            (format!("XA START '{xid}'"), format!("XA END '{xid}'"), format!("XA PREPARE '{xid}'"));
        self.step(Step::Aside(vec![start, insert, end, prepare]))
    }

    fn unnamed(mut self, names: &'static str) -> Self {
        self.names = names;
        self
    }

    fn after(mut self, statement: &'static str) -> Self {
        self.after.push(statement);
        self
    }

    fn says(mut self, code: i32, said: &'static [&'static str]) -> Self {
        (self.code, self.said) = (code, said);
        self
    }

    /// `mysql_9_7_xa` and the like.
    pub(crate) fn file(&self, server: &str) -> String {
        format!("{}_{}", server.replace(['-', '.'], "_"), self.name)
    }
}

fn insert(ids: std::ops::RangeInclusive<u32>, payload: &str) -> String {
    let mut statement = "INSERT INTO `delivery-outbox1` (id, note, payload) VALUES ".to_owned();
    for id in ids.clone() {
        let comma = if id == *ids.start() { "" } else { "," };
        let _ = write!(statement, "{comma}({id}, 'né {id}', {payload})");
    }
    statement
}

/// Every case.
pub(crate) fn cases() -> Vec<Case> {
    [transactions(), settings(), changes(), columns::columns()].into_iter().flatten().collect()
}

fn transactions() -> Vec<Case> {
    vec![
        Case::new("compressed_transactions", &[MYSQL])
            .run(&[OUTBOX, "CREATE TABLE other (id INT)", "SET SESSION binlog_transaction_compression = ON"])
            .rows(&[&insert(1..=2, "'small'")])
            .rows(&["BEGIN", "INSERT INTO other VALUES (1)", &insert(3..=60, "REPEAT('level 3 ', 100)")])
            .run(&["SAVEPOINT s", &insert(900..=901, "'undone'"), "ROLLBACK TO s"])
            .rows(&["COMMIT", "SET SESSION binlog_transaction_compression = OFF", &insert(61..=61, "'plain'")])
            .run(&["SET SESSION binlog_transaction_compression = ON"])
            .run(&["SET SESSION binlog_transaction_compression_level_zstd = 22"])
            .rows(&[&insert(62..=63, "REPEAT('level 22 ', 1000)")])
            .run(&["SET SESSION binlog_transaction_compression = OFF"]),
        // Without checksums, so that the damage is the payload's own to notice: `damaged` in `capture.rs`.
        Case::new("payload_without_checksum", &[MYSQL])
            .global("binlog_checksum", "NONE")
            .run(&[OUTBOX, "SET SESSION binlog_transaction_compression = ON"])
            .rows(&[&insert(1..=2, "'whole'")])
            .rows(&[&insert(3..=40, "REPEAT('level 3 ', 100)")])
            .run(&["SET SESSION binlog_transaction_compression = OFF"]),
        Case::new("compressed_events", MARIADBS)
            .global("log_bin_compress_min_len", "10")
            .global("log_bin_compress", "ON")
            .run(&[OUTBOX])
            .rows(&[&insert(1..=3, "REPEAT('compressed ', 500)")])
            .rows(&["BEGIN", "DELETE FROM `delivery-outbox1`", &insert(4..=5, "'x'"), "COMMIT"])
            .run(&["UPDATE `delivery-outbox1` SET note = REPEAT('u', 100)"])
            .says(0, &["1 UPDATE, 3 DELETE"]),
        Case::new("several_table_maps", ALL)
            .run(&[OUTBOX, "CREATE TABLE orders (id INT)", "CREATE TABLE items (id INT)"])
            .run(&["CREATE TRIGGER t1 AFTER INSERT ON orders FOR EACH ROW \
                    INSERT INTO `delivery-outbox1` (id, payload) VALUES (NEW.id, 'by trigger')"])
            .run(&[
                "CREATE TRIGGER t2 AFTER INSERT ON `delivery-outbox1` FOR EACH ROW INSERT INTO items VALUES (NEW.id)",
            ])
            .rows(&["INSERT INTO orders VALUES (1), (2), (3)", "FLUSH TABLES"])
            .rows(&["INSERT INTO orders VALUES (4)"]),
        Case::new("split_events", ALL).run(&[OUTBOX]).rows(&[&insert(1..=6, "REPEAT('x', 3500)")]),
        Case::new("savepoints", ALL)
            .run(&[OUTBOX, "CREATE TABLE other (id INT)"])
            .run(&["BEGIN", &insert(1..=1, "'kept'"), "SAVEPOINT `A b`", &insert(2..=2, "'undone'")])
            .run(&["INSERT INTO other VALUES (1)", "SAVEPOINT c", &insert(3..=3, "'undone'"), "ROLLBACK TO `a B`"])
            .rows(&[&insert(4..=4, "'kept'"), "RELEASE SAVEPOINT `A b`", "COMMIT"])
            .run(&["BEGIN", &insert(5..=5, "'undone'"), "ROLLBACK"])
            // Implicitly committed.
            .rows(&["BEGIN", &insert(6..=6, "'kept'"), "CREATE TABLE another (id INT)"]),
        // What the engine without transactions keeps has to be in the log, so what is undone beside it is there too.
        Case::new("mixed_engines", MARIADBS)
            .run(&[OUTBOX, "CREATE TABLE plain (id INT) ENGINE = MyISAM"])
            .run(&["BEGIN", &insert(1..=1, "'kept'"), "SAVEPOINT `A b`", &insert(2..=2, "'undone'")])
            .run(&["INSERT INTO plain VALUES (1)", "SAVEPOINT c", &insert(3..=3, "'undone'")])
            .run(&["INSERT INTO plain SELECT id FROM `delivery-outbox1`", "ROLLBACK TO `a B`"])
            .rows(&[&insert(4..=4, "'kept'"), "COMMIT"])
            .run(&[
                "BEGIN",
                &insert(5..=5, "'undone'"),
                "INSERT INTO plain SELECT id FROM `delivery-outbox1`",
                "ROLLBACK",
            ])
            .rows(&[&insert(6..=6, "'kept'")]),
        Case::new("xa", ALL)
            .run(&[OUTBOX])
            .prepare("a", 1)
            .prepare("b", 2)
            .prepare("c", 3)
            .rows(&[&insert(4..=4, "'between'")])
            .rows(&["XA COMMIT 'c'"])
            .run(&["XA ROLLBACK 'b'"])
            .rows(&["XA COMMIT 'a'"])
            .run(&["XA START 'one'", &insert(5..=5, "'in one phase'"), "XA END 'one'"])
            .rows(&["XA COMMIT 'one' ONE PHASE"])
            .prepare("d", 6)
            .after("XA ROLLBACK 'd'")
            .says(65, &["xa_prepared at XA transaction x'64'"]),
        Case::new("tagged_gtids", &[MYSQL])
            .run(&[OUTBOX, "SET gtid_next = 'AUTOMATIC:first'"])
            .rows(&[&insert(1..=2, "'tagged'")])
            .run(&["SET gtid_next = 'AUTOMATIC'"])
            .rows(&[&insert(3..=3, "'not tagged'")])
            .run(&["SET gtid_next = 'AUTOMATIC:_a_tag_of_exactly_32_characters'"])
            .rows(&[&insert(4..=4, "'tagged'")])
            .run(&["SET gtid_next = 'AUTOMATIC'"]),
        Case::new("gtid_modes", &[MYSQL])
            .run(&[OUTBOX])
            .rows(&[&insert(1..=1, "'on'"), "SET GLOBAL gtid_mode = ON_PERMISSIVE"])
            .rows(&[&insert(2..=2, "'on, permissive'"), "SET GLOBAL gtid_mode = OFF_PERMISSIVE"])
            .rows(&[&insert(3..=3, "'off, permissive'"), "SET GLOBAL gtid_mode = OFF"])
            .rows(&[&insert(4..=4, "'off'"), "SET GLOBAL gtid_mode = OFF_PERMISSIVE"])
            .rows(&[&insert(5..=5, "'off, permissive'"), "SET GLOBAL gtid_mode = ON_PERMISSIVE"])
            .rows(&[&insert(6..=6, "'on, permissive'"), "SET GLOBAL gtid_mode = ON"])
            .rows(&[&insert(7..=7, "'on'")]),
        Case::new("domains", MARIADBS)
            .run(&[OUTBOX, "SET SESSION gtid_domain_id = 7"])
            .rows(&[&insert(1..=1, "'seven'")])
            .run(&["SET SESSION gtid_domain_id = 0, SESSION server_id = 4000000000"])
            .rows(&[&insert(2..=2, "'zero, by another server'")]),
    ]
}

fn settings() -> Vec<Case> {
    vec![
        Case::new("checksum_none", ALL)
            .global("binlog_checksum", "NONE")
            .run(&[OUTBOX])
            .rows(&[&insert(1..=3, "'not guarded'")]),
        // In its default setting, MariaDB writes version 1 and no names.
        Case::new("metadata_minimal", ALL)
            .global("binlog_row_metadata", "MINIMAL")
            .run(&["CREATE TABLE `delivery-outbox1` (id BIGINT UNSIGNED PRIMARY KEY, note VARCHAR(20) CHARACTER SET latin1, \
                    raw VARBINARY(16), payload LONGTEXT)"])
            .rows(&["INSERT INTO `delivery-outbox1` VALUES (2, NULL, '', NULL), (18446744073709551615, 'né', x'ff00', 'a')"])
            .unnamed("id,note,raw,payload"),
        Case::new("row_images", ALL)
            .run(&[OUTBOX, "SET SESSION binlog_row_image = MINIMAL"])
            .rows(&["INSERT INTO `delivery-outbox1` VALUES (1, 'a', 'note', 'all columns'), (2, 'b', NULL, NULL)"])
            .run(&["SET SESSION binlog_row_image = NOBLOB"])
            .rows(&["INSERT INTO `delivery-outbox1` VALUES (3, 'a', 'note', 'all columns')"])
            .run(&["UPDATE `delivery-outbox1` SET note = 'x' WHERE id = 1", "DELETE FROM `delivery-outbox1` WHERE id = 1"])
            .run(&["SET SESSION binlog_row_image = FULL"])
            .says(0, &["1 UPDATE, 1 DELETE"]),
        Case::new("rows_query", &[MYSQL])
            .run(&[OUTBOX, "SET SESSION binlog_rows_query_log_events = ON"])
            .rows(&[&insert(1..=2, "'the statement stands before them'")])
            .run(&["SET SESSION binlog_rows_query_log_events = OFF"]),
        Case::new("annotated", MARIADBS)
            .run(&[OUTBOX, "SET SESSION binlog_annotate_row_events = ON"])
            .rows(&[&insert(1..=2, "'the statement stands before them'")])
            .run(&["SET SESSION binlog_annotate_row_events = OFF"])
            .rows(&[&insert(3..=3, "'it does not'")]),
        Case::new("statement_format", ALL)
            .run(&[OUTBOX, "CREATE TABLE other (id INT)", "SET SESSION binlog_format = STATEMENT"])
            .run(&["INSERT INTO other VALUES (1)", "INSERT INTO `delivery-outbox1` (id) VALUES (1)"])
            .step(Step::Pass)
            .run(&["SET SESSION binlog_format = MIXED", "REPLACE INTO `delivery`.`delivery-outbox1` (id) VALUES (2)"])
            .step(Step::Pass)
            .run(&["SET SESSION binlog_format = ROW"])
            .rows(&[&insert(3..=3, "'row'")])
            .says(65, &["statement_format at ", "2 not decoded"]),
        // A statement of an engine without transactions that does not fit into its cache cannot be undone or logged.
        Case::new("incident", &[MYSQL])
            .global("binlog_stmt_cache_size", "4096")
            .global("max_binlog_stmt_cache_size", "4096")
            .run(&[OUTBOX, "CREATE TABLE plain (id INT AUTO_INCREMENT PRIMARY KEY, text TEXT) ENGINE = MyISAM"])
            .rows(&[&insert(1..=1, "'before'")])
            .step(Step::Refused("INSERT INTO plain (text) VALUES (REPEAT('x', 9000)), (REPEAT('x', 9000)), (REPEAT('x', 9000))".into()))
            .rows(&[&insert(2..=2, "'after'")])
            .says(65, &["incident at ", "2 rows", "2 not decoded"]),
    ]
}

fn changes() -> Vec<Case> {
    let all = ["INSERT INTO `delivery-outbox1` (id, note) VALUES", "INSERT INTO `delivery-outbox1` (id) VALUES"];
    vec![
        Case::new("changes", ALL)
            .run(&[OUTBOX])
            .rows(&[&insert(1..=3, "'inserted'")])
            .run(&["UPDATE `delivery-outbox1` SET note = 'updated'", "DELETE FROM `delivery-outbox1` WHERE id < 3"])
            .rows(&["TRUNCATE `delivery-outbox1`", &insert(4..=4, "'inserted'")])
            .says(0, &["1 UPDATE, 1 DELETE and 1 TRUNCATE"]),
        Case::new("partial_update", &[MYSQL])
            .run(&["CREATE TABLE `delivery-outbox1` (id INT PRIMARY KEY, payload JSON)"])
            .rows(&["INSERT INTO `delivery-outbox1` VALUES (1, '{\"a\": [1, 2], \"b\": \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"}')"])
            .run(&["SET SESSION binlog_row_value_options = PARTIAL_JSON"])
            .run(&["UPDATE `delivery-outbox1` SET payload = JSON_SET(payload, '$.a[0]', 7)"])
            .run(&["SET SESSION binlog_row_value_options = ''"])
            .says(0, &["1 UPDATE"]),
        Case::new("altered", ALL)
            .run(&[OUTBOX])
            .rows(&[&format!("{} (1, 'as created')", all[0])])
            .rows(&["ALTER TABLE `delivery-outbox1` ADD first INT DEFAULT 7 FIRST", &format!("{} (2, 'first')", all[0])])
            .rows(&["ALTER TABLE `delivery-outbox1` ADD middle TEXT AFTER id", &format!("{} (3, 'middle')", all[0])])
            .rows(&["ALTER TABLE `delivery-outbox1` ADD last DATE", &format!("{} (4, 'last')", all[0])])
            .rows(&["ALTER TABLE `delivery-outbox1` DROP middle", &format!("{} (5, 'dropped')", all[0])])
            .rows(&["ALTER TABLE `delivery-outbox1` MODIFY note VARCHAR(200) FIRST", &format!("{} (6, 'reordered')", all[0])])
            .rows(&["ALTER TABLE `delivery-outbox1` RENAME COLUMN note TO text", &format!("{} (7)", all[1])])
            .rows(&["ALTER TABLE `delivery-outbox1` MODIFY text VARCHAR(2000)", &format!("{} (8)", all[1])])
            .rows(&["ALTER TABLE `delivery-outbox1` ADD quick INT DEFAULT 1, ALGORITHM = INSTANT", &format!("{} (9)", all[1])])
            .rows(&["ALTER TABLE `delivery-outbox1` DROP quick, ALGORITHM = INSTANT", &format!("{} (10)", all[1])]),
        Case::new("replaced", ALL)
            .run(&[OUTBOX])
            .rows(&[&insert(1..=1, "'first table'")])
            .rows(&[
                "DROP TABLE `delivery-outbox1`",
                "CREATE TABLE `delivery-outbox1` (payload JSON, id INT PRIMARY KEY)",
                "INSERT INTO `delivery-outbox1` (id, payload) VALUES (2, '[\"second table\"]')",
            ])
            // As tools do that change a table under way.
            .run(&["CREATE TABLE _new (id BIGINT PRIMARY KEY, payload JSON, more INT DEFAULT 5)"])
            .run(&["INSERT INTO _new (id, payload) SELECT id, payload FROM `delivery-outbox1`"])
            .rows(&[
                "RENAME TABLE `delivery-outbox1` TO _old, _new TO `delivery-outbox1`",
                "INSERT INTO `delivery-outbox1` (id, payload) VALUES (3, '[\"third table\"]')",
            ])
            .run(&["INSERT INTO _old (id, payload) VALUES (30, '[\"no outbox any more\"]')"])
            .run(&["RENAME TABLE `delivery-outbox1` TO _third, _old TO `delivery-outbox1`"])
            .step(Step::Pass)
            .rows(&["INSERT INTO `delivery-outbox1` (id, payload) VALUES (4, '[\"second table again\"]')"]),
    ]
}
