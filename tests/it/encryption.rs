//! Logs that are encrypted on disk: the server opens them for a replica, and only for one.

use std::process::Command;

use crate::stage::{Stage, Writing};

/// What is written is relayed, before and after another file; the files themselves say what they are.
async fn is_relayed(stage: Stage, writing: Writing) {
    let daemon = stage.run();
    writing.more(300).await;
    let encrypted = stage.newest_log().await;
    stage.sql(["FLUSH BINARY LOGS"]).await;
    writing.more(300).await;
    let journal = writing.stop().await;
    stage.judge(&journal, daemon).await;

    let file = stage.mysql.dir().join("data").join(encrypted);
    let output =
        Command::new(env!("CARGO_BIN_EXE_outboxd")).arg("decode").arg(&file).args(["--tables", "*.*"]).output();
    let output = output.unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("encrypted_binlog"), "{told}");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(65), 0), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_with_binlog_encryption_is_relayed() {
    let mut stage = Stage::of().up().await;
    stage.mysql.tell("stop").unwrap();
    let dir = stage.mysql.dir().to_owned();
    let (plugins, installed) = (dir.join("plugins"), dir.join("mysqld").canonicalize().unwrap());
    std::fs::create_dir(&plugins).unwrap();
    let component = "lib/mysql/plugin/component_keyring_file.so";
    let component = installed.parent().unwrap().parent().unwrap().join(component);
    std::os::unix::fs::symlink(component, plugins.join("component_keyring_file.so")).unwrap();
    let keyring = format!("{{\"path\": \"{}\", \"read_only\": false}}", dir.join("keyring").display());
    std::fs::write(plugins.join("component_keyring_file.cnf"), keyring).unwrap();
    std::fs::write(dir.join("mysqld.my"), "{\"components\": \"file://component_keyring_file\"}").unwrap();
    stage.mysql.tell(&format!("start plugin-dir={} binlog_encryption=ON", plugins.display())).unwrap();
    // The older file is in the clear, and part of what is relayed.
    let writing = stage.write(40).await;
    is_relayed(stage, writing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_with_encrypted_binlogs_is_relayed() {
    for server in ["mariadb-10.11", "mariadb-11.8"] {
        let keys = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(keys.path(), format!("1;{}\n", "a1b2c3d4e5f60718".repeat(4))).unwrap();
        let stage = Stage::of()
            .server(server)
            .setting("plugin-load-add=file_key_management")
            .setting(format!("file-key-management-filename={}", keys.path().display()))
            .setting("encrypt-binlog=ON")
            .up()
            .await;
        let writing = stage.write(41).await;
        is_relayed(stage, writing).await;
    }
}
