use super::*;
use crate::mysql::decode::{Dialect, Header};
use crate::mysql::definition::{Definition, Feeder};
use crate::mysql::statement::CLEANING;
use crate::source::{BatchBuilder, RowSet, Subscription};

const GIB_4: u64 = 1 << 32;

#[test]
fn given_a_log_beyond_4_gib_when_followed_then_offsets_keep_their_upper_bits() {
    assert_eq!(widen(4, 100, 104), 104);
    assert_eq!(widen(GIB_4 - 50, 100, 50), GIB_4 + 50);
    assert_eq!(widen(GIB_4 + 50, 100, 150), GIB_4 + 150);
    // Events in between were not sent.
    assert_eq!(widen(GIB_4 + 50, 100, 5000), GIB_4 + 5000);
    assert_eq!(widen(GIB_4 - 50, 10, 5000), GIB_4 + 5000);
    // An event that ends where the lower bits are all zero says nothing; the next one does.
    assert_eq!(widen(GIB_4 - 50, 30, 30), GIB_4 + 30);
}

fn reader(position: &str) -> Reader {
    Reader::new(Tables::new(Dialect::MySql, &[], Vec::new()), position.parse().unwrap())
}

fn event(code: u8, size: u32, end: u64, body: &[u8]) -> Event<'_> {
    let log_pos = u32::try_from(end & (GIB_4 - 1)).unwrap();
    Event { header: Header { timestamp: 1, kind: code, server_id: 1, size, log_pos, flags: 0 }, body }
}

fn rotate(offset: u64, file: &str) -> Vec<u8> {
    [&offset.to_le_bytes(), file.as_bytes()].concat()
}

/// What the server makes up at the beginning.
fn artificial(body: &[u8]) -> Event<'_> {
    let header = Header { flags: 0x20, ..event(kind::ROTATE, 40, 0, body).header };
    Event { header, body }
}

#[test]
fn given_a_position_beyond_4_gib_when_the_file_is_read_from_its_beginning_then_what_is_before_it_is_passed_over() {
    let position = "file=my.bin-log.1000000:5000000000";
    let mut reader = reader(position);
    let Point::File(point) = &reader.position().point else { panic!("a file position") };
    assert_eq!(start_offset(point.start()), 4);
    let begin = rotate(4, "my.bin-log.1000000");
    assert_eq!(reader.advance(&artificial(&begin)), Ok(false));
    assert_eq!(reader.advance(&event(kind::QUERY, 3_000_000_000, 3_000_000_004, &[])), Ok(false));
    assert_eq!(reader.advance(&event(kind::XID, 1_999_999_996, 5_000_000_000, &[])), Ok(false));
    assert_eq!(reader.position().to_string(), position);
    let gtid = event(kind::ANONYMOUS_GTID, 100, 5_000_000_100, &[0; 42]);
    assert_eq!(reader.advance(&gtid), Ok(true));
    reader.take(&gtid).unwrap();
    let Some(LogEvent::Begin { txn, .. }) = reader.pop() else { panic!("a transaction begins") };
    assert_eq!(txn.to_string(), "my.bin-log.1000000:5000000000");
    let xid = event(kind::XID, 31, 5_000_000_131, &[0; 8]);
    assert_eq!(reader.advance(&xid), Ok(true));
    reader.take(&xid).unwrap();
    assert!(matches!(reader.pop(), Some(LogEvent::Commit)));
    assert_eq!(reader.position().to_string(), "file=my.bin-log.1000000:5000000131");
    let next = rotate(4, "my.bin-log.1000001");
    assert_eq!(reader.advance(&event(kind::ROTATE, 40, 5_000_000_171, &next)), Ok(true));
    assert_eq!(reader.position().to_string(), "file=my.bin-log.1000001:4");
}

#[test]
fn given_a_position_within_an_event_when_the_file_is_read_then_that_is_a_fault() {
    let mut reader = reader("file=b.000001:5000000000");
    reader.advance(&artificial(&rotate(4, "b.000001"))).unwrap();
    reader.advance(&event(kind::QUERY, 3_000_000_000, 3_000_000_004, &[])).unwrap();
    let fault = reader.advance(&event(kind::XID, 2_000_000_000, 5_000_000_004, &[])).unwrap_err();
    assert_eq!(fault.name, "position_mismatch");
}

