//! Seeds out of the captured binlogs, and of a server's side of a login.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use outboxd::mysql::decode::{
    Checksum, ColumnType, ColumnValue, DecodeError, Dialect, Event, RowsEvent, TableMap, event_size, kind,
};

/// A seed: its target, its name, and its bytes.
type Seed = (&'static str, String, Vec<u8>);

const LOGS: [&str; 4] = ["mysql_9_7_full", "mysql_9_7_minimal", "mariadb_11_8_full", "mariadb_11_8_no_log"];

pub(crate) fn all() -> Vec<Seed> {
    let mut seeds = servers();
    seeds.extend(values().map(|(name, bytes)| ("json", name.to_owned(), bytes.to_vec())));
    seeds.push(("payload", "plain".to_owned(), PLAIN_PAYLOAD.to_vec()));
    seeds.push(("payload", "empty".to_owned(), vec![1, 1, 0, 0]));
    let mut known = HashSet::new();
    for name in LOGS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/{name}.binlog"));
        let bytes = fs::read(path).unwrap();
        of_log(name, &bytes, &mut seeds);
        seeds.push(("file", name.to_owned(), bytes));
    }
    let damaged: Vec<Seed> = seeds.iter().filter(|(target, ..)| *target == "file").map(cut).collect();
    seeds.extend(damaged);
    seeds.retain(|(target, _, bytes)| known.insert((*target, bytes.clone())));
    seeds
}

/// A file that ends within an event.
fn cut((target, name, bytes): &Seed) -> Seed {
    (*target, format!("{name}-cut"), bytes[..bytes.len() * 2 / 3].to_vec())
}

fn of_log(name: &str, bytes: &[u8], seeds: &mut Vec<Seed>) {
    let dialect = if name.starts_with("maria") { Dialect::MariaDb } else { Dialect::MySql };
    let maria = u8::from(dialect == Dialect::MariaDb);
    let (mut rest, mut kinds, mut maps) = (&bytes[4..], HashSet::new(), HashMap::new());
    let mut checksum = Checksum::None;
    let (mut transaction, mut log) = (Vec::new(), Vec::new());
    while !rest.is_empty() {
        let at = bytes.len() - rest.len();
        let (whole, behind) = rest.split_at(event_size(rest).unwrap() as usize);
        rest = behind;
        if whole[4] == kind::FORMAT_DESCRIPTION {
            checksum = Checksum::announced_by(whole).unwrap();
        }
        let event = Event::parse(whole, checksum).unwrap();
        let code = event.header.kind;
        if kinds.insert(code) {
            seeds.push(("event", format!("{name}-{code}"), whole.to_vec()));
        }
        match code {
            kind::TABLE_MAP => {
                let map = TableMap::parse_as(event.body, dialect).unwrap();
                maps.insert(map.table_id, (map, event.body.to_vec()));
            }
            kind::WRITE_V1 | kind::WRITE_V2 => {
                let rows = RowsEvent::parse(code, event.body).unwrap();
                let (map, body) = &maps[&rows.table_id];
                let flags = maria | if code == kind::WRITE_V2 { 2 } else { 0 } | 4;
                let length = u16::try_from(body.len()).unwrap().to_le_bytes();
                let seed = [&[flags, length[0], length[1]], &body[..], event.body].concat();
                seeds.push(("rows", format!("{name}-{at}"), seed));
                documents(rows, map, |number, document| {
                    seeds.push(("json", format!("{name}-{at}-{number}"), document.to_vec()));
                });
            }
            kind::TRANSACTION_PAYLOAD => seeds.push(("payload", format!("{name}-{at}"), event.body.to_vec())),
            _ => {}
        }
        let length = u16::try_from(event.body.len()).unwrap().to_le_bytes();
        let framed = [&[code, length[0], length[1]], event.body].concat();
        log.extend_from_slice(&framed);
        transaction.extend_from_slice(&framed);
        if matches!(code, kind::XID | kind::TRANSACTION_PAYLOAD | kind::XA_PREPARE) {
            seeds.push(("log", format!("{name}-{at}"), [&[maria], &transaction[..]].concat()));
            transaction.clear();
        }
    }
    for archived in [0, 2] {
        seeds.push(("log", format!("{name}-whole-{archived}"), [&[maria | archived], &log[..]].concat()));
    }
}

