//! Judgement without a server: facts changed one at a time, and the one finding each leads to.

use super::facts::{Column, Facts, Refusal, Replica, Skew, Table};
use super::*;
use crate::mysql::cleanup::settings::By;
use crate::mysql::connect::Flavor;
use crate::preflight::{Name, Status};

const SERVER: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

fn column(name: &str, kind: &str, octets: Option<u64>) -> Column {
    let text = octets.is_some();
    Column {
        name: name.to_owned(),
        kind: kind.to_owned(),
        charset: text.then(|| "utf8mb4".to_owned()),
        collation: text.then_some(45),
        octets,
        ..Column::default()
    }
}

fn good() -> Facts {
    let variables = [
        ("log_bin", "ON"),
        ("binlog_format", "ROW"),
        ("binlog_row_image", "FULL"),
        ("binlog_row_metadata", "FULL"),
        ("binlog_expire_logs_seconds", "2592000"),
        ("gtid_mode", "ON"),
        ("log_replica_updates", "ON"),
        ("max_allowed_packet", "67108864"),
        ("server_id", "1"),
    ];
    Facts {
        flavor: Flavor { mariadb: false, version: (8, 4, 0) },
        account: "'u'@'%'".to_owned(),
        variables: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        privileges: vec!["REPLICATION SLAVE".to_owned(), "REPLICATION CLIENT".to_owned()],
        filters: Some((String::new(), String::new())),
        is_replica: Some(false),
        unreceived: None,
        replicas: Some(Vec::new()),
        skew: Skew::default(),
        logs: Some(vec![("binlog.000002".to_owned(), 1000)]),
        beginning: Some(format!("gtid={SERVER}:1-10").parse().unwrap()),
        end: Some(format!("gtid={SERVER}:1-90").parse().unwrap()),
        transactional: vec!["InnoDB".to_owned()],
        tables: vec![Table {
            name: TableName::new("d", "o-1"),
            spelling: Some(TableName::new("d", "o-1")),
            refusal: None,
            kind: "BASE TABLE".to_owned(),
            engine: "InnoDB".to_owned(),
            has_primary_key: true,
            read_by: Some("id".to_owned()),
            is_numbered: false,
            columns: vec![column("id", "char(36)", Some(144)), column("payload", "json", None)],
            indexed: vec!["id".to_owned()],
            undeletable: None,
            ranges: 0,
        }],
    }
}

fn maria(mut facts: Facts) -> Facts {
    facts.flavor = Flavor { mariadb: true, version: (11, 8, 6) };
    facts.variables.remove("gtid_mode");
    facts.variables.insert("gtid_strict_mode".to_owned(), "ON".to_owned());
    facts.beginning = Some("domains=0-1-10".parse().unwrap());
    facts.end = Some("domains=0-1-90".parse().unwrap());
    facts
}

fn wanted() -> Vec<Wanted> {
    let column = |name: &str, required| WantedColumn { name: name.to_owned(), required };
    let columns = vec![column("id", true), column("payload", false)];
    vec![Wanted { table: TableName::new("d", "o-1"), columns, reads_table: true, recovers: false, cleaned: None }]
}

fn saved(position: &str) -> Store {
    Store::of(&[("d.o-1", position)])
}

/// Everything that did not pass.
fn found(facts: &Facts, store: &Store, server_id: ServerId) -> Vec<Check> {
    let mut checks = binlog::check(facts, &wanted());
    checks.extend(identity::check(facts, server_id, Some(store)));
    checks.extend(grants::check(facts));
    checks.extend(tables::check(facts, &wanted()));
    checks.extend(positions::check(facts, &wanted(), store));
    assert!(checks.iter().all(|check| check.cure.is_some() == (check.status != Status::Passed)), "{checks:#?}");
    checks.retain(|check| check.status != Status::Passed);
    checks
}

const OURS: ServerId = ServerId { id: 7, configured: true, is_shown: false };

#[track_caller]
fn gives(facts: &Facts, name: Name, status: Status, cure: &str) {
    let found = found(facts, &saved(&facts.end.as_ref().unwrap().to_string()), OURS);
    assert_eq!(
        found.iter().map(|check| (check.name, check.status)).collect::<Vec<_>>(),
        [(name, status)],
        "{found:#?}"
    );
    assert!(found[0].cure.as_ref().unwrap().contains(cure), "{found:#?}");
}