#[test]
fn given_a_fault_within_a_transaction_when_told_then_it_says_which_and_where() {
    let mut reader = reader("gtid=");
    reader.advance(&artificial(&rotate(4, "b.000001"))).unwrap();
    let mut body = [0; 42];
    body[17] = 7;
    let gtid = event(kind::GTID, 65, 65, &body);
    reader.advance(&gtid).unwrap();
    reader.take(&gtid).unwrap();
    reader.take(&event(kind::INCIDENT, 30, 95, &[1, 0])).unwrap();
    let Some(LogEvent::Begin { .. }) = reader.pop() else { panic!("a transaction begins") };
    let Some(LogEvent::Fault { fault, .. }) = reader.pop() else { panic!("a fault") };
    assert_eq!(fault.at, "00000000-0000-0000-0000-000000000000:7 (b.000001:65)");
}

#[test]
fn given_an_incident_when_taken_then_it_is_a_fault_of_every_table() {
    let mut reader = reader("gtid=");
    reader.take(&event(kind::INCIDENT, 30, 30, &[1, 0])).unwrap();
    let Some(LogEvent::Fault { slot: None, fault }) = reader.pop() else { panic!("a fault") };
    assert_eq!(fault.name, "incident");
}

#[test]
fn given_events_without_meaning_when_taken_then_nothing_is_said() {
    let mut reader = reader("gtid=");
    let without_rows = [1, 3, 5, 9, 11, 13, 14, 15, 17, 28, 29, 35, 36, 37, 160, 161, 163, 164];
    for code in without_rows {
        reader.take(&event(code, 30, 30, &[1, 2, 3])).unwrap();
        assert!(reader.pop().is_none(), "{code}");
    }
    // Those of servers to come that may be passed over, and that the server makes up.
    for flags in [0x80, 0x20] {
        let unknown = event(200, 30, 30, &[1, 2, 3]);
        reader.take(&Event { header: Header { flags, ..unknown.header }, ..unknown }).unwrap();
        assert!(reader.pop().is_none(), "{flags}");
    }
    for code in [kind::HEARTBEAT, kind::HEARTBEAT_V2] {
        reader.take(&event(code, 30, 30, &[1, 2, 3])).unwrap();
        assert!(matches!(reader.pop(), Some(LogEvent::Progress)), "{code}");
    }
}

#[test]
fn given_an_event_of_an_unknown_type_when_taken_then_it_is_a_fault_of_every_table() {
    let mut reader = reader("gtid=");
    // No event; rows as before MySQL 5.1.18; a payload within one; a part of a row of MariaDB 12.3; one to come.
    for code in [0, 20, 21, 22, kind::TRANSACTION_PAYLOAD, 172, 200] {
        reader.take(&event(code, 30, 30, &[1, 2, 3])).unwrap();
        let Some(LogEvent::Fault { slot: None, fault }) = reader.pop() else { panic!("{code}: a fault") };
        assert_eq!(fault.name, "unknown_event");
        assert!(fault.detail.contains(&format!("type {code},")), "{}", fault.detail);
    }
}

#[test]
fn given_damaged_events_when_taken_then_the_fault_says_where() {
    let mut reader = reader("file=b.000001:4");
    reader.advance(&artificial(&rotate(4, "b.000001"))).unwrap();
    reader.advance(&event(kind::QUERY, 96, 100, &[])).unwrap();
    for code in [kind::QUERY, kind::GTID, kind::GTID_TAGGED, kind::MARIADB_GTID, kind::XA_PREPARE, kind::TABLE_MAP] {
        let fault = reader.take(&event(code, 30, 30, &[9])).unwrap_err();
        assert_eq!((fault.name, fault.at.as_str()), ("damaged_event", "b.000001:100"), "{code}");
    }
    assert!(reader.advance(&event(kind::ROTATE, 20, 120, &[1])).is_err());
}

/// Has a transaction of MariaDB read, and gives what is said first: which one begins, a fault of all tables, or nothing.
fn told(reader: &mut Reader, gtid: &str) -> String {
    let DomainGtid { domain, server, sequence } = gtid.parse().unwrap();
    let body = [&sequence.to_le_bytes()[..], &domain.to_le_bytes()[..], &[0; 7][..]].concat();
    let begin = event(kind::MARIADB_GTID, 42, 0, &body);
    reader.take(&Event { header: Header { server_id: server, ..begin.header }, body: &body }).unwrap();
    reader.take(&event(kind::XID, 31, 0, &[0; 8])).unwrap();
    let first = match reader.pop() {
        Some(LogEvent::Begin { txn, .. }) => txn.to_string(),
        Some(LogEvent::Fault { slot: None, fault }) => format!("{} at {}", fault.name, fault.at),
        Some(_) => panic!("a transaction begins in another way"),
        None => String::new(),
    };
    while reader.pop().is_some() {}
    first
}

