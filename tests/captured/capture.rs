//! Makes the files of `tests/data` on real servers: `make captures`.
//!
//! What a file must yield is what the server answers to SELECT while the case runs, not what our decoder reads: after the
//! statements of a step, all rows of the outbox that were not there before, by id, in the form that `outboxd decode` gives.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder, Row};
use outboxd::mysql::decode::{Checksum, Event, event_size, kind};
use outboxd::services::Service;
use serde_json::{Map, Value, json};

use super::cases::{Case, MYSQL, Step, cases};
use super::decode::path;

/// How long a prepared transaction may belong to the session that is gone.
const PATIENCE: Duration = Duration::from_secs(20);

/// The outbox tables of the schema, and what of them was seen.
#[derive(Default)]
struct Seen {
    ids: HashSet<String>,
    kept: Vec<Value>,
}

struct Server {
    service: Service,
    name: &'static str,
}

impl Server {
    async fn session(&self) -> Conn {
        let opts = OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(self.service.port())
            .user(Some("admin"))
            .pass(Some("admin"));
        Conn::new(opts).await.unwrap()
    }

    async fn run(conn: &mut Conn, statement: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match conn.query_drop(statement).await {
                Ok(()) => return,
                // XAER_NOTA: the transaction belongs to its session until that has ended.
                Err(mysql_async::Error::Server(error)) if error.code == 1397 && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{statement:.200}: {error}"),
            }
        }
    }

    /// Runs a case; gives the files of the log that it was written to, and the rows.
    async fn write(&self, case: &Case) -> (Vec<PathBuf>, Vec<Value>) {
        let mut conn = self.session().await;
        let mut before = Vec::new();
        for (name, value) in &case.globals {
            let old: String = conn.query_first(format!("SELECT CONCAT(@@GLOBAL.{name})")).await.unwrap().unwrap();
            before.push((name, old));
            Self::run(&mut conn, &format!("SET GLOBAL {name} = {value}")).await;
        }
        for statement in ["DROP DATABASE IF EXISTS delivery", "CREATE DATABASE delivery", "FLUSH BINARY LOGS"] {
            Self::run(&mut conn, statement).await;
        }
        let old = logs(&mut conn).await.len() - 1;
        conn = self.session().await;
        Self::run(&mut conn, "USE delivery").await;
        let mut seen = Seen::default();
        for step in &case.steps {
            match step {
                Step::Run(statement) => Self::run(&mut conn, statement).await,
                Step::Refused(statement) => assert!(conn.query_drop(statement).await.is_err(), "{statement:.200}"),
                Step::Aside(statements) => {
                    let mut aside = self.session().await;
                    Self::run(&mut aside, "USE delivery").await;
                    for statement in statements {
                        Self::run(&mut aside, statement).await;
                    }
                    aside.disconnect().await.unwrap();
                }
                Step::Keep => seen.look(&mut self.session().await, true).await,
                Step::Pass => seen.look(&mut self.session().await, false).await,
            }
        }
        Self::run(&mut conn, "FLUSH BINARY LOGS").await;
        let logs = logs(&mut conn).await;
        let data = self.service.dir().join("data");
        let files = logs[old..logs.len() - 1].iter().map(|file| data.join(file)).collect();
        for statement in &case.after {
            Self::run(&mut conn, statement).await;
        }
        for (name, old) in before.into_iter().rev() {
            let old = if old.bytes().all(|byte| byte.is_ascii_digit()) { old } else { format!("'{old}'") };
            Self::run(&mut conn, &format!("SET GLOBAL {name} = {old}")).await;
        }
        (files, seen.kept)
    }
}

async fn logs(conn: &mut Conn) -> Vec<String> {
    let rows: Vec<Row> = conn.query("SHOW BINARY LOGS").await.unwrap();
    rows.iter().map(|row| row.get(0).unwrap()).collect()
}

impl Seen {
    async fn look(&mut self, conn: &mut Conn, keep: bool) {
        let columns = "SELECT COLUMN_NAME, DATA_TYPE FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = 'delivery' \
                       AND TABLE_NAME = 'delivery-outbox1' ORDER BY ORDINAL_POSITION";
        let columns: Vec<(String, String)> = conn.query(columns).await.unwrap();
        let questions: Vec<String> = columns.iter().map(|(name, ty)| question(name, ty)).collect();
        let select = format!("SELECT {} FROM delivery.`delivery-outbox1` ORDER BY id", questions.join(", "));
        for row in conn.query::<Row, _>(select).await.unwrap() {
            let mut object = Map::new();
            for (index, (name, ty)) in columns.iter().enumerate() {
                let text: Option<Vec<u8>> = row.get(index).unwrap();
                object.insert(name.clone(), text.map_or(Value::Null, |text| value(ty, text)));
            }
            if self.ids.insert(object["id"].to_string()) && keep {
                self.kept.push(Value::Object(object));
            }
        }
    }
}