#[test]
fn given_a_server_as_it_should_be_when_checked_then_everything_passes() {
    for facts in [good(), maria(good())] {
        let end = facts.end.as_ref().unwrap().to_string();
        assert_eq!(found(&facts, &saved(&end), OURS), []);
    }
}

#[test]
fn given_one_wrong_variable_when_checked_then_it_alone_is_found_with_its_cure() {
    for (variable, value, name, status, cure) in [
        ("log_bin", "OFF", Name::LogBin, Status::Failed, "log_bin"),
        ("binlog_format", "MIXED", Name::BinlogFormat, Status::Failed, "SET PERSIST binlog_format = 'ROW'"),
        ("binlog_row_image", "MINIMAL", Name::BinlogRowImage, Status::Warned, "SET PERSIST binlog_row_image = 'FULL'"),
        (
            "binlog_row_metadata",
            "MINIMAL",
            Name::BinlogRowMetadata,
            Status::Warned,
            "SET PERSIST binlog_row_metadata = 'FULL'; until then do not reorder or rename columns",
        ),
        (
            "binlog_expire_logs_seconds",
            "3600",
            Name::BinlogExpiry,
            Status::Warned,
            "binlog_expire_logs_seconds = 604800",
        ),
        ("gtid_mode", "OFF_PERMISSIVE", Name::GtidMode, Status::Warned, "gtid_mode = ON_PERMISSIVE"),
        ("server_id", "7", Name::ServerId, Status::Failed, "leave it out"),
    ] {
        let mut facts = good();
        facts.variables.insert(variable.to_owned(), value.to_owned());
        gives(&facts, name, status, cure);
    }
    let mut facts = maria(good());
    facts.variables.remove("binlog_expire_logs_seconds");
    facts.variables.insert("expire_logs_days".to_owned(), "0.500000".to_owned());
    gives(&facts, Name::BinlogExpiry, Status::Warned, "SET GLOBAL expire_logs_days = 7");
    facts = maria(good());
    facts.variables.insert("gtid_strict_mode".to_owned(), "OFF".to_owned());
    gives(&facts, Name::GtidStrictMode, Status::Warned, "SET GLOBAL gtid_strict_mode = ON");
    facts = good();
    facts.variables.insert("binlog_expire_logs_seconds".to_owned(), "0".to_owned());
    assert_eq!(found(&facts, &saved(&facts.end.as_ref().unwrap().to_string()), OURS), []);
}

#[test]
fn given_images_that_leave_columns_out_when_an_insert_may_do_so_then_the_check_fails() {
    let mut facts = good();
    facts.tables[0].columns[1].nullable = true;
    for image in ["MINIMAL", "NOBLOB"] {
        facts.variables.insert("binlog_row_image".to_owned(), image.to_owned());
        gives(&facts, Name::BinlogRowImage, Status::Failed, "reconnect");
    }
    facts.variables.insert("binlog_row_image".to_owned(), "FULL_NODUP".to_owned());
    assert_eq!(found(&facts, &saved(&facts.end.as_ref().unwrap().to_string()), OURS), []);
    facts.tables[0].columns[1].nullable = false;
    facts.tables[0].columns[0].has_default = true;
    facts.variables.insert("binlog_row_image".to_owned(), "NOBLOB".to_owned());
    gives(&facts, Name::BinlogRowImage, Status::Warned, "FULL");
}

#[test]
fn given_what_would_be_lost_in_silence_when_checked_then_it_fails() {
    let mut facts = good();
    facts.filters = Some(("other, more".to_owned(), String::new()));
    gives(&facts, Name::BinlogFilters, Status::Failed, "`d` is logged");
    facts = good();
    facts.filters = Some((String::new(), "d".to_owned()));
    gives(&facts, Name::BinlogFilters, Status::Failed, "binlog_ignore_db");
    facts = good();
    facts.is_replica = Some(true);
    facts.variables.insert("log_replica_updates".to_owned(), "OFF".to_owned());
    gives(&facts, Name::ReplicaUpdates, Status::Failed, "log_replica_updates");
}

