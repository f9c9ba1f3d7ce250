//! Three brokers: their leaders change, they restart one by one, and they are killed under load.

use std::ops::Range;
use std::sync::OnceLock;

use outboxd::history::Verdict;
use outboxd::services::Service;
use rdkafka::admin::{AdminOptions, AlterConfig, ResourceSpecifier};
use tokio::sync::{Mutex, MutexGuard};

use crate::daemon::Daemon;
use crate::exactly_once::exactly_once;
use crate::stage::{PATIENCE, Setup, Stage, hold, script, until};

/// Three brokers; the first is the controller too.
struct Cluster {
    nodes: Vec<Service>,
}

/// The tests share it, one after the other. Ends with the process.
static CLUSTER: OnceLock<Mutex<Cluster>> = OnceLock::new();

impl Cluster {
    fn start() -> Mutex<Self> {
        let settings = [
            "default.replication.factor=3",
            "offsets.topic.replication.factor=3",
            "transaction.state.log.replication.factor=3",
            "transaction.state.log.min.isr=2",
            // A broker that was killed comes back into its partitions soon.
            "replica.lag.time.max.ms=5000",
            "controlled.shutdown.enable=true",
        ];
        let first = hold("kafka-4.1", &settings);
        let mut nodes: Vec<_> = std::thread::scope(|scope| {
            let join = || first.join(script(), &settings).unwrap();
            let others = [scope.spawn(join), scope.spawn(join)];
            others.into_iter().map(|other| other.join().unwrap()).collect()
        });
        nodes.insert(0, first);
        Mutex::new(Self { nodes })
    }

    async fn get() -> MutexGuard<'static, Self> {
        let cluster = tokio::task::spawn_blocking(|| CLUSTER.get_or_init(Self::start));
        cluster.await.unwrap().lock().await
    }

    fn brokers(&self) -> String {
        self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect::<Vec<_>>().join(",")
    }

    /// Does that to a node, without holding up the test's other tasks.
    fn tell(&mut self, node: usize, command: &str) {
        tokio::task::block_in_place(|| self.nodes[node].tell(command)).unwrap();
    }

    /// Waits until every partition of the topic has so many replicas in sync.
    async fn in_sync(&self, stage: &Stage, replicas: usize) {
        until(&format!("{replicas} replicas are in sync"), async || {
            let admin = stage.kafka_admin();
            let topic = stage.topic.clone();
            let asked = tokio::task::spawn_blocking(move || admin.inner().fetch_metadata(Some(&topic), PATIENCE)).await;
            let Ok(metadata) = asked.unwrap() else { return false };
            metadata.topics()[0].partitions().iter().all(|partition| partition.isr().len() >= replicas)
        })
        .await;
    }

    async fn stage(&self, setup: Setup) -> Stage {
        let stage = setup.brokers(&self.brokers()).replicas(3).up().await;
        let config = AlterConfig::new(ResourceSpecifier::Topic(&stage.topic)).set("min.insync.replicas", "2");
        stage.kafka_admin().alter_configs([&config], &AdminOptions::new()).await.unwrap();
        self.in_sync(&stage, 3).await;
        stage
    }

    /// Under load: these brokers restart one by one, one is killed, then a second one, so that too few replicas are left for
    /// a while.
    async fn play(&mut self, setup: Setup, seed: u64, restarting: Range<usize>) -> Verdict {
        let stage = self.stage(setup).await;
        let writing = stage.write(seed).await;
        let daemon = stage.run();
        daemon.ready().await;
        for node in restarting {
            self.tell(node, "stop");
            writing.more(100).await;
            self.tell(node, "start");
            self.in_sync(&stage, 3).await;
        }
        caught_up(&daemon).await;
        self.tell(2, "kill");
        writing.more(200).await;
        caught_up(&daemon).await;
        self.tell(1, "kill");
        // The controller notices, and one replica is too few.
        until("records wait", async || daemon.metric("outboxd_lag_seconds") > 3.0).await;
        let acknowledged = daemon.metric("outboxd_events_total");
        writing.more(200).await;
        assert!((daemon.metric("outboxd_events_total") - acknowledged).abs() < 1.0, "one replica acknowledges nothing");
        assert!(!daemon.log().contains("relay_halted"));
        for node in [1, 2] {
            self.tell(node, "start");
        }
        caught_up(&daemon).await;
        writing.more(200).await;
        let journal = writing.stop().await;
        let verdict = stage.judge(&journal, daemon).await;
        self.in_sync(&stage, 3).await;
        verdict
    }
}

/// Waits until nothing is late.
async fn caught_up(daemon: &Daemon) {
    until("it has caught up", async || daemon.metric("outboxd_lag_seconds") < 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_restart_and_are_killed_and_nothing_is_lost_or_out_of_order() {
    let mut cluster = Cluster::get().await;
    cluster.play(Stage::of(), 71, 0..3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_restart_and_are_killed_and_every_event_is_seen_once() {
    let mut cluster = Cluster::get().await;
    let setup = exactly_once(Stage::of()).set("KAFKA__CREATE_TOPICS", "true").set("KAFKA__REPLICATION_FACTOR", "3");
    let verdict = cluster.play(setup, 72, 1..2).await;
    assert_eq!(verdict.total.duplicates, 0, "{verdict}");
}
