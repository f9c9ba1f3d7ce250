//! What lies between the daemon and MySQL: a network that dies without a word, is slow, or is none at all.

use tokio::time::{Duration, Instant, sleep};

use crate::account;
use crate::daemon::Daemon;
use crate::proxy::Proxy;
use crate::stage::{PATIENCE, Setup, Stage, until, until_within};

/// A daemon that notices silence within a second, through a proxy.
fn impatient() -> Setup {
    let setup = Stage::of().set("MYSQL__HEARTBEAT", "200ms").set("MYSQL__SILENCE_DEADLINE", "1s");
    setup.set("MYSQL__CONNECT_TIMEOUT", "1s")
}

fn run_through(stage: &Stage, proxy: &Proxy) -> Daemon {
    stage.run_with(&[("MYSQL__URL", &account::url(proxy.port()))])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_open_at_one_end_only_is_noticed_and_nothing_is_lost() {
    for server in ["mysql-9.7", "mariadb-11.8"] {
        let stage = impatient().server(server).up().await;
        let proxy = Proxy::to(stage.mysql.port()).await;
        let writing = stage.write(30).await;
        let daemon = run_through(&stage, &proxy);
        writing.more(300).await;
        for _ in 0..3 {
            daemon.ready().await;
            proxy.freeze();
            let frozen = Instant::now();
            daemon.waits_for("").await;
            assert!(frozen.elapsed() < Duration::from_secs(8), "{:?}", frozen.elapsed());
            writing.more(100).await;
            proxy.thaw();
            daemon.ready().await;
            writing.more(100).await;
        }
        daemon.logs("nothing heard from the server for 1s").await;
        let journal = writing.stop().await;
        stage.judge(&journal, daemon).await;
    }
}

async fn vanishes(server: &'static str) {
    let stage = Stage::of().server(server).up().await;
    let proxy = Proxy::to(stage.mysql.port()).await;
    let writing = stage.write(31).await;
    let owner = run_through(&stage, &proxy);
    owner.ready().await;
    writing.more(200).await;
    proxy.freeze();
    owner.kill();
    let mut heir = stage.run();
    until("the heir finds the owner's connection open", async || {
        heir.page("/api/v1/tables").is_some_and(|(_, body)| body.contains("lets go of it"))
    })
    .await;
    until_within(2 * PATIENCE, "it is ready, or has ended", async || heir.is_ready() != Some(false)).await;
    assert!(heir.is_ready().is_some(), "it need not be started again: {}", heir.log());
    writing.more(100).await;
    let journal = writing.stop().await;
    stage.judge(&journal, heir).await;
}

/// Given an owner whose host is gone without a word to MySQL, when another process is started, then it waits, and goes on
/// where the owner was; nobody had to end the owner's connection, or to start a second one.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_vanished_leaves_its_tables_to_the_next_process() {
    tokio::join!(vanishes("mysql-9.7"), vanishes("mariadb-11.8"));
}

/// Given an owner that has nothing to do, when the server would have ended its session for saying nothing, then another
/// process is refused, and the owner has lost nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_without_work_keeps_its_tables() {
    tokio::join!(rests("mysql-9.7"), rests("mariadb-11.8"));
}

async fn rests(server: &'static str) {
    // Otherwise a save is a word, too.
    let stage = Stage::of().server(server).set("RELAY__IDLE_CHECKPOINT_INTERVAL", "10m").up().await;
    let owner = stage.run();
    owner.ready().await;
    // It waits for longer than a session may be silent for.
    let mut heir = stage.run();
    until_within(2 * PATIENCE, "the heir ends", async || heir.is_ready().is_none()).await;
    assert_eq!(heir.ended().await, Some(1));
    assert!(heir.log().contains("not_claimed"), "{}", heir.log());
    assert!(!owner.log().contains("claim_restored"), "{}", owner.log());
    assert_eq!(owner.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_log_is_no_silence() {
    for server in ["mysql-9.7", "mariadb-10.11", "mariadb-11.8"] {
        let stage = impatient().server(server).up().await;
        let proxy = Proxy::to(stage.mysql.port()).await;
        let daemon = run_through(&stage, &proxy);
        daemon.ready().await;
        let (began, before) = (Instant::now(), proxy.answers());
        // Several times as long as silence is borne, in signs of life.
        until("the server shows that it is there", async || proxy.answers() >= before + 20).await;
        assert!(began.elapsed() > Duration::from_secs(2), "{:?}", began.elapsed());
        assert!(daemon.metric("outboxd_tail_reconnects") < 0.5, "{server}");
        assert_eq!(daemon.terminate().await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_slower_than_the_server_bears_does_not_end_the_connection() {
    for server in ["mysql-9.7", "mariadb-11.8"] {
        let setup =
            Stage::of().server(server).shards(1).setting("net_write_timeout=1").setting("max_allowed_packet=64M");
        let stage = setup.set("MYSQL__SILENCE_DEADLINE", "1m").up().await;
        let proxy = Proxy::to(stage.mysql.port()).await;
        let daemon = run_through(&stage, &proxy);
        daemon.ready().await;
        proxy.freeze();
        // More than buffers on the way hold.
        let table = stage.outboxes[0].quoted();
        let event = |n: u32| {
            format!(
                "INSERT INTO {table} (id, aggregatetype, aggregateid, type, payload) VALUES ('slow-{n}', 'a', 'k', 'T', JSON_QUOTE(REPEAT('x', 900000)))"
            )
        };
        stage.sql((1..=50).map(event)).await;
        // What this session would be granted without asking for more, several times over.
        sleep(Duration::from_secs(4)).await;
        proxy.thaw();
        stage.delivered("slow-50").await;
        assert!(daemon.metric("outboxd_tail_reconnects") < 0.5, "{server}: {}", daemon.log());
        assert_eq!(daemon.terminate().await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_serves_instead_of_a_network() {
    for server in ["mysql-9.7", "mariadb-11.8"] {
        let safe = Stage::of().server(server).shards(1).setting("loose-ssl=1").setting("require_secure_transport=ON");
        let stage = safe.servers().await;
        let socket = stage.mysql.dir().join("mysql.sock");
        let url = |user: &str| format!("mysql://{user}@localhost?socket={}", socket.display());
        let migrated = stage.outboxd(&["migrate"]).env("OUTBOXD__MYSQL__URL", url("admin")).output().unwrap();
        assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
        stage.create_topic().await;
        let daemon = stage.run_with(&[("MYSQL__URL", &url(account::USER))]);
        daemon.ready().await;
        let opts = mysql_async::Opts::from_url(&url("admin:admin")).unwrap();
        let mut conn = mysql_async::Conn::new(opts).await.unwrap();
        let row = format!(
            "INSERT INTO {} (id, aggregatetype, aggregateid, type, payload) VALUES ('by socket', 'a', 'k', 'T', '{{}}')",
            stage.outboxes[0].quoted()
        );
        mysql_async::prelude::Queryable::query_drop(&mut conn, row).await.unwrap();
        stage.delivered("by socket").await;
        assert_eq!(daemon.terminate().await, Some(0));
    }
}