#[test]
fn given_a_replica_whose_workers_commit_in_any_order_when_checked_then_it_fails() {
    let replica = |variables: &[(&str, &str)]| {
        let mut facts = good();
        facts.is_replica = Some(true);
        facts.variables.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        facts
    };
    let loose = replica(&[("replica_parallel_workers", "4"), ("replica_preserve_commit_order", "OFF")]);
    let cure = "STOP REPLICA SQL_THREAD; SET PERSIST replica_preserve_commit_order = ON; START REPLICA SQL_THREAD";
    gives(&loose, Name::ReplicaCommitOrder, Status::Failed, cure);
    let mut old = replica(&[("slave_parallel_workers", "2"), ("slave_preserve_commit_order", "OFF")]);
    old.flavor.version = (8, 0, 20);
    let cure = "STOP SLAVE SQL_THREAD; SET PERSIST slave_preserve_commit_order = ON; START SLAVE SQL_THREAD";
    gives(&old, Name::ReplicaCommitOrder, Status::Failed, cure);
    // Every server has the settings; MariaDB's modes keep the order.
    let primary = Facts { is_replica: Some(false), ..loose.clone() };
    let mut of_schemas = loose.clone();
    of_schemas.variables.insert("replica_parallel_type".to_owned(), "DATABASE".to_owned());
    for facts in [
        primary,
        maria(loose),
        of_schemas,
        replica(&[("replica_parallel_workers", "4"), ("replica_preserve_commit_order", "ON")]),
        replica(&[("replica_parallel_workers", "1"), ("replica_preserve_commit_order", "OFF")]),
        replica(&[("slave_parallel_workers", "0"), ("slave_preserve_commit_order", "OFF")]),
    ] {
        assert_eq!(found(&facts, &saved(&facts.end.as_ref().unwrap().to_string()), OURS), []);
    }
}

#[test]
fn given_a_table_in_another_letter_case_when_checked_then_the_name_that_the_log_has_is_told() {
    let mut facts = good();
    facts.tables[0].spelling = Some(TableName::new("d", "O-1"));
    facts.variables.insert("lower_case_table_names".to_owned(), "1".to_owned());
    gives(&facts, Name::Table, Status::Failed, "[[outbox]] tables = [\"d.O-1\"]");
    // It keeps names as they were given, and looks them up in small letters.
    facts.variables.insert("lower_case_table_names".to_owned(), "2".to_owned());
    assert_eq!(found(&facts, &saved(&facts.end.as_ref().unwrap().to_string()), OURS), []);
    facts.tables[0].name = TableName::new("D", "O-1");
    facts.tables[0].spelling = Some(TableName::new("D", "O-1"));
    gives(&facts, Name::Table, Status::Failed, "[[outbox]] tables = [\"d.o-1\"]");
}

#[test]
fn given_a_replica_with_our_id_when_a_daemon_is_alive_then_it_may_be_that_one() {
    let mut facts = good();
    facts.replicas = Some(vec![Replica { server_id: 7, host: "h".to_owned() }]);
    gives(&facts, Name::ServerId, Status::Failed, "another number");
    let mut store = saved(&facts.end.as_ref().unwrap().to_string());
    store.is_owned = true;
    assert_eq!(found(&facts, &store, OURS)[0].status, Status::Warned);
    let shown = ServerId { is_shown: true, ..OURS };
    store.is_owned = false;
    assert_eq!(found(&facts, &store, shown), [], "it is the daemon that asks");
    facts = maria(good());
    facts.replicas = None;
    gives(&facts, Name::ServerId, Status::Warned, "GRANT REPLICATION MASTER ADMIN");
    let random = ServerId { configured: false, ..OURS };
    assert_eq!(found(&facts, &saved(&facts.end.as_ref().unwrap().to_string()), random), []);
}

#[test]
fn given_a_clock_beyond_a_second_when_surely_so_then_it_is_warned_of() {
    let mut facts = good();
    facts.skew = Skew { ahead_micros: -1_500_000, give_or_take: std::time::Duration::from_millis(600) };
    assert_eq!(found(&facts, &saved(&facts.end.as_ref().unwrap().to_string()), OURS), []);
    facts.skew.give_or_take = std::time::Duration::from_millis(400);
    gives(&facts, Name::Clock, Status::Warned, "NTP");
}

#[test]
fn given_missing_grants_when_checked_then_the_cure_names_the_account() {
    let mut facts = good();
    facts.privileges = vec!["REPLICATION SLAVE ADMIN".to_owned(), "REPLICATION CLIENT".to_owned()];
    gives(&facts, Name::Grants, Status::Failed, "GRANT REPLICATION SLAVE ON *.* TO 'u'@'%'");
    let denied = Refusal { code: 1142, message: "SELECT command denied".to_owned() };
    facts = good();
    facts.unreceived = Some(denied.clone());
    let cure = "GRANT SELECT ON performance_schema.replication_connection_status TO 'u'@'%'";
    gives(&facts, Name::Grants, Status::Warned, cure);
    facts = good();
    facts.tables[0].refusal = Some(denied);
    facts.tables[0].columns.clear();
    gives(&facts, Name::Table, Status::Failed, "GRANT SELECT ON `d`.`o-1` TO 'u'@'%'");
}

