//! The interface as a client sees it, over relays in memory.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::tls::TlsSettings;
use super::*;
use crate::outlet::Reach;
use crate::relay::stats::{State, TableStats, TailStats};
use crate::table::TableName;

struct Bench {
    address: SocketAddr,
    stats: Arc<TableStats>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn bench() -> Bench {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let table = TableName::new("d", "out-box/1");
    let stats = Arc::new(TableStats::new(table.clone()));
    let metrics = Metrics::new(vec![Arc::clone(&stats)], Arc::new(TailStats::default()), Arc::new(Reach::default()));
    // Its relay has gone: whoever reaches it hears that.
    let control = Control::of([&table]).0;
    let (_, current) = watch::channel(Arc::new(View {
        metrics,
        control,
        reloads: Reloads::channel().0,
        levels: Levels::of("info", |_| true),
    }));
    let incoming = Incoming::of(listener, &TlsSettings::default()).unwrap();
    let serving = serve(incoming, AdminSettings::default(), current, Happenings::default(), CancellationToken::new());
    Bench { address, stats, serving: tokio::spawn(serving) }
}

impl Bench {
    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (get, body) = (method == "GET", body.to_owned());
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let answered = tokio::task::spawn_blocking(move || {
            let answer =
                if get { agent.run(request.body(()).unwrap()) } else { agent.run(request.body(body).unwrap()) };
            let mut answer = answer.unwrap();
            (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
        });
        let (status, text) = answered.await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn change(&self, what: &str, body: &str) -> (u16, Value) {
        let (method, path) = if what == "position" { ("PUT", what) } else { ("POST", what) };
        self.ask(method, &format!("/api/v1/tables/d.out-box%2F1/{path}"), &[("content-type", "application/json")], body)
            .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_table_is_found_by_its_name_and_reading_needs_no_token() {
    let bench = bench().await;
    bench.stats.set_state(State::Paused, Some("by ann".to_owned()));
    let (status, table) = bench.ask("GET", "/api/v1/tables/d.out-box%2F1", &[("host", "localhost")], "").await;
    assert_eq!((status, &table["state"], &table["reason"]), (200, &json!("paused"), &json!("by ann")));
    let (status, missing) = bench.ask("GET", "/api/v1/tables/d.other", &[], "").await;
    assert_eq!((status, &missing["error"]), (404, &json!("unknown_table")));
    let (status, missing) = bench.ask("GET", "/api/v2", &[], "").await;
    assert_eq!((status, &missing["error"]), (404, &json!("not_found")));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_reach_the_relay_and_nothing_that_is_not_one_does() {
    let bench = bench().await;
    for (what, body) in [("pause", r#"{"by": "ann", "reason": "why"}"#), ("resume", ""), ("retry", "{}")] {
        let (status, answer) = bench.change(what, body).await;
        assert_eq!((status, &answer["error"]), (503, &json!("stopping")), "{what}");
    }
    let (status, answer) = bench.change("position", r#"{"position": "file=b.000001:4"}"#).await;
    assert_eq!((status, &answer["error"]), (503, &json!("stopping")));
    let long = format!(r#"{{"reason": "{}"}}"#, "x".repeat(501));
    for (what, body) in [
        ("pause", r#"{"why": 1}"#),
        ("pause", r#"{"by": "a\nb"}"#),
        ("pause", long.as_str()),
        ("resume", "7"),
        ("position", "{}"),
        ("position", r#"{"position": "here"}"#),
    ] {
        let (status, answer) = bench.change(what, body).await;
        assert_eq!((status, &answer["error"]), (400, &json!("bad_request")), "{what} {body}: {answer}");
    }
    let (status, answer) = bench.change("pause", &"x".repeat(2 << 20)).await;
    assert_eq!((status, &answer["error"]), (413, &json!("bad_request")), "{answer}");
    let (status, answer) = bench.ask("GET", "/api/v1/tables/%ff", &[], "").await;
    assert_eq!((status, &answer["error"]), (400, &json!("bad_request")), "{answer}");
    let (status, answer) = bench.ask("GET", "/api/v1/tables/d.out-box%2F1/pause", &[], "").await;
    assert_eq!((status, &answer["error"]), (405, &json!("method_not_allowed")));
    let (status, answer) =
        bench.ask("POST", "/api/v1/tables/nothing/pause", &[("content-type", "application/json")], "").await;
    assert_eq!((status, &answer["error"]), (404, &json!("unknown_table")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_browser_can_be_made_to_send_changes_nothing() {
    let bench = bench().await;
    let path = "/api/v1/tables/d.out-box%2F1/pause";
    let json = ("content-type", "application/json");
    for (headers, error) in [
        (vec![("content-type", "text/plain")], "content_type"),
        (vec![json, ("host", "rebound.example:9640")], "foreign_host"),
        (vec![json, ("origin", "http://evil.example")], "foreign_origin"),
    ] {
        let (status, answer) = bench.ask("POST", path, &headers, "{}").await;
        assert_eq!((status >= 400, &answer["error"]), (true, &Value::from(error)), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_has_every_route_and_every_error_and_no_other() {
    let bench = bench().await;
    let (status, document) = bench.ask("GET", "/api/v1/openapi.json", &[], "").await;
    assert_eq!(status, 200);
    let paths = document["paths"].as_object().unwrap();
    let routes: BTreeSet<_> = include_str!("mod.rs")
        .lines()
        .filter_map(|line| line.trim().strip_prefix(".route(\"")?.split_once("\", "))
        .map(|(path, handler)| (path, handler.split_once('(').unwrap().0))
        .collect();
    let documented = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().keys().filter(|method| *method != "parameters");
        methods.map(move |method| (path.as_str(), method.as_str()))
    });
    assert_eq!(documented.collect::<BTreeSet<_>>(), routes);
    let tables = bench.ask("GET", "/api/v1/tables", &[], "").await.1;
    let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(fields(&document["components"]["schemas"]["TableStatus"]["properties"]), fields(&tables[0]));
    let known = &document["components"]["schemas"]["TableStatus"]["properties"]["state"]["enum"];
    assert_eq!(known, &json!(State::ALL.map(State::name)));
    let named = ["changes.rs", "guard.rs", "live.rs", "mod.rs", "reload.rs"]
        .iter()
        .filter_map(|file| std::fs::read_to_string(format!("{}/src/admin/{file}", env!("CARGO_MANIFEST_DIR"))).ok())
        .chain([include_str!("../relay/control.rs").to_owned()])
        .collect::<String>();
    let pattern = regex::Regex::new(r#"(?:Failure::new\(\d+, |=> \(?)"([a-z_]+)""#).unwrap();
    let errors: BTreeSet<_> = pattern.captures_iter(&named).map(|found| found[1].to_owned()).collect();
    let listed = document["components"]["schemas"]["Failure"]["properties"]["error"]["enum"].as_array().unwrap();
    let listed: BTreeSet<_> = listed.iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    assert_eq!(listed, errors);
}
