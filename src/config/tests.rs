use std::path::PathBuf;

use super::*;

const FILE: &str = r#"
[mysql]
url = "mysql://outboxd@127.0.0.1:3306"
[kafka]
bootstrap_servers = "127.0.0.1:9092"
[kafka.properties]
"compression.type" = "lz4"
[[outbox]]
tables = ["delivery.delivery-outbox{1..4}"]
topic = "delivery"
[admin]
listen = "127.0.0.1:9640"
"#;

struct Given {
    _folder: tempfile::TempDir,
    options: Options,
}

fn given(file: &str, env: &[(&str, &str)], sets: &[&str]) -> Given {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outboxd.toml");
    std::fs::write(&path, file).unwrap();
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let sets = sets.iter().map(ToString::to_string).collect();
    Given { _folder: folder, options: Options { file: Some(path), env, sets, ..Options::default() } }
}

fn loaded(file: &str, env: &[(&str, &str)], sets: &[&str]) -> Loaded {
    load(&given(file, env, sets).options).unwrap()
}

/// The errors' lines, without the folder of the file.
fn errors(file: &str, env: &[(&str, &str)], sets: &[&str]) -> Vec<String> {
    let given = given(file, env, sets);
    let folder = format!("{}/", given.options.file.as_ref().unwrap().parent().unwrap().display());
    load(&given.options).unwrap_err().to_string().replace(&folder, "").lines().map(str::to_owned).collect()
}

fn effective(loaded: &Loaded, key: &str) -> (String, Source) {
    let found = loaded.effective().into_iter().find(|effective| effective.key == key).unwrap();
    (found.value, found.source)
}

#[test]
fn given_the_minimal_file_when_loaded_then_the_rest_is_default() {
    let loaded = loaded(FILE, &[], &[]);
    assert_eq!(loaded.config.outbox[0].tables, ["delivery.delivery-outbox{1..4}"]);
    assert_eq!(loaded.config.kafka.properties.get("compression.type"), Some("lz4"));
    assert_eq!(loaded.config.relay, RelaySettings::default());
    assert_eq!(effective(&loaded, "relay.queue_bytes"), ("\"2 MiB\"".to_owned(), Source::Default));
    assert_eq!(effective(&loaded, "mysql.server_id"), ("unset".to_owned(), Source::Default));
    assert!(matches!(effective(&loaded, "kafka.properties.compression.type").1, Source::File(_)));
}

#[test]
fn given_the_shipped_file_when_loaded_then_it_equals_the_defaults_and_misses_no_key() {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/config/outboxd.toml"));
    let loaded = load(&Options { file: Some(path.clone()), ..Options::default() }).unwrap();
    let mut defaults = Config::default();
    defaults.mysql.url = "mysql://outboxd@127.0.0.1:3306".into();
    defaults.kafka.bootstrap_servers = "127.0.0.1:9092".into();
    defaults.outbox = vec![OutboxSettings {
        tables: vec!["delivery.delivery-outbox{1..4}".into()],
        topic: "delivery".into(),
        ..OutboxSettings::default()
    }];
    assert_eq!(serde_json::to_value(&loaded.config).unwrap(), serde_json::to_value(&defaults).unwrap());

    // Uncommented, the file sets every key there is, and each of them is explained.
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let is_key = |line: &str| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
    let mut all = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        if is_key(bare) {
            assert!(bare.starts_with('"') || lines[index - 1].starts_with("# "), "{bare} is not explained");
            all.push(bare);
        } else if !line.starts_with('#') || bare.starts_with('[') {
            all.push(bare);
        }
    }
    let set: Dict = Toml::from_str(&all.join("\n")).unwrap();
    let set = Tree::new(set.into());
    let mut keys = Vec::new();
    unknown::every_key(&unknown::template(), &mut Vec::new(), &mut keys);
    assert!(keys.len() > 40);
    for key in keys {
        assert!(set.get(&key).is_some(), "{} is not in the file", key.join("."));
    }
}

