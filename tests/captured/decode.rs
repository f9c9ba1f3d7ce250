//! `outboxd decode`, on files alone.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::cases::{Case, cases};

pub(crate) fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "data", name].iter().collect()
}

/// `outboxd decode`, without any configuration.
fn outboxd(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outboxd"));
    command.current_dir(std::env::temp_dir()).env("NO_COLOR", "1").arg("decode").args(arguments);
    command
}

fn lines(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The outbox of most files.
pub(crate) const TABLE: &str = "delivery-outbox1";

/// What files of `tests/data` yield for it, as the library's user gets it: by the command. `names`: those of the columns.
pub(crate) fn decode(files: &[impl AsRef<str>], names: &str) -> Output {
    let mut command = outboxd(&["--tables", &format!("delivery.{TABLE}")]);
    if !names.is_empty() {
        command.args(["--columns", names]);
    }
    command.arg("--").args(files.iter().map(|name| path(name.as_ref()))).output().unwrap()
}

fn decoded(name: &str) -> Vec<Value> {
    lines(&outboxd(&[path(name).to_str().unwrap(), "--tables", "delivery.*outbox*"]).output().unwrap())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn columns(lines: &[Value]) -> Vec<Value> {
    lines.iter().map(|line| line["columns"].clone()).collect()
}

/// The rows that the server answered, in the order in which they were inserted.
fn selected(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(path(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Whether they are the same; a number may be written in another way.
pub(crate) fn same(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Number(ours), Value::Number(theirs)) if ours.is_f64() || theirs.is_f64() => {
            ours.as_f64() == theirs.as_f64()
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(ours, theirs)| same(ours, theirs))
        }
        (Value::Object(ours), Value::Object(theirs)) => {
            ours.len() == theirs.len()
                && ours.iter().all(|(name, ours)| theirs.get(name).is_some_and(|theirs| same(ours, theirs)))
        }
        _ => ours == theirs,
    }
}

/// The files that a case was written to on a server, by name, in their order.
pub(crate) fn files(case: &Case, server: &str) -> Vec<String> {
    let base = case.file(server);
    let later = (2..).map(|number| format!("{base}.{number}.binlog")).take_while(|name| path(name).exists());
    std::iter::once(format!("{base}.binlog")).chain(later).collect()
}

#[test]
fn given_each_case_when_its_files_are_decoded_then_its_rows_are_those_that_the_server_answered() {
    for case in cases() {
        for server in case.servers {
            let output = decode(&files(&case, server), case.names);
            let (name, said) = (case.file(server), said(&output));
            assert_eq!(output.status.code(), Some(case.code), "{name}: {said}");
            let (ours, theirs) = (columns(&lines(&output)), selected(&format!("{name}.jsonl")));
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert!(same(ours, theirs), "{name}: {ours}\nis not {theirs}");
            }
            assert_eq!(ours.len(), theirs.len(), "{name}: {said}");
            assert!(!ours.is_empty(), "{name}");
            for part in case.said {
                assert!(said.contains(part), "{name}: {said}");
            }
        }
    }
}

#[test]
fn given_files_that_no_server_writes_when_decoded_then_what_is_whole_is_there_and_the_rest_is_a_fault() {
    let whole = selected("mysql_9_7_payload_without_checksum.jsonl");
    for (name, fault) in [("damaged_payload", "damaged_event at "), ("truncated", "damaged_event at ")] {
        let file = path(&format!("mysql_9_7_{name}.binlog"));
        let output = outboxd(&[file.to_str().unwrap(), "--tables", "delivery.*"]).output().unwrap();
        assert_eq!(output.status.code(), Some(65), "{name}");
        assert_eq!(columns(&lines(&output)), whole[..2], "{name}: the transaction before it, and nothing of it");
        assert!(said(&output).contains(fault), "{name}: {}", said(&output));
    }
}

#[test]
fn given_files_of_real_servers_when_decoded_then_the_rows_are_those_that_the_server_answers() {
    for name in ["mysql_9_7_full", "mariadb_11_8_full"] {
        let file = path(&format!("{name}.binlog"));
        let output = outboxd(&[file.to_str().unwrap(), "--tables", "delivery.delivery-outbox{1..4}"]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let lines = lines(&output);
        assert_eq!(columns(&lines), selected(&format!("{name}.jsonl")), "{name}");
        let first = &lines[0];
        assert_eq!(first["table"], "delivery.delivery-outbox1");
        assert!(first["position"].as_str().unwrap().starts_with(&format!("{name}.binlog:")));
        assert!(first["gtid"].as_str().unwrap().ends_with(if name.starts_with("mysql") { ":4" } else { "-4" }));
        assert!(first["commit_time"].as_str().unwrap().starts_with("2026-11-21T17:"), "{first}");
        let summary = "8 rows of 5 transactions; passed over: 2 UPDATE, 0 DELETE and 0 TRUNCATE events; 0 not decoded";
        assert!(said(&output).contains(summary), "{}", said(&output));
    }
}

#[test]
fn given_a_log_without_names_when_decoded_then_columns_have_numbers_or_the_names_that_are_given() {
    let file = path("mysql_9_7_minimal.binlog");
    let full = selected("mysql_9_7_full.jsonl");
    let lines = decoded("mysql_9_7_minimal.binlog");
    assert_eq!(lines.len(), full.len());
    assert_eq!(lines[0]["gtid"], Value::Null, "written with gtid_mode=OFF");
    assert_eq!(lines[0]["columns"]["c1"], 18_446_744_073_709_551_615_u64);
    assert_eq!(lines[0]["columns"]["c18"], full[0]["payload"]);
    let header = "id,aggregate_type,aggregate_id,created,stamped,amount,small,medium,ratio,day,clock,era,state,flags,\
                 latin,note,raw,payload";
    let named = [file.to_str().unwrap(), "--tables", "delivery.*outbox*", "--columns", header];
    assert_eq!(columns(&self::lines(&outboxd(&named).output().unwrap())), full);
    let output = outboxd(&[&named[..4], &["id,payload"]].concat()).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(65), 0));
    assert!(said(&output).contains("column_names at mysql_9_7_minimal.binlog:"), "{}", said(&output));
    assert!(said(&output).contains("18 columns without names, and 2 names are given"));
}