#[test]
fn given_a_table_that_cannot_be_relayed_when_checked_then_the_statement_that_changes_it_is_told() {
    let change = |change: &dyn Fn(&mut Table)| {
        let mut facts = good();
        change(&mut facts.tables[0]);
        facts
    };
    let facts = change(&|table| table.engine = "MyISAM".to_owned());
    gives(&facts, Name::Engine, Status::Failed, "ALTER TABLE `d`.`o-1` ENGINE = InnoDB");
    let facts = change(&|table| drop(table.columns.pop()));
    gives(&facts, Name::Columns, Status::Failed, "ALTER TABLE `d`.`o-1` ADD COLUMN `payload` JSON NULL");
    let facts = change(&|table| table.kind = "VIEW".to_owned());
    gives(&facts, Name::Table, Status::Failed, "the table behind it");
    for (kind, status, cure) in [
        ("enum('a')", Status::Warned, "MODIFY COLUMN `id` VARCHAR(255)"),
        ("inet6", Status::Warned, "MODIFY COLUMN `id` VARCHAR(255)"),
    ] {
        gives(&change(&|table| table.columns[0].kind = kind.to_owned()), Name::Columns, status, cure);
    }
    let facts = change(&|table| {
        table.columns[0].charset = Some("big5".to_owned());
        table.columns[0].collation = Some(1);
    });
    gives(&facts, Name::Columns, Status::Failed, "MODIFY COLUMN `id` char(36) CHARACTER SET utf8mb4 NOT NULL");
    let facts = change(&|table| table.columns[0].nullable = true);
    gives(&facts, Name::Columns, Status::Warned, "MODIFY COLUMN `id` char(36) CHARACTER SET utf8mb4 NOT NULL");
}

#[test]
fn given_a_saved_position_when_the_log_does_not_have_it_any_more_then_what_is_missing_is_told() {
    let judged = |facts: &Facts, position: &str| {
        let found = found(facts, &saved(position), OURS);
        found.first().map(|check| (check.name, check.status, check.found.clone()))
    };
    let mysql = good();
    assert_eq!(judged(&mysql, &format!("gtid={SERVER}:1-10")), None);
    let (name, status, told) = judged(&mysql, &format!("gtid={SERVER}:1-8 +2 of {SERVER}:9")).unwrap();
    assert_eq!((name, status), (Name::Position, Status::Failed));
    assert!(told.ends_with(&format!("purged before it was relayed: {SERVER}:9-10")), "{told}");
    assert_eq!(judged(&mysql, &format!("gtid={SERVER}:1-91")).unwrap().1, Status::Warned);
    assert_eq!(judged(&mysql, "file=binlog.000002:1000"), None);
    for wrong in ["file=binlog.000002:1001", "file=binlog.000001:4", "domains=0-1-1", "nonsense"] {
        assert_eq!(judged(&mysql, wrong).unwrap().1, Status::Failed, "{wrong}");
    }
    let maria = maria(good());
    assert_eq!(judged(&maria, "domains=0-1-10"), None);
    assert_eq!(judged(&maria, "domains=0-1-9").unwrap().1, Status::Failed);
    assert_eq!(judged(&maria, "domains=0-1-91").unwrap().1, Status::Warned);
    assert_eq!(judged(&maria, "domains=1-1-5").unwrap().1, Status::Failed);
}

#[test]
fn given_no_saved_position_when_the_table_is_to_be_read_then_it_needs_a_primary_key() {
    let mut facts = good();
    let nothing = Store::of(&[]);
    assert_eq!(found(&facts, &nothing, OURS), []);
    facts.tables[0].has_primary_key = false;
    let found_now = found(&facts, &nothing, OURS);
    assert_eq!((found_now[0].name, found_now[0].status), (Name::Position, Status::Failed));
    assert!(found_now[0].cure.as_ref().unwrap().contains("ADD PRIMARY KEY"));
}

