//! Pages whose every block is run as it stands: getting started, and the walk-through into production. Only the addresses of servers
//! are those of the stage, and what a page marks as `not run` says why.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::monitoring;
use crate::page::{Block, Page, beside, book};
use crate::stage::{Stage, free_port, until};

/// Somebody who does what a page says, in an empty folder, in one shell.
struct Reader {
    stage: Stage,
    folder: TempDir,
    /// What the page says, and what it is here.
    addresses: [(&'static str, String); 3],
    daemon: Option<Daemon>,
    /// Rows that the page has inserted into outbox tables.
    inserted: usize,
    /// What was run, and what it has printed.
    printed: Vec<(String, String)>,
}

/// The settings of a server: `key = value  # why`.
fn settings(block: &Block) -> Vec<String> {
    let bare = block.text.lines().map(|line| line.split('#').next().unwrap().trim());
    bare.filter_map(|line| line.split_once(" = ")).map(|(key, value)| format!("{key}={value}")).collect()
}

impl Reader {
    /// Servers that are set up as the page says.
    async fn of(page: &Page) -> Self {
        let mut setup = Stage::of().own_kafka().topic("delivery");
        for setting in page.blocks.iter().filter(|block| block.language == "ini").flat_map(settings) {
            setup = setup.setting(setting);
        }
        let stage = setup.servers().await;
        // The page creates it.
        stage.sql(["DROP USER IF EXISTS 'outboxd'@'%'"]).await;
        let here = |port: u16| format!("127.0.0.1:{port}");
        let addresses = [
            ("127.0.0.1:3306", here(stage.mysql.port())),
            ("127.0.0.1:9092", stage.bootstrap()),
            ("127.0.0.1:9640", here(free_port())),
        ];
        let folder = TempDir::new().unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_outboxd")).parent().unwrap();
        let path = format!("{}:{}:$PATH", program.display(), monitoring::programs().display());
        let shell = format!("export PATH={path} NO_COLOR=1 OUTBOXD__ADMIN__LISTEN={}\n", addresses[2].1);
        fs::write(folder.path().join(".shell"), shell).unwrap();
        // The files of the package that a page copies from.
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
        std::os::unix::fs::symlink(config, folder.path().join("config")).unwrap();
        Self { stage, folder, addresses, daemon: None, inserted: 0, printed: Vec::new() }
    }

    /// Does what a page says, from its beginning to its end.
    async fn reads(path: &str) -> Self {
        let page = Page::read(Path::new(path));
        let mut reader = Self::of(&page).await;
        for block in &page.blocks {
            if block.mark.as_deref() != Some("not run") {
                reader.does(block).await;
            }
        }
        reader
    }

    async fn does(&mut self, block: &Block) {
        let mut text = block.text.clone();
        for (said, here) in &self.addresses {
            text = text.replace(said, here);
        }
        match block.language.as_str() {
            // The server was started with it.
            "ini" => {}
            "toml" => self.adds("outboxd.toml", &text),
            "yaml" => self.adds("prometheus.yml", &text),
            "sql" => self.queries(&text).await,
            "sh" => self.runs(&text).await,
            other => panic!("what is to be done with a block of {other}? {text}"),
        }
    }

    fn adds(&self, file: &str, text: &str) {
        let mut file = OpenOptions::new().append(true).create(true).open(self.folder.path().join(file)).unwrap();
        writeln!(file, "{text}").unwrap();
    }

    /// As somebody who may do everything.
    async fn queries(&mut self, text: &str) {
        self.stage.sql(statements(text)).await;
        self.inserted += text.matches("INSERT INTO delivery.`delivery-outbox").count();
        self.settles().await;
    }

    /// Waits until a daemon that runs and is not told to pause has published what there is.
    async fn settles(&self) {
        let paused =
            self.printed.iter().rev().find(|(run, _)| run.contains("outboxd pause") || run.contains("outboxd resume"));
        if self.daemon.is_some() && paused.is_none_or(|(run, _)| run.contains("outboxd resume")) {
            until("what was inserted is published", async || self.stage.records().await.len() >= self.inserted).await;
        }
    }

    async fn runs(&mut self, text: &str) {
        let folder = self.folder.path();
        if text.starts_with("outboxd run") {
            let script = format!("cd '{}' && . ./.shell && exec outboxd run", folder.display());
            let mut command = Command::new("bash");
            command.args(["-c", &script]);
            let daemon = Daemon::spawn(&command);
            fs::write(folder.join("outboxd.pid"), daemon.id().to_string()).unwrap();
            daemon.ready().await;
            self.daemon = Some(daemon);
            return self.settles().await;
        }
        // What a block exports is there in the next one.
        let script = format!("set -euo pipefail\n. ./.shell\n{text}\nexport -p > .shell\n");
        let mut command = Command::new("bash");
        command.args(["-c", &script]).current_dir(folder);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}\n{printed}\n{}", String::from_utf8_lossy(&output.stderr));
        self.printed.push((text.to_owned(), printed));
        if text.contains("kill -TERM") {
            assert_eq!(self.daemon.take().unwrap().ended().await, Some(0));
        }
        self.settles().await;
    }

    /// What the last block with this text has printed.
    fn printed(&self, text: &str) -> &str {
        let found = self.printed.iter().rev().find(|(run, _)| run.contains(text));
        &found.unwrap_or_else(|| panic!("nothing runs {text}")).1
    }

    /// Events in the topic, each of them once, and a daemon that is content.
    async fn has_published(self, types: &[&str]) {
        let daemon = self.daemon.unwrap();
        assert!(daemon.metric("outboxd_misrouted_events_total") < 1.0);
        assert_eq!(daemon.terminate().await, Some(0));
        let mut found: Vec<_> = self.stage.records().await.iter().map(|record| record.event_type.to_string()).collect();
        let mut expected = types.to_owned();
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected);
    }
}