fn is_binary(ty: &str) -> bool {
    ty.ends_with("binary") || ty.ends_with("blob") || matches!(ty, "bit" | "point" | "geometry")
}

/// How to ask for a column.
fn question(name: &str, ty: &str) -> String {
    match ty {
        // Their number.
        "enum" | "set" => format!("CONCAT(`{name}` + 0)"),
        "bit" => format!("LPAD(HEX(`{name}`), 4, '0')"),
        ty if is_binary(ty) => format!("HEX(`{name}`)"),
        _ => format!("CONCAT(`{name}`)"),
    }
}

/// The answer as `outboxd decode` writes it.
fn value(ty: &str, text: Vec<u8>) -> Value {
    let text = String::from_utf8(text).unwrap();
    if is_binary(ty) {
        let bytes: Vec<u8> =
            (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect();
        let shown =
            if matches!(ty, "bit" | "point" | "geometry") { None } else { String::from_utf8(bytes.clone()).ok() };
        return shown.map_or_else(|| json!({ "base64": base64(&bytes) }), Value::String);
    }
    let number = ty.ends_with("int") || matches!(ty, "enum" | "set" | "float" | "double" | "json");
    if number { serde_json::from_str(&text).unwrap() } else { Value::String(text) }
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |group: u32, at: u32| char::from(DIGITS[(group >> (18 - 6 * at) & 63) as usize]);
    let encode = |chunk: &[u8]| {
        let group = chunk.iter().enumerate().fold(0, |group, (at, byte)| group | u32::from(*byte) << (16 - 8 * at));
        (0..4).map(|at| if at as usize > chunk.len() { '=' } else { digit(group, at) }).collect::<String>()
    };
    bytes.chunks(3).map(encode).collect()
}

/// What no server can be asked to write: a payload with a damaged byte, and a file that ends within an event.
fn damaged(written: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let whole = std::fs::read(written).unwrap();
    let (mut at, mut payloads) = (4, Vec::new());
    while at < whole.len() {
        let size = event_size(&whole[at..]).unwrap() as usize;
        if Event::parse(&whole[at..at + size], Checksum::None).unwrap().header.kind == kind::TRANSACTION_PAYLOAD {
            payloads.push(at..at + size);
        }
        at += size;
    }
    let last = payloads.last().unwrap();
    let mut damaged = whole.clone();
    // In the last of them, amid the compressed bytes.
    damaged[last.end - 10] ^= 0x55;
    vec![("mysql_9_7_damaged_payload", damaged), ("mysql_9_7_truncated", whole[..last.end - 10].to_vec())]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes the files of tests/data anew; `make captures`"]
async fn captures() {
    let wanted = std::env::var("CASES").unwrap_or_default();
    let wanted = |case: &Case| wanted.is_empty() || wanted.split(',').any(|name| name == case.name);
    let script = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/services"));
    let mut cases = cases();
    cases.retain(wanted);
    let servers: HashSet<&str> = cases.iter().flat_map(|case| case.servers.iter().copied()).collect();
    for name in servers {
        let server = Server { service: Service::hold(script, name, &[]).unwrap(), name };
        for case in cases.iter().filter(|case| case.servers.contains(&name)) {
            let (files, rows) = server.write(case).await;
            let base = case.file(server.name);
            for (index, file) in files.iter().enumerate() {
                let number = if index == 0 { String::new() } else { format!(".{}", index + 1) };
                std::fs::copy(file, path(&format!("{base}{number}.binlog"))).unwrap();
            }
            let lines: Vec<String> = rows.iter().map(|row| format!("{row}\n")).collect();
            std::fs::write(path(&format!("{base}.jsonl")), lines.concat()).unwrap();
            if (server.name, case.name) == (MYSQL, "payload_without_checksum") {
                for (name, bytes) in damaged(&files[0]) {
                    std::fs::write(path(&format!("{name}.binlog")), bytes).unwrap();
                }
            }
        }
    }
}