#[test]
fn given_the_file_for_compose_when_loaded_then_nothing_is_missing() {
    let local = include_str!("../../config/local.toml");
    let loaded = loaded(local, &[("OUTBOXD__MYSQL__PASSWORD", "outboxd")], &[]);
    assert!(loaded.config.kafka.create_topics);
}

#[test]
fn given_all_layers_when_loaded_then_flags_go_before_environment_before_file() {
    let env = [("OUTBOXD__LOG__LEVEL", "debug"), ("OUTBOXD__ADMIN__LISTEN", "0.0.0.0:1"), ("OTHER__X", "y")];
    let loaded = loaded(FILE, &env, &["log.level=warn", "kafka.properties.linger.ms=5"]);
    assert_eq!(effective(&loaded, "log.level"), ("\"warn\"".into(), Source::Flag("log.level".into())));
    let source = Source::Environment("OUTBOXD__ADMIN__LISTEN".into());
    assert_eq!(effective(&loaded, "admin.listen"), ("\"0.0.0.0:1\"".into(), source));
    assert_eq!(loaded.config.kafka.properties.get("linger.ms"), Some("5"));
    assert_eq!(loaded.config.kafka.properties.get("compression.type"), Some("lz4"));
}

#[test]
fn given_mistakes_elsewhere_when_asked_for_the_admin_settings_then_they_are_known() {
    let port = |file: &str, sets: &[&str]| {
        let given = given(file, &[("OUTBOXD__ADMIN__LISTEN", "127.0.0.1:7")], sets);
        load_admin(&given.options).map(|admin| admin.listen.port())
    };
    let elsewhere = ["relay.none=1", "relay.batch_bytes=many", "mysql.password_file=/none", "outbox.7.topic=t"];
    assert_eq!(port(FILE, &elsewhere), Ok(7));
    assert_eq!(port("", &[]), Ok(7), "what is required elsewhere is not needed");
    for (file, set) in [("[admin", "log.level=info"), ("", "admin.none=1"), ("", "admin.listen=here"), ("", "none")] {
        assert!(port(file, &[set]).is_err(), "{file} {set}");
    }
}