/// Statements without their comments, one by one.
pub(crate) fn statements(text: &str) -> Vec<String> {
    let bare: Vec<_> = text.lines().map(|line| line.split("--").next().unwrap()).collect();
    bare.join("\n").split(';').map(str::trim).filter(|sql| !sql.is_empty()).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_who_gets_started_has_an_event_in_kafka() {
    let reader = Reader::reads("docs/getting-started.md").await;
    let status = reader.printed("outboxd status");
    assert!(status.contains("running") && status.contains("outboxd_events_total{"), "{status}");
    reader.has_published(&["DeliveryPickedUp"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_comes_to_a_watched_production() {
    let reader = Reader::reads("docs/walkthrough.md").await;
    let waiting = reader.printed("outboxd pause");
    assert!(waiting.contains("paused") && waiting.contains("first look"), "{waiting}");
    let verdict = reader.printed("outboxd verify");
    assert!(verdict.contains("clean: everything that is committed and due is in Kafka"), "{verdict}");
    reader.has_published(&["DeliveryCreated", "DeliveryAssigned", "DeliveryPickedUp", "DeliveryCompleted"]).await;
}

/// Pages that are read from beginning to end above, and the one whose programs have a test of their own.
const READ: [&str; 3] = ["docs/getting-started.md", "docs/walkthrough.md", "docs/writing.md"];

#[tokio::test(flavor = "multi_thread")]
async fn statements_of_the_other_pages_are_taken() {
    let stage = Stage::of().servers().await;
    stage.migrate();
    let mut count = 0;
    for page in book().into_iter().chain(beside()).filter(|page| !READ.iter().any(|read| page.path.ends_with(read))) {
        let run = |block: &&Block| block.language == "sql" && block.mark.as_deref() != Some("not run");
        // What stands for something of the reader's own is left out.
        let text: String = page.blocks.iter().filter(run).map(|block| block.text.replace('…', "")).collect();
        // Pages begin anew with the account, unless they create it.
        stage.sql(["DROP USER IF EXISTS 'outboxd'@'%'"]).await;
        if !text.contains("CREATE USER") {
            stage.sql(["CREATE USER 'outboxd'@'%'"]).await;
        }
        let statements = statements(&text);
        count += statements.len();
        stage.sql(statements).await;
    }
    assert!(count > 5, "statements are found: {count}");
}
