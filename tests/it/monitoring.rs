//! What watches the daemon: its metrics by Prometheus' own linter, alerts and dashboard by a real Prometheus that scrapes a
//! real run, and that an idle database and a dead connection look different.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use outboxd::telemetry::metrics::markdown;
use regex::Regex;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Duration, Instant};

use crate::account;
use crate::daemon::Daemon;
use crate::proxy::Proxy;
use crate::stage::{Stage, free_port, until};

/// Metrics that a run has only under conditions that the test does not make.
const ABSENT: [(&str, &str); 2] =
    [("outboxd_table_rows", "only with cleanup.keep"), ("outboxd_table_bytes", "only with cleanup.keep")];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where the programs of the Debian package are that `scripts/services install prometheus-2` has unpacked.
pub(crate) fn programs() -> PathBuf {
    let services = std::env::var_os("OUTBOXD_SERVICES_DIR").map_or_else(|| root().join(".services"), PathBuf::from);
    services.join("prometheus-2/root/usr/bin")
}

fn program(name: &str) -> Command {
    let path = programs().join(name);
    assert!(path.exists(), "{} is missing: scripts/services install prometheus-2", path.display());
    Command::new(path)
}

/// Runs promtool, with this as its input, and gives what it says; fails where it finds fault.
fn promtool(arguments: &[&str], input: &str) -> String {
    let mut command = program("promtool");
    command.args(arguments).current_dir(root().join("config/prometheus"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    said
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_norway::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names of metrics in a query.
fn metrics_in(query: &str) -> BTreeSet<String> {
    let name = Regex::new(r"\b(?:outboxd|process)_[a-z0-9_]+").unwrap();
    let base = |name: &str| name.trim_end_matches("_bucket").to_owned();
    name.find_iter(query).map(|found| base(found.as_str())).collect()
}

/// Every query of the dashboard, with the title of its panel.
fn panel_queries() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read("config/grafana/outboxd.json")).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap_or(&Vec::new()) {
            assert_eq!(target["datasource"]["uid"], "outboxd-prometheus");
            queries.push((panel["title"].to_string(), target["expr"].as_str().unwrap().to_owned()));
        }
    }
    assert!(queries.len() > 30, "the dashboard has another form now");
    queries
}