#[test]
fn given_the_environment_alone_when_loaded_then_everything_can_be_set() {
    let loaded = loaded(
        "",
        &[
            ("OUTBOXD__MYSQL__URL", "mysql://u@h"),
            ("OUTBOXD__MYSQL__PASSWORD", "12345"),
            ("OUTBOXD__MYSQL__SERVER_ID", "77"),
            ("OUTBOXD__KAFKA__BOOTSTRAP_SERVERS", "h:1"),
            ("OUTBOXD__KAFKA__CREATE_TOPICS", "true"),
            ("OUTBOXD__KAFKA__PROPERTIES", r#"{"compression.type"="lz4", "linger.ms"=5}"#),
            ("OUTBOXD__KAFKA__PROPERTIES__COMPRESSION_TYPE", "zstd"),
            ("OUTBOXD__KAFKA__PROPERTIES__SASL_PASSWORD", "true"),
            ("OUTBOXD__OUTBOX__0__TABLES", "d.o{1..2}"),
            ("OUTBOXD__OUTBOX__0__TOPIC", "t"),
            ("OUTBOXD__OUTBOX__0__COLUMNS__PAYLOAD", "body"),
            ("OUTBOXD__OUTBOX__0__COLUMNS__PARTITION", "part"),
            ("OUTBOXD__OUTBOX__0__COLUMNS__HEADERS__0", "trace:traceparent"),
            ("OUTBOXD__OUTBOX__1__TABLES", r#"["d.x", "d.y"]"#),
            ("OUTBOXD__OUTBOX__1__TABLES__2", "d.z"),
            ("OUTBOXD__OUTBOX__1__TOPIC", "u"),
            ("OUTBOXD__OUTBOX__1__START", "now"),
            ("OUTBOXD__RELAY__QUEUE_BYTES", "1048576"),
        ],
        &[],
    );
    let Config { mysql, kafka, outbox, relay, .. } = &loaded.config;
    assert_eq!(mysql.server_id, Some(77));
    assert_eq!(secrecy::ExposeSecret::expose_secret(mysql.password.as_ref().unwrap()), "12345");
    assert!(kafka.create_topics);
    assert_eq!(kafka.properties.get("compression.type"), Some("zstd"));
    assert_eq!(kafka.properties.get("linger.ms"), Some("5"));
    assert_eq!(kafka.properties.get("sasl.password"), Some("true"));
    let columns = &outbox[0].columns;
    assert_eq!((columns.payload.as_str(), columns.partition.as_deref()), ("body", Some("part")));
    assert_eq!(columns.headers, ["trace:traceparent".to_owned().into()]);
    assert_eq!(outbox[1].tables, ["d.x", "d.y", "d.z"]);
    assert_eq!(outbox[1].start, crate::relay::settings::Start::Now);
    assert_eq!(relay.queue_bytes, bytesize::ByteSize::mib(1));
}

#[test]
fn given_a_list_in_the_file_when_an_index_is_set_then_only_that_changes() {
    let loaded = loaded(FILE, &[("OUTBOXD__OUTBOX__0__TOPIC", "other")], &[]);
    assert_eq!(loaded.config.outbox[0].topic, "other");
    assert!(matches!(effective(&loaded, "outbox.0.tables").1, Source::File(_)));
    assert!(matches!(effective(&loaded, "outbox.0.topic").1, Source::Environment(_)));
    let gap = errors(FILE, &[("OUTBOXD__OUTBOX__3__TOPIC", "other")], &[]);
    assert_eq!(
        gap,
        [
            "outbox.3.topic: expected 1 as the next index, found a gap in the list (environment variable OUTBOXD__OUTBOX__3__TOPIC)"
        ]
    );
}

#[test]
fn given_many_mistakes_when_loaded_then_all_are_told_with_their_sources() {
    let file = r#"
[mysql]
url = "mysql://127.0.0.1"
pasword = "hunter2"
heartbeat = "soon"
[kafka.properties]
acks = 1
"sasl.password" = ["hunter2"]
[relay]
queue_bytes = "1 KiB"
max_unsaved_events = -1
on_update = "stop"
[[outbox]]
tables = ["nodot", 5]
topik = "x"
[admin]
listen = "here"
"#;
    let told = errors(file, &[("OUTBOXD__KAFKA__BOOTSTRAP_SERVER", "h:1")], &["relay.retry_max=1ms", "bare"]);
    let expected = [
        "expected key.path=value, found no `=` after a key (--set number 2)",
        "admin.listen: expected a valid value (invalid socket address syntax), found \"here\" (outboxd.toml)",
        "kafka.bootstrap_server: expected a known key such as `kafka.bootstrap_servers`, found an unknown key (environment variable OUTBOXD__KAFKA__BOOTSTRAP_SERVER)",
        "kafka.bootstrap_servers: expected brokers such as host:9092,other:9092, in the file or as OUTBOXD__KAFKA__BOOTSTRAP_SERVERS, found nothing (default)",
        "kafka.properties.acks: expected `acks` to be left alone, because anything but `all` loses acknowledged records when a broker fails, found \"1\" (outboxd.toml)",
        "kafka.properties.sasl.password: expected a string, a number or a boolean, found a list that is not shown (outboxd.toml)",
    ];
    assert_eq!(told[..6], expected, "{told:#?}");
    for key in [
        "mysql.heartbeat: expected a duration such as \"10s\"",
        "mysql.pasword: expected a known key such as `mysql.password`",
        "mysql.url: expected a URL such as mysql://user@host:3306, found mysql://127.0.0.1 (no user",
        "outbox.0.tables.0: expected a table pattern",
        "outbox.0.tables.1: expected a string, found 5",
        "outbox.0.topic: expected the name of a topic",
        "outbox.0.topik: expected a known key such as `outbox.0.topic`",
        "relay.max_unsaved_events: expected u64, found -1",
        "relay.on_update: expected \"warn\" or \"halt\", found \"stop\"",
        "relay.queue_bytes: expected at least relay.batch_bytes",
        "relay.retry_max: expected at least relay.retry_initial (100ms), found 1ms (--set relay.retry_max)",
    ] {
        assert_eq!(told.iter().filter(|line| line.starts_with(key)).count(), 1, "{key} in {told:#?}");
    }
    assert_eq!(told.len(), 17, "{told:#?}");
    assert!(!told.concat().contains("hunter2"));
}

#[test]
fn given_no_reader_for_what_waits_for_one_when_loaded_then_each_is_told() {
    let told = errors(FILE, &[], &["relay.catch_up_readers=0", "relay.snapshot_readers=0"]);
    assert_eq!(
        told,
        [
            "relay.catch_up_readers: expected at least 1, found 0 (--set relay.catch_up_readers)",
            "relay.snapshot_readers: expected at least 1, found 0 (--set relay.snapshot_readers)",
        ]
    );
}

#[test]
fn given_secrets_when_shown_or_wrong_then_they_stay_hidden() {
    let env = [("OUTBOXD__MYSQL__PASSWORD", "hunter2"), ("OUTBOXD__KAFKA__PROPERTIES__SSL_KEY_PASSWORD", "hunter2")];
    let good = loaded(FILE, &env, &["positions.url=mysql://u:hunter2@h"]);
    let shown = format!("{:?} {:?} {}", good, good.effective(), serde_json::to_string(&good.config).unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");
    assert_eq!(effective(&good, "mysql.password").0, "\"***\"");
    assert_eq!(effective(&good, "positions.url").0, "\"mysql://u:***@h\"");
    for (file, env, set) in [
        ("[mysql]\npassword = \"hunter2", ("", ""), "log.level=info"),
        ("[mysql]\npassword = hunter2", ("", ""), "log.level=info"),
        ("[mysql]\npassword = [\"hunter2\"]\nurl = [\"mysql://u:hunter2@h\"]", ("", ""), "hunter2"),
        ("mysql = \"hunter2\"", ("OUTBOXD__MYSQL", "{password=hunter2}"), "kafka={password=hunter2}"),
        ("", ("OUTBOXD__MYSQL__URL", "mysql://u:hunter2"), "positions.url=u:hunter2@h"),
        ("", ("OUTBOXD__MYSQL__URL", "mysql://u:hunter2@h:x?"), "kafka.properties.acks.password=hunter2"),
    ] {
        let told = errors(file, &[env], &[set]).join("\n");
        assert!(!told.contains("hunter2"), "{told}");
    }
}

#[test]
fn given_no_file_when_one_was_asked_for_then_that_is_an_error_and_otherwise_not() {
    let missing = Options { file: Some("/none/such.toml".into()), ..Options::default() };
    let told = load(&missing).unwrap_err().to_string();
    assert!(told.starts_with("expected a file, found No such file"), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    let searched = Options { search: vec!["/none/such.toml".into()], ..Options::default() };
    let told = load(&searched).unwrap_err();
    assert_eq!(
        told.iter().map(|error| error.key.as_str()).collect::<Vec<_>>(),
        ["kafka.bootstrap_servers", "mysql.url", "outbox"]
    );
}

#[test]
fn given_a_table_in_two_blocks_when_loaded_then_it_is_named() {
    let twice = format!("{FILE}\n[[outbox]]\ntables = \"delivery.*3\"\ntopic = \"other\"\n");
    let told = errors(&twice, &[], &[]);
    assert_eq!(
        told,
        [
            "outbox.1.tables.0: expected a table in one [[outbox]] only, found delivery.delivery-outbox3, which outbox.0 has too (outboxd.toml)"
        ]
    );
}

#[test]
fn given_headers_when_their_names_are_taken_or_missing_then_each_is_told() {
    let headers = r#"["id", "a:x", "b:x", "c:"]"#;
    let expected = "a header's name that is not taken";
    assert_eq!(
        errors(FILE, &[("OUTBOXD__OUTBOX__0__COLUMNS__HEADERS", headers)], &[]),
        [
            format!("outbox.0.columns.headers.0: expected {expected}, found \"id\" (environment variable OUTBOXD__OUTBOX__0__COLUMNS__HEADERS)"),
            format!("outbox.0.columns.headers.2: expected {expected}, found \"x\" (environment variable OUTBOXD__OUTBOX__0__COLUMNS__HEADERS)"),
            "outbox.0.columns.headers.3: expected a column, or column:header, found \"c:\" (environment variable OUTBOXD__OUTBOX__0__COLUMNS__HEADERS)".to_owned(),
        ]
    );
}

#[test]
fn given_a_route_a_shard_and_an_envelope_when_they_make_no_sense_then_each_is_told() {
    let more = "route.regex = \"(?<x>.*)\"\nshard = \"md5(id) % 4\"\ncloudevents.content_type = \"text/plain\"\n\
                columns.envelope = [\"type:payload\"]\n";
    let told = errors(&FILE.replace("[[outbox]]\n", &format!("[[outbox]]\n{more}")), &[], &[]);
    let expected = [
        ("outbox.0.cloudevents.source: expected where events come from", "found \"\""),
        ("outbox.0.columns.envelope.0: expected a member's name that is not taken", "found \"payload\""),
        ("outbox.0.route.regex: expected an expression with named groups", "found \"(?<x>.*)\""),
        ("outbox.0.shard: expected a rule such as crc32(aggregateid) % 4", "`md5(id) % 4` is not such as"),
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, (beginning, found)) in told.iter().zip(expected) {
        assert!(told.starts_with(beginning) && told.contains(found), "{told}");
    }
}

#[test]
fn given_one_table_instead_of_a_list_when_loaded_then_the_form_is_shown() {
    let told = errors(&FILE.replace("[[outbox]]", "[outbox]"), &[], &[]);
    assert_eq!(told, ["outbox: expected a list of tables, as `[[outbox]]` writes it, found a table (outboxd.toml)"]);
}

#[test]
fn given_a_key_of_another_level_when_unknown_then_it_is_found() {
    let told = errors(FILE, &[], &["kafka.listen=x", "zzzzzzzz=1"]);
    assert!(told[0].contains("`admin.listen`") && told[1].contains("expected a known key,"), "{told:#?}");
}

#[test]
fn given_cleaning_when_the_rows_have_no_time_then_the_column_is_asked_for() {
    let told = errors(FILE, &[("OUTBOXD__CLEANUP__KEEP", "7d")], &[]);
    assert_eq!(told.len(), 1, "{told:#?}");
    let expected = "outbox.0.columns.timestamp: expected the column with a row's time";
    assert!(told[0].starts_with(expected) && told[0].contains("OUTBOXD__OUTBOX__0__COLUMNS__TIMESTAMP"), "{told:#?}");
    let with = [("OUTBOXD__CLEANUP__KEEP", "0s"), ("OUTBOXD__OUTBOX__0__COLUMNS__TIMESTAMP", "at")];
    assert!(errors(FILE, &with, &[])[0].starts_with("cleanup.keep: expected a duration longer than 0s"));
}

#[test]
fn given_a_collector_when_this_build_has_no_exporter_then_that_is_told_and_otherwise_taken() {
    let with = [("OUTBOXD__OTEL__ENDPOINT", "http://collector:4318")];
    if cfg!(feature = "otel") {
        assert_eq!(loaded(FILE, &with, &[]).config.otel.endpoint.as_deref(), Some(with[0].1));
    } else {
        assert!(errors(FILE, &with, &[])[0].contains("built without the feature otel"));
    }
    let told = errors(FILE, &[("OUTBOXD__OTEL__ENDPOINT", "http://id:hunter2@collector:4318")], &[]);
    assert!(told[0].contains("found one with a login") && !told[0].contains("hunter2"), "{told:#?}");
    let told = errors(FILE, &[("OUTBOXD__OTEL__ENDPOINT", "collector:4318")], &[]);
    assert!(told[0].contains("a URL such as http://collector:4318"), "{told:#?}");
}