#[test]
fn given_a_lower_number_of_a_domain_when_read_after_a_start_or_a_reopening_then_it_is_a_fault_by_name() {
    let out_of_order = |gtid: &str| format!("gtid_out_of_order at {gtid} (:4)");
    let mut started = reader("domains=0-1-200");
    assert_eq!(told(&mut started, "0-2-191"), out_of_order("0-2-191"));
    assert_eq!(started.position().to_string(), "domains=0-1-200");
    // Under way, and so is the same number once more.
    let mut reader = reader("domains=0-1-199");
    assert_eq!(told(&mut reader, "0-1-200"), "0-1-200");
    for gtid in ["0-2-191", "0-2-192", "0-2-200"] {
        assert_eq!(told(&mut reader, gtid), out_of_order(gtid));
    }
    let position = reader.position().clone();
    let mut reopened = Reader::new(Tables::new(Dialect::MariaDb, &[], Vec::new()), position);
    assert_eq!(told(&mut reopened, "0-2-191"), out_of_order("0-2-191"));
    // Each domain has an order of its own; one that is not known begins anywhere.
    for gtid in ["0-2-201", "7-1-3", "7-2-4", "0-1-205"] {
        assert_eq!(told(&mut reopened, gtid), gtid);
    }
    assert_eq!(told(&mut reopened, "7-1-4"), out_of_order("7-1-4"));
    assert_eq!(reopened.position().to_string(), "domains=0-1-205,7-2-4");
}

#[test]
fn given_a_lower_number_when_it_is_a_fault_then_the_detail_says_where_to_go_on() {
    let mut reader = reader("domains=0-1-200,7-1-5");
    let body = [&191_u64.to_le_bytes()[..], &[0; 11][..]].concat();
    reader.take(&event(kind::MARIADB_GTID, 42, 0, &body)).unwrap();
    let Some(LogEvent::Fault { fault, .. }) = reader.pop() else { panic!("a fault") };
    let said = "each table that stands at domains=0-1-200,7-1-5 to domains=0-1-191,7-1-5;";
    assert!(fault.detail.contains(said), "{}", fault.detail);
    let behind = "domains=0-1-191,7-1-5".parse().unwrap();
    let mut behind = Reader::new(Tables::new(Dialect::MariaDb, &[], Vec::new()), behind);
    assert_eq!(told(&mut behind, "0-1-192"), "0-1-192");
}

#[test]
fn given_a_prepared_transaction_when_it_is_read_again_then_numbers_up_to_the_position_are_no_fault() {
    let mut reader = reader("domains=0-1-200 without 0-1-195 after 0-1-194");
    assert_eq!(told(&mut reader, "0-1-195"), "0-1-195", "its outcome is not covered");
    for gtid in ["0-1-196", "0-1-200"] {
        assert_eq!(told(&mut reader, gtid), "", "{gtid} is covered");
    }
    assert_eq!(told(&mut reader, "0-2-191"), "gtid_out_of_order at 0-2-191 (:4)");
    assert_eq!(told(&mut reader, "0-2-201"), "0-2-201");
}

/// A statement that was logged so many seconds after it had begun.
fn query(seconds: u32, text: &str) -> Vec<u8> {
    let head = [&[0; 4][..], &seconds.to_le_bytes(), &[8, 0, 0, 0, 0]].concat();
    [&head[..], b"delivery\0", text.as_bytes()].concat()
}

/// `delivery`.`outbox` with an INT and a VARCHAR of 80 bytes, without their names.
const TABLE_MAP: &[u8] = b"\x07\0\0\0\0\0\x01\0\x08delivery\0\x06outbox\0\x02\x03\x0f\x02\x50\0\x02";

/// The row 42, `made`.
const ROWS: &[u8] = b"\x07\0\0\0\0\0\x01\0\x02\0\x02\x03\x00\x2a\0\0\0\x04made";

fn of_outbox(dialect: Dialect, position: &str, definition: Definition) -> Reader {
    let columns = ["id".to_owned(), "payload".to_owned()].into();
    let outbox = Subscription { table: TableName::new("delivery", "outbox"), columns };
    Reader::new(Tables::new(dialect, &[outbox], vec![definition]), position.parse().unwrap())
}

fn definition(payload: &str, since: u64) -> Definition {
    Definition::told(&[("id", "int(11)", None), ("payload", payload, Some(80))], since)
}