#[test]
fn given_columns_when_added_up_then_the_packet_bounds_them() {
    let mut facts = good();
    let widest = tables::widest(&facts, &wanted());
    assert_eq!((widest[0].bytes, widest[0].column.as_str()), (67_108_864, "payload json"));
    facts.tables[0].columns[1] = column("payload", "text", Some(65_535));
    assert_eq!(tables::widest(&facts, &wanted())[0].bytes, 65_535 + 144);
}

#[test]
fn given_an_account_when_quoted_then_quotes_within_are_doubled() {
    assert_eq!(account("o'b@x@10.%"), "'o''b@x'@'10.%'");
}

#[test]
fn given_rows_to_delete_when_they_cannot_be_found_or_deleted_then_the_cure_is_told() {
    let wanted = |by| {
        let cleaned = Some(Cleaned { column: "created_at".to_owned(), by });
        vec![Wanted { cleaned, ..super::tests::wanted().remove(0) }]
    };
    let mut facts = good();
    let told = |facts: &Facts| {
        let check = cleanup::check(facts, &wanted(By::Rows)).remove(0);
        (check.status, check.cure.unwrap_or_default())
    };
    let warned = |facts: &Facts, cure: &str| {
        let told = told(facts);
        assert!(told.0 == Status::Warned && told.1.contains(cure), "{told:?}");
    };
    facts.tables[0].columns.push(column("created_at", "datetime(3)", None));
    warned(&facts, "CREATE INDEX `created_at` ON `d`.`o-1` (`created_at`)");
    facts.tables[0].indexed.push("Created_At".to_owned());
    assert_eq!(told(&facts), (Status::Passed, String::new()));
    let parts = |facts: &Facts| cleanup::check(facts, &wanted(By::Partitions)).remove(0);
    assert!(parts(&facts).cure.is_some_and(|cure| cure.contains("PARTITION BY RANGE")));
    facts.tables[0].ranges = 2;
    assert_eq!(parts(&facts).status, Status::Passed);
    facts.tables[0].undeletable = Some(Refusal { code: 1142, message: "denied".to_owned() });
    warned(&facts, "GRANT DELETE ON `d`.`o-1` TO 'u'@'%'");
    facts.tables[0].columns[2].kind = "varchar(30)".to_owned();
    warned(&facts, "MODIFY COLUMN `created_at`");
    facts.tables[0].has_primary_key = false;
    warned(&facts, "ADD PRIMARY KEY");
    facts.variables.insert("read_only".to_owned(), "ON".to_owned());
    warned(&facts, "mysql.url");
    assert_eq!(cleanup::check(&facts, &super::tests::wanted()), [], "nothing is asked where nothing is cleaned");
}

#[test]
fn given_a_key_whose_values_are_in_any_order_when_the_table_is_to_be_read_then_it_is_warned_of() {
    let mut facts = good();
    let (none, begun) = (Store::of(&[]), saved("file=b.000001:4"));
    let checks = |facts: &Facts, wanted: &[Wanted], store| order::check(facts, wanted, Some(store));
    assert!(checks(&facts, &wanted(), &begun).is_empty(), "it has begun");
    let told = checks(&facts, &wanted(), &none);
    assert_eq!((told[0].name, told[0].status), (Name::KeyOrder, Status::Warned), "{told:?}");
    assert!(told[0].cure.as_ref().unwrap().contains("AUTO_INCREMENT"));
    facts.tables[0].columns[0].kind = "bigint unsigned".to_owned();
    assert_eq!(checks(&facts, &wanted(), &none)[0].status, Status::Passed);
    // What is given by hand does not tell whether rows are gone.
    let recovers = vec![Wanted { recovers: true, ..wanted().remove(0) }];
    assert_eq!(checks(&facts, &recovers, &begun)[0].status, Status::Warned);
    facts.tables[0].is_numbered = true;
    assert_eq!(checks(&facts, &recovers, &none)[0].status, Status::Passed);
}

#[test]
fn given_a_purged_position_when_the_table_recovers_then_it_is_warned_of_only() {
    let recovers = vec![Wanted { recovers: true, ..wanted().remove(0) }];
    let of = |position: &str| {
        let checks = positions::check(&good(), &recovers, &saved(position));
        checks.into_iter().find(|check| check.name == Name::Position).unwrap().status
    };
    assert_eq!(of(&format!("gtid={SERVER}:1-8")), Status::Warned);
    assert_eq!(of(&format!("gtid={SERVER}:1-10")), Status::Passed);
    assert_eq!(of("domains=0-1-7"), Status::Failed, "that is of another server");
}