#[test]
fn given_a_log_without_any_metadata_when_decoded_then_nothing_is_guessed() {
    let file = path("mariadb_11_8_no_log.binlog");
    let output = outboxd(&[file.to_str().unwrap(), "--tables", "delivery.*outbox*"]).output().unwrap();
    assert_eq!(output.status.code(), Some(65));
    let said = said(&output);
    // The first row's id has its highest bit set: it is another number if it is UNSIGNED.
    assert!(said.contains("undecodable_row at mariadb_11_8_no_log.binlog:1843: delivery.delivery-outbox1"), "{said}");
    assert!(said.contains("1 not decoded"), "{said}");
    let ids: Vec<_> = lines(&output).iter().map(|line| line["columns"]["c1"].as_u64().unwrap()).collect();
    assert_eq!(ids, [2, 3, 10, 12, 20, 30, 31]);
}

#[test]
fn given_standard_input_and_several_files_when_decoded_then_all_are_read_and_the_worst_is_the_exit_code() {
    let file = path("mysql_9_7_full.binlog");
    let encrypted = tempfile::NamedTempFile::new().unwrap();
    encrypted.as_file().write_all(b"\xfdbin\x01").unwrap();
    let missing = "/nowhere/binlog.000001";
    let run = |files: &[&str]| {
        let arguments = [files, &["--tables", "delivery.*", "--format", "json"]].concat();
        outboxd(&arguments).stdin(Stdio::from(File::open(&file).unwrap())).output().unwrap()
    };
    let output = run(&["-"]);
    assert_eq!((output.status.code(), lines(&output).len()), (Some(0), 10), "{}", said(&output));
    assert_eq!(lines(&output)[0]["position"].as_str().unwrap().split(':').next(), Some("-"));
    let output = run(&[missing, "-"]);
    assert_eq!((output.status.code(), lines(&output).len()), (Some(66), 10), "{}", said(&output));
    assert!(said(&output).contains(missing));
    let output = run(&[missing, encrypted.path().to_str().unwrap(), "-"]);
    assert_eq!((output.status.code(), lines(&output).len()), (Some(65), 10));
    assert!(said(&output).contains("encrypted_binlog at "), "{}", said(&output));
}

#[test]
fn given_a_file_that_is_cut_or_damaged_when_decoded_then_what_came_before_is_there_and_the_place_is_said() {
    let whole = std::fs::read(path("mysql_9_7_full.binlog")).unwrap();
    let position = decoded("mysql_9_7_full.binlog")[5]["position"].as_str().unwrap().to_owned();
    let at: usize = position.split_once(':').unwrap().1.parse().unwrap();
    let run = |bytes: &[u8]| {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all(bytes).unwrap();
        let output = outboxd(&[file.path().to_str().unwrap(), "--tables", "delivery.*outbox*"]).output().unwrap();
        assert_eq!((output.status.code(), lines(&output).len()), (Some(65), 5), "{}", said(&output));
        said(&output)
    };
    assert!(run(&whole[..at]).contains("transaction_cut_short at "));
    assert!(run(&whole[..at + 30]).contains("damaged_event at "));
    let mut damaged = whole.clone();
    damaged[at + 40] ^= 1;
    let said = run(&damaged);
    assert!(said.contains("checksum") && said.contains(&format!(":{at})")), "{said}");
}

#[test]
fn given_no_tables_when_decoded_then_they_are_those_of_the_configuration_or_it_is_an_error() {
    let file = path("mysql_9_7_full.binlog");
    let output = outboxd(&[file.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(64), "{}", said(&output));
    let mut command = outboxd(&[file.to_str().unwrap()]);
    command
        .env("OUTBOXD__MYSQL__URL", "mysql://outboxd@127.0.0.1")
        .env("OUTBOXD__KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:9092")
        .env("OUTBOXD__OUTBOX__0__TABLES", "delivery.delivery-outbox{1..2}")
        .env("OUTBOXD__OUTBOX__0__TOPIC", "delivery");
    let output = command.output().unwrap();
    assert_eq!((output.status.code(), lines(&output).len()), (Some(0), 8), "{}", said(&output));
}