/// A transaction that makes the table and fills it, up to its first row, as `MySQL` logs it; what became of the row, unless
/// definitions are wanted first.
fn made_and_filled(reader: &mut Reader) -> Option<Result<String, Fault>> {
    let mut gtid = [0; 42];
    gtid[17] = 7;
    let made = query(0, "CREATE TABLE `outbox` (`id` int, `payload` varchar(20)) START TRANSACTION");
    reader.take(&event(kind::GTID, 30, 30, &gtid)).unwrap();
    reader.take(&event(kind::QUERY, 30, 30, &query(0, "BEGIN"))).unwrap();
    reader.take(&event(kind::QUERY, 30, 30, &made)).unwrap();
    filled(reader, kind::WRITE_V2)
}

fn filled(reader: &mut Reader, rows: u8) -> Option<Result<String, Fault>> {
    reader.take(&event(kind::TABLE_MAP, 30, 30, TABLE_MAP)).unwrap();
    assert!(matches!(reader.pop(), Some(LogEvent::Begin { .. })));
    assert!(reader.pop().is_none());
    if reader.wants_definitions() {
        return None;
    }
    reader.take(&event(rows, 30, 30, ROWS)).unwrap();
    Some(match reader.pop() {
        Some(LogEvent::Rows { slot: 0, rows }) => {
            let mut batch = BatchBuilder::new(2);
            rows.append_to(&mut batch).unwrap();
            let batch = batch.take(Arc::default());
            let row = batch.rows().next().unwrap();
            let text = |column| String::from_utf8_lossy(row.get(column).unwrap());
            Ok(format!("{} {}", text(0), text(1)))
        }
        Some(LogEvent::Fault { slot: Some(0), fault }) => Err(fault),
        _ => panic!("a row or a fault of the table"),
    })
}

#[test]
fn given_a_table_that_is_made_and_filled_when_the_log_is_opened_again_then_its_definition_is_used_or_is_a_fault() {
    let mut first = of_outbox(Dialect::MySql, "gtid=", Definition::default());
    assert!(made_and_filled(&mut first).is_none(), "what was read before cannot tell");
    let older = first.older_than_next();
    let again =
        |definition| made_and_filled(&mut of_outbox(Dialect::MySql, "gtid=", definition).knowing(older.clone()));
    assert_eq!(again(definition("varchar(20)", 1)), Some(Ok("42 made".to_owned())));
    for other in [definition("text", 1), definition("varchar(20)", 2)] {
        assert_eq!(again(other).unwrap().unwrap_err().name, "table_definition_changed");
    }
}

#[test]
fn given_a_table_that_is_made_and_filled_when_the_server_does_not_show_it_then_it_is_asked_again_and_not_for_ever() {
    let mut older = Older::None;
    let fault = (0..100).find_map(|_| {
        let mut reader = of_outbox(Dialect::MySql, "gtid=", Definition::default()).knowing(older.clone());
        let outcome = made_and_filled(&mut reader);
        older = reader.older_than_next();
        outcome
    });
    assert_eq!(fault.unwrap().unwrap_err().name, "table_definition_changed");
    let Older::Of(txn, times) = older else { panic!("the transaction is known") };
    assert_eq!((txn.to_string().as_str(), times), ("00000000-0000-0000-0000-000000000000:7", 6));
}

#[test]
fn given_a_table_that_is_filled_for_seconds_when_mariadb_logs_it_then_its_definition_is_not_too_young() {
    // The time of the transaction is when its statement began; the table was made three seconds later.
    let made = |seconds, older| {
        let mut reader = of_outbox(Dialect::MariaDb, "domains=", definition("varchar(20)", 4)).knowing(older);
        reader.take(&event(kind::MARIADB_GTID, 30, 30, &[9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])).unwrap();
        let made = query(seconds, "CREATE TABLE `outbox` (`id` int(11), `payload` varchar(20))");
        reader.take(&event(kind::QUERY, 30, 30, &made)).unwrap();
        (filled(&mut reader, kind::WRITE_V2), reader.older_than_next())
    };
    let (wanted, older) = made(3, Older::None);
    assert!(wanted.is_none());
    assert_eq!(made(3, older.clone()).0, Some(Ok("42 made".to_owned())));
    assert_eq!(made(2, older).0.unwrap().unwrap_err().name, "table_definition_changed");
}

