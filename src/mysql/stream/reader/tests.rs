use super::*;
use crate::mysql::decode::{Dialect, Header};

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
    // Stop, rows query, annotate, ignorable and those of servers to come.
    for code in [kind::STOP, 29, 160, 28, 35, 161, 163, 200] {
        reader.take(&event(code, 30, 30, &[1, 2, 3])).unwrap();
        assert!(reader.pop().is_none(), "{code}");
    }
    for code in [kind::HEARTBEAT, kind::HEARTBEAT_V2] {
        reader.take(&event(code, 30, 30, &[1, 2, 3])).unwrap();
        assert!(matches!(reader.pop(), Some(LogEvent::Progress)), "{code}");
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
