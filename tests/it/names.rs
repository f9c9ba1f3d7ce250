//! Names and texts that are not plain.

use outboxd::history::Fingerprint;
use outboxd::table::TableName;

use crate::order::ids;
use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_shards_are_served_by_one_daemon() {
    let stage = Stage::of().shards(64).up().await;
    let writing = stage.write(40).await;
    for _ in 0..3 {
        let daemon = stage.run();
        daemon.ready().await;
        writing.more(500).await;
        daemon.kill();
    }
    let daemon = stage.run();
    let journal = writing.stop().await;
    stage.judge(&journal, daemon).await;
    assert_eq!(stage.positions().matches("delivery-outbox").count(), 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_may_be_reserved_words_or_hold_hyphens_blanks_backticks_and_umlauts() {
    for server in ["mysql-9.7", "mariadb-11.8"] {
        let names = ["select.order", "my-schema.out box", "grün.straße-1", "a`b.c``d", "Mixed.Case"];
        let tables: Vec<TableName> = names.iter().map(|name| name.parse().unwrap()).collect();
        let mut setup = Stage::of().server(server).tables(names[0], tables.clone());
        for (index, name) in names.iter().enumerate() {
            setup = setup.set(&format!("OUTBOX__{index}__TABLES"), name);
            setup = setup.set(&format!("OUTBOX__{index}__START"), "earliest");
        }
        let stage = setup.blocks(names.len()).up().await;
        let daemon = stage.run();
        for (number, table) in tables.iter().enumerate() {
            stage.sql([format!("INSERT INTO {} (id, aggregatetype, aggregateid, type, payload) VALUES ('id-{number}', 'a', 'k', 'T', '1')", table.quoted())]).await;
            stage.delivered(&format!("id-{number}")).await;
        }
        assert_eq!(daemon.terminate().await, Some(0));
        let daemon = stage.run();
        daemon.ready().await;
        assert_eq!(daemon.terminate().await, Some(0));
        assert_eq!(ids(&stage.records().await).len(), names.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_payloads_arrive_as_they_are_whatever_they_hold() {
    for server in ["mysql-9.7", "mariadb-10.11"] {
        let stage = Stage::of().server(server).shards(1).partitions(1).up().await;
        let table = stage.outboxes[0].quoted();
        stage.sql([format!("ALTER TABLE {table} MODIFY payload LONGTEXT NULL")]).await;
        let daemon = stage.run();
        let long = "🛵".repeat(5000);
        let texts = ["plain", "ä€", "🛵 漢字 \u{1F9D1}\u{200D}\u{1F373}", "", " blanks ", "a\\0b\\n\\t\\\\", &long];
        for (number, text) in texts.iter().enumerate() {
            let key: String = text.chars().take(60).collect();
            stage.sql([format!("INSERT INTO {table} (id, aggregatetype, aggregateid, type, payload) VALUES ('id-{number}', 'a', '{key}', 'Ü🛵', '{text}')")]).await;
        }
        stage.sql([format!("INSERT INTO {table} (id, aggregatetype, aggregateid, type, payload) VALUES ('null', 'a', 'k', 'T', NULL)")]).await;
        stage.delivered("null").await;
        assert_eq!(daemon.terminate().await, Some(0));
        let records = stage.records().await;
        assert_eq!(records.len(), texts.len() + 1);
        for (record, text) in records.iter().zip(&texts) {
            let plain = text.replace("\\0", "\0").replace("\\n", "\n").replace("\\t", "\t").replace("\\\\", "\\");
            assert_eq!(record.payload, Fingerprint::of(Some(plain.as_bytes())), "{server}: {text}");
            let key: String = plain.chars().take(60).collect();
            assert!(*record.key == *key || text.contains('\\'), "{server}: {text}");
            assert_eq!(&*record.event_type, "Ü🛵");
        }
        assert_eq!(records.last().unwrap().payload, Fingerprint::of(None), "NULL is a tombstone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_without_a_key_halts_its_table_by_name_and_no_other() {
    let stage = Stage::of().shards(2).up().await;
    let table = stage.outboxes[0].quoted();
    stage.sql([format!("ALTER TABLE {table} MODIFY aggregateid VARCHAR(255) NULL")]).await;
    let daemon = stage.run();
    stage
        .sql([format!(
            "INSERT INTO {table} (id, aggregatetype, aggregateid, type, payload) VALUES ('before', 'a', 'k', 'T', '1')"
        )])
        .await;
    stage.sql([format!("INSERT INTO {table} (id, aggregatetype, aggregateid, type, payload) VALUES ('keyless', 'a', NULL, 'T', '1')")]).await;
    stage
        .sql([format!(
            "INSERT INTO {table} (id, aggregatetype, aggregateid, type, payload) VALUES ('after', 'a', 'k', 'T', '1')"
        )])
        .await;
    daemon.logs("unmappable_event").await;
    daemon.waits_for("column `aggregateid` is NULL").await;
    stage
        .sql([format!(
            "INSERT INTO {} (id, aggregatetype, aggregateid, type, payload) VALUES ('other', 'a', 'k', 'T', '1')",
            stage.outboxes[1].quoted()
        )])
        .await;
    stage.delivered("other").await;
    assert_eq!(daemon.terminate().await, Some(1));
    let records = stage.records().await;
    let mut ids = ids(&records);
    ids.sort_unstable();
    assert_eq!(ids, ["before", "other"], "what came before has left, what comes after waits");
}