#[test]
fn given_other_statements_that_define_the_table_when_the_log_is_opened_again_then_definitions_are_read_anew_for_them() {
    let mut first = of_outbox(Dialect::MySql, "gtid=", Definition::default());
    assert!(made_and_filled(&mut first).is_none());
    let again = |older| {
        let mut reader = of_outbox(Dialect::MySql, "gtid=", definition("varchar(20)", 1)).knowing(older);
        let mut gtid = [0; 42];
        gtid[17] = 6;
        reader.take(&event(kind::GTID, 30, 30, &gtid)).unwrap();
        reader.take(&event(kind::QUERY, 30, 30, &query(0, "ALTER TABLE `outbox` ENGINE = InnoDB"))).unwrap();
        assert!(matches!(reader.pop(), Some(LogEvent::Begin { .. })));
        assert!(matches!(reader.pop(), Some(LogEvent::Commit)));
        made_and_filled(&mut reader)
    };
    assert!(again(first.older_than_next()).is_none());
    assert_eq!(again(Older::All), Some(Ok("42 made".to_owned())), "all that is read was there before");
}

/// A reader that has met these statements of a transaction. The function `publish_event` fills the table, and a trigger of
/// `orders` does.
fn after(statements: &[&str]) -> Reader {
    let mut told = definition("varchar(20)", 1);
    let feeder = |name, anywhere| Feeder { name: TableName::new("delivery", name), anywhere };
    told.feeders = vec![feeder("publish_event", true), feeder("orders", false)];
    let mut reader = of_outbox(Dialect::MySql, "gtid=", told);
    reader.take(&event(kind::GTID, 30, 30, &[1; 42])).unwrap();
    for text in statements {
        reader.take(&event(kind::QUERY, 30, 30, &query(0, text))).unwrap();
    }
    reader
}

#[test]
fn given_a_function_called_by_any_statement_in_a_transaction_when_it_fills_the_table_then_it_is_a_fault() {
    for (text, faults) in [
        ("SELECT `delivery`.`publish_event`(1)", 1),
        ("INSERT/**/INTO outbox VALUES (1, 'x')", 1),
        ("SET STATEMENT max_statement_time = 60 FOR INSERT INTO outbox VALUES (1, 'x')", 1),
        ("SELECT `delivery`.`another`(1)", 0),
        ("CREATE TEMPORARY TABLE copied AS SELECT * FROM outbox", 0),
        ("CREATE TABLE outbox AS SELECT * FROM another", 1),
        ("CREATE TABLE copied AS SELECT publish_event(1)", 1),
        ("RELEASE SAVEPOINT outbox", 0),
    ] {
        assert_eq!(statement_faults(text), faults, "{text}");
    }
}

/// How often the table is told to have rows of this statement that are not in the log.
fn statement_faults(text: &str) -> usize {
    let mut reader = after(&["BEGIN", text]);
    assert!(matches!(reader.pop(), Some(LogEvent::Begin { .. })));
    let mut found = 0;
    while let Some(event) = reader.pop() {
        let LogEvent::Fault { slot: Some(0), fault } = event else { panic!("{text}: no fault of the table") };
        assert_eq!(fault.name, "statement_format", "{text}");
        found += 1;
    }
    found
}

#[test]
fn given_statement_format_when_a_statement_only_reads_the_table_then_it_is_no_matter() {
    for text in [
        "INSERT INTO other SELECT id FROM outbox",
        "INSERT INTO other SELECT id FROM orders",
        "INSERT INTO other (name) VALUES ('outbox')",
        // As pt-table-checksum writes.
        "REPLACE INTO `percona`.`checksums` (db, tbl, chunk, this_cnt) SELECT 'delivery', 'outbox', '1', COUNT(*) FROM \
         `delivery`.`outbox` FORCE INDEX(`PRIMARY`) WHERE ((`id` >= '1')) /*checksum chunk*/",
        "UPDATE `percona`.`checksums` SET chunk_time = '0.01' WHERE db = 'delivery' AND tbl = 'outbox' AND chunk = '1'",
        "UPDATE other SET id=1 WHERE 'outbox' = 'x'",
        "DELETE FROM other WHERE id IN (SELECT id FROM outbox)",
    ] {
        assert_eq!(statement_faults(text), 0, "{text}");
    }
    for text in [
        "INSERT INTO outbox SELECT id, 'x' FROM other",
        "INSERT INTO orders SELECT id FROM other",
        "REPLACE `delivery`.`outbox` SET id = 1",
        "INSERT INTO other SELECT publish_event(1)",
        "INSERT INTO other VALUES (publish_event(1))",
        "UPDATE other SET id = publish_event(1)",
        "UPDATE orders SET id = 1",
        "UPDATE other JOIN outbox ON TRUE SET outbox.id = 1",
        "DELETE FROM other WHERE publish_event(id)",
        "DELETE orders FROM other JOIN orders WHERE TRUE",
        "WITH c AS (SELECT 1) UPDATE outbox SET id = 1",
        "LOAD DATA INFILE 'x' INTO TABLE outbox (id)",
    ] {
        assert_eq!(statement_faults(text), 1, "{text}");
    }
}