/// A Prometheus with our alerts; gone when dropped.
struct Prometheus {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Prometheus {
    /// Scrapes this daemon every second.
    async fn of(daemon: &Daemon) -> Self {
        let folder = TempDir::new().unwrap();
        let (port, alerts) = (free_port(), root().join("config/prometheus/alerts.yml"));
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: ['{}']\nscrape_configs:\n  - job_name: outboxd\n    \
             static_configs: [ {{ targets: ['{}'] }} ]\n",
            alerts.display(),
            daemon.address().unwrap()
        );
        std::fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program("prometheus").get_program());
        command.arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let this = Self { child, port, _folder: folder };
        until("Prometheus answers", async || this.ask("query", "vector(1)").is_some()).await;
        this
    }

    /// What it answers, once it does.
    fn ask(&self, page: &str, query: &str) -> Option<Value> {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let asked = agent.get(format!("http://127.0.0.1:{}/api/v1/{page}", self.port)).query("query", query).call();
        let answer: Value = asked.ok()?.body_mut().read_json().ok()?;
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        Some(answer["data"].clone())
    }

    /// Whether the query has a value that is a number.
    fn has(&self, query: &str) -> bool {
        let found = self.ask("query", query).unwrap();
        let values = found["result"].as_array().unwrap().iter();
        values.map(|one| &one["value"][1]).any(|value| value.as_str().unwrap() != "NaN")
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn given_alerts_when_their_cases_are_played_then_each_fires_when_it_should_and_only_then() {
    promtool(&["check", "config", "prometheus.yml"], "");
    promtool(&["test", "rules", "alerts.test.yml"], "");
    let (rules, cases) = (yaml("config/prometheus/alerts.yml"), yaml("config/prometheus/alerts.test.yml"));
    let headings: BTreeSet<String> = read("docs/operations.md")
        .lines()
        .filter_map(|line| line.strip_prefix('#')?.trim_start_matches('#').strip_prefix(' ').map(str::to_lowercase))
        .map(|heading| heading.replace(' ', "-"))
        .collect();
    for rule in rules["groups"][0]["rules"].as_array().unwrap() {
        let alert = rule["alert"].as_str().unwrap();
        let runbook = rule["annotations"]["runbook_url"].as_str().unwrap();
        let anchor = runbook.strip_prefix("docs/operations.md#").unwrap();
        assert!(headings.contains(anchor), "{alert}: {runbook} is not there");
        let tests = cases["tests"].as_array().unwrap().iter();
        let expected = tests.flat_map(|test| test["alert_rule_test"].as_array().unwrap());
        let expected: Vec<_> = expected.filter(|one| one["alertname"] == alert).map(|one| &one["exp_alerts"]).collect();
        let fires = |alerts: &&Value| !alerts.as_array().unwrap().is_empty();
        assert!(expected.iter().any(fires) && !expected.iter().all(fires), "{alert} has no case each way");
    }
}

#[test]
fn given_the_compose_file_when_read_then_grafana_finds_the_dashboard_and_its_source() {
    let compose = yaml("docker-compose.yml");
    let mut targets = BTreeSet::new();
    for service in ["prometheus", "grafana"] {
        for volume in compose["services"][service]["volumes"].as_array().unwrap() {
            let (from, to) = volume.as_str().unwrap().split_once(':').unwrap();
            assert!(root().join(from).exists(), "{from}");
            targets.insert(to.trim_end_matches(":ro").to_owned());
        }
    }
    let provider = yaml("config/grafana/provisioning/dashboards/outboxd.yml");
    let folder = provider["providers"][0]["options"]["path"].as_str().unwrap();
    let home =
        compose["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].as_str().unwrap();
    assert!(home.starts_with(folder) && targets.contains(home), "{targets:?}");
    assert!(targets.contains("/etc/grafana/provisioning") && targets.contains("/etc/prometheus/alerts.yml"));
    let source = yaml("config/grafana/provisioning/datasources/prometheus.yml");
    assert_eq!(source["datasources"][0]["uid"], "outboxd-prometheus");
    assert_eq!(source["datasources"][0]["url"], "http://prometheus:9090");
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_real_run_when_scraped_then_every_metric_is_there_and_every_panel_and_alert_has_its_query() {
    let stage = Stage::of().set("RELAY__ON_UPDATE", "halt").set("RELAY__CHECKPOINT_INTERVAL", "200ms").up().await;
    // What the guard of the log tells first is about positions that were there before.
    let before = stage.run();
    before.ready().await;
    assert_eq!(before.terminate().await, Some(0));
    let daemon = stage.run();
    let writing = stage.write(8).await;
    daemon.ready().await;
    let prometheus = Prometheus::of(&daemon).await;
    writing.more(300).await;
    let halting = stage.outboxes[3].quoted();
    stage.sql([format!("UPDATE {halting} SET type = 'changed' LIMIT 1")]).await;
    daemon.logs("relay_halted").await;
    for condition in [
        "outboxd_kafka_request_mean_seconds > 0",
        "count_over_time(up[1m]) >= 10",
        "outboxd_halts_total{reason=\"update_on_outbox\"} == 1",
        "rate(outboxd_delivery_seconds_count[30s]) > 0",
    ] {
        until(condition, async || prometheus.has(condition)).await;
    }

    let (_, page) = daemon.page("/metrics").unwrap();
    let linted = promtool(&["check", "metrics"], &page);
    assert_eq!(linted.trim(), "", "the linter has a word to say");
    let there: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let absent = |name: &str| ABSENT.iter().any(|(absent, _)| *absent == name);
    let documented = markdown();
    let documented = documented.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let documented: BTreeSet<&str> = documented.collect();
    let missing: Vec<_> = documented.iter().filter(|name| !there.contains(*name) && !absent(name)).collect();
    assert!(missing.is_empty(), "documented, and not there: {missing:?}");
    let further: Vec<_> = there.difference(&documented).collect();
    assert!(further.is_empty(), "there, and not documented: {further:?}");

    let mut failing = Vec::new();
    for (title, query) in panel_queries() {
        let asked = query.replace("$__rate_interval", "30s").replace("$instance", ".*").replace("$table", ".*");
        assert!(!asked.contains('$'), "{title}: {asked}");
        failing.extend(metrics_in(&query).into_iter().filter(|name| !documented.contains(name.as_str())));
        if !prometheus.has(&asked) {
            failing.push(format!("{title}: {asked}"));
        }
    }
    assert!(failing.is_empty(), "unknown metrics, or queries without an answer: {failing:#?}");

    let groups = prometheus.ask("rules", "").unwrap();
    let rules = groups["groups"][0]["rules"].as_array().unwrap().clone();
    assert!(rules.len() > 10 && rules.iter().all(|rule| rule["health"] == "ok"), "{groups}");
    for rule in rules {
        let unknown = metrics_in(rule["query"].as_str().unwrap());
        let unknown: Vec<_> = unknown.iter().filter(|name| !there.contains(name.as_str())).collect();
        assert!(unknown.is_empty(), "{}: {unknown:?}", rule["name"]);
        // Nothing is wrong but what was done.
        let expected =
            if rule["name"] == "OutboxdRelayHalted" { ["pending", "firing"] } else { ["inactive", "pending"] };
        assert!(expected.contains(&rule["state"].as_str().unwrap()), "{rule}");
    }
    let _ = writing.stop().await;
    daemon.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn given_an_idle_database_when_its_connection_dies_without_a_word_then_that_is_seen_within_ten_seconds() {
    let stage = Stage::of().shards(1).up().await;
    let proxy = Proxy::to(stage.mysql.port()).await;
    let daemon = stage.run_with(&[("MYSQL__URL", &account::url(proxy.port()))]);
    daemon.ready().await;
    // Three signs of life, at the default interval, are no reason for an alarm.
    let signs = proxy.answers() + 3;
    until("the server shows that it is there", async || {
        assert!(daemon.metric("outboxd_tail_silence_seconds") < 6.0, "{}", daemon.log());
        assert!(daemon.metric("outboxd_tail_connected") > 0.5 && daemon.metric("outboxd_lag_seconds") < 0.1);
        proxy.answers() >= signs
    })
    .await;
    assert_eq!(daemon.page("/readyz").unwrap().0, 200);
    proxy.freeze();
    let frozen = Instant::now();
    until("silence is long", async || daemon.metric("outboxd_tail_silence_seconds") > 6.0).await;
    until("the connection is given up", async || daemon.metric("outboxd_tail_connected") < 0.5).await;
    assert!(frozen.elapsed() < Duration::from_secs(10), "{:?}", frozen.elapsed());
    assert!(daemon.metric("outboxd_tail_reconnects_total{cause=\"silence\"}") > 0.5);
    assert!(daemon.metric("outboxd_tail_silence_seconds") > 6.0, "a connection that is given up is no word");
    assert_eq!(daemon.page("/readyz").unwrap().0, 503);
    proxy.thaw();
    daemon.ready().await;
    until("the server is heard again", async || daemon.metric("outboxd_tail_silence_seconds") < 6.0).await;
    assert_eq!(daemon.terminate().await, Some(0));
}