/// The JSON documents of rows, in binary.
fn documents(mut rows: RowsEvent<'_>, map: &TableMap, mut found: impl FnMut(usize, &[u8])) {
    let wanted: Vec<_> = (0..map.columns.len()).map(Some).collect();
    let mut number = 0;
    let mut read = |_, value: ColumnValue<'_>| {
        if let ColumnValue::Value(value) = value
            && value.column().ty == ColumnType::Json
        {
            found(number, value.bytes());
            number += 1;
        }
        Ok::<_, DecodeError>(())
    };
    while rows.next_row(map, &wanted, &mut read).unwrap() {}
}

/// Documents that the captured logs do not have.
fn values() -> impl Iterator<Item = (&'static str, &'static [u8])> {
    let large = b"\x01\x02\0\0\0\x2d\0\0\0\x1e\0\0\0\x01\0\x1f\0\0\0\x02\0\x07\xff\xff\xff\xff\x03\x21\0\0\0abb\
                  \0\0\0\0\x08\0\0\0";
    [
        ("literal", &b"\x04\x01"[..]),
        ("integers", b"\x02\x02\0\x0a\0\x05\xff\xff\x06\xff\xff"),
        ("uint64", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff"),
        ("double", b"\x0b\0\0\0\0\0\0\xf8\x3f"),
        ("text", b"\x0c\x0aa\"\\\n\x01\xed\x95\x9c\x7f/"),
        ("decimal", b"\x0f\xf6\x05\x05\x02\x80\x07\x05"),
        ("datetime", b"\x0f\x0c\x08\0\0\0\xa0\x42\xa5\xb2\x19"),
        ("blob", b"\x0f\xfc\x03\x01\x02\x03"),
        ("large", large),
    ]
    .into_iter()
}

/// A transaction of one event, compressed not at all.
const PLAIN_PAYLOAD: &[u8] = b"\x01\x01\x14\x02\x03\xfc\xff\0\0\0\0\0\0\x10\x01\0\0\0\x14\0\0\0\0\0\0\0\0\0\x01";

/// A key of 1024 bits that was made for this and nothing else.
const KEY: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDdOJ7/5LDuSZ0ocG1gdq+do0wA
Shcax7s6YM5t57Su9zUnG2dgYDtI/e/rGJcw+33pQOBq+YC67ORY2CajYWQohP7A
0GV9XV2BNGClfZ+s6x3a1tE79dt9MWT9CNcbEFLYeJcD43PbgtxGDk3FwPg7ayge
JCgUKE01xbPH914RBQIDAQAB
-----END PUBLIC KEY-----
";

/// What servers say on a connection.
fn servers() -> Vec<Seed> {
    let ok: &[u8] = &[0, 0, 0, 2, 0, 0, 0];
    let gtid: &[u8] = &[0, 1, 0, 0, 0, 33, 1, 0, 0, 0, 19, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let end: &[u8] = &[0xfe, 0, 0, 2, 0];
    let native = greeting("5.5.5-10.11.6-MariaDB", "mysql_native_password");
    let sha2 = greeting("9.7.4", "caching_sha2_password");
    let switch = [b"\xfeclient_ed25519\0", &[7; 32][..]].concat();
    let key = [b"\x01", KEY.as_bytes()].concat();
    let denied: &[u8] = b"\xff\x15\x04#28000Access denied";
    let conversations: [(&str, &[&[u8]]); 5] = [
        ("native", &[&native, ok, ok, gtid, end]),
        ("sha2-known", &[&sha2, &[1, 3], ok, ok, gtid, gtid]),
        ("sha2-key", &[&sha2, &[1, 4], &key, ok, ok, gtid]),
        ("switch", &[&native, &switch, ok, ok, gtid]),
        ("denied", &[&sha2, denied]),
    ];
    let packets = |said: &[&[u8]]| said.iter().zip(0..).flat_map(|(payload, number)| packet(payload, number)).collect();
    conversations.iter().map(|(name, said)| ("server", (*name).to_owned(), packets(said))).collect()
}

fn packet(payload: &[u8], number: u8) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_le_bytes();
    [&[length[0], length[1], 0, number], payload].concat()
}

/// `HandshakeV10` with every capability that servers have.
fn greeting(version: &str, plugin: &str) -> Vec<u8> {
    let mut body = vec![10];
    body.extend_from_slice(version.as_bytes());
    body.extend_from_slice(&[0, 9, 0, 0, 0]);
    body.extend_from_slice(b"scramble\0\xff\xff\x2d\x02\0\xff\xdf\x15");
    body.extend_from_slice(&[0; 10]);
    body.extend_from_slice(b"more scrambl\0");
    body.extend_from_slice(plugin.as_bytes());
    body.push(0);
    body
}