#[test]
fn given_rows_that_a_statement_takes_away_when_they_are_of_others_or_acknowledged_then_nothing_is_said() {
    let marked = format!("ALTER TABLE {CLEANING} `delivery`.`outbox` DROP PARTITION `p0`");
    let exchanged = format!("ALTER TABLE {CLEANING} `outbox` EXCHANGE PARTITION p0 WITH TABLE `outbox~outboxd`");
    for (text, said) in [
        ("TRUNCATE `Outbox`", true),
        ("ALTER/**/TABLE outbox DROP PARTITION p0", true),
        ("ALTER TABLE /* outboxd */ delivery.outbox EXCHANGE PARTITION p0 WITH TABLE copied", true),
        (marked.as_str(), false),
        (exchanged.as_str(), false),
        ("ALTER TABLE outbox10 DROP PARTITION p0", false),
        ("TRUNCATE other.outbox", false),
        // Its trigger fills the table, and is not asked.
        ("TRUNCATE orders", false),
    ] {
        assert_eq!(lost(text), said.then_some(ForeignDml::Truncate), "{text}");
    }
}

/// What a statement that is a transaction of its own is told to take from the table.
fn lost(text: &str) -> Option<ForeignDml> {
    let mut reader = after(&[text]);
    assert!(matches!(reader.pop(), Some(LogEvent::Begin { .. })));
    let (lost, end) = match reader.pop() {
        Some(LogEvent::Foreign { slot: 0, kind }) => (Some(kind), reader.pop()),
        end => (None, end),
    };
    assert!(matches!(end, Some(LogEvent::Commit)), "{text}");
    lost
}

#[test]
fn given_a_table_that_is_dropped_renamed_or_replaced_when_read_then_it_is_told_of_that_table_alone() {
    for (text, said) in [
        ("DROP TABLE IF EXISTS `other`, `Outbox` /* generated by server */", true),
        ("SET STATEMENT lock_wait_timeout = 1 FOR DROP TABLE outbox", true),
        ("RENAME TABLE outbox TO outbox_old, outbox_new TO outbox", true),
        ("RENAME TABLES delivery.outbox TO away.outbox", true),
        ("ALTER TABLE outbox ENGINE = InnoDB, RENAME AS away", true),
        ("CREATE OR REPLACE TABLE `delivery`.`outbox` LIKE other", true),
        ("CREATE OR REPLACE TABLE outbox (id INT)", true),
        ("DROP SCHEMA IF EXISTS `Delivery`", true),
        ("CREATE OR REPLACE DATABASE delivery", true),
        ("DROP TABLE outbox_old, other.outbox, `outbox~outboxd`", false),
        ("DROP /*!40005 TEMPORARY */ TABLE IF EXISTS `outbox`", false),
        ("RENAME TABLE outbox_new TO outbox_old", false),
        ("ALTER TABLE outbox RENAME COLUMN payload TO body, RENAME KEY a TO b", false),
        ("ALTER TABLE outbox ADD COLUMN more INT", false),
        ("CREATE OR REPLACE TABLE other LIKE outbox", false),
        ("CREATE TABLE outbox (id INT)", false),
        ("DROP DATABASE `delivery-old`", false),
    ] {
        assert_eq!(lost(text), said.then_some(ForeignDml::Drop), "{text}");
    }
}

#[test]
fn given_a_view_or_a_trigger_that_is_made_when_it_changes_the_table_by_others_then_definitions_are_read_anew() {
    for (text, wanted) in [
        ("CREATE VIEW shown AS SELECT * FROM outbox", true),
        ("CREATE TRIGGER t AFTER INSERT ON orders FOR EACH ROW SET @n = publish_event(NEW.id)", true),
        ("DROP FUNCTION publish_event", true),
        ("CREATE VIEW shown AS SELECT * FROM another", false),
        ("ALTER TABLE publish_event ADD a INT", false),
    ] {
        let reader = after(&[text]);
        assert_eq!(reader.wants_definitions(), wanted, "{text}");
    }
}
