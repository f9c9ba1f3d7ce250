//! The admin interface against the document that it gives of itself, over relays on real servers.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};

use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::poison::{limit, noise};
use crate::stage::{Stage, until};

const FIRST: &str = "/api/v1/tables/delivery.delivery-outbox1";
const SECOND: &str = "/api/v1/tables/delivery.delivery-outbox2";

/// Somebody who believes the document.
struct Client<'d> {
    daemon: &'d Daemon,
    document: Value,
    /// Paths and methods that were answered with success.
    answered: BTreeSet<(String, String)>,
}

impl<'d> Client<'d> {
    fn of(daemon: &'d Daemon) -> Self {
        let (_, document) = daemon.page("/api/v1/openapi.json").unwrap();
        let mut document = serde_json::from_str(&document).unwrap();
        close(&mut document);
        Self { daemon, document, answered: BTreeSet::new() }
    }

    /// The status and what is answered, which is as documented.
    fn ask(&mut self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let url = format!("http://{}{path}", self.daemon.address().unwrap());
        let request = ureq::http::Request::builder().method(method.to_uppercase().as_str()).uri(url);
        let request = request.header("content-type", "application/json");
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut answer = match body {
            Some(body) => agent.run(request.body(body.to_string()).unwrap()).unwrap(),
            None => agent.run(request.body(()).unwrap()).unwrap(),
        };
        let status = answer.status().as_u16();
        let text = answer.body_mut().read_to_string().unwrap();
        let told = answer.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
        let template = path.replace(FIRST, "/api/v1/tables/{table}").replace(SECOND, "/api/v1/tables/{table}");
        let responses = &self.document["paths"][&template][method]["responses"];
        let documented = responses.get(status.to_string()).or_else(|| responses.get("default"));
        let documented = documented.unwrap_or_else(|| panic!("{method} {path}: {status} is not documented: {text}"));
        let documented = match documented["$ref"].as_str() {
            Some(place) => self.document.pointer(place.trim_start_matches('#')).unwrap(),
            None => documented,
        };
        if (200..300).contains(&status) {
            self.answered.insert((template, method.to_owned()));
        }
        let Some(schema) = documented.pointer("/content/application~1json/schema") else {
            return (status, Value::String(text));
        };
        assert_eq!(told.as_deref(), Some("application/json"), "{method} {path}");
        let answer = serde_json::from_str(&text).unwrap();
        self.fits(schema.clone(), &answer);
        (status, answer)
    }

    fn get(&mut self, path: &str) -> Value {
        let (status, answer) = self.ask("get", path, None);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    #[track_caller]
    fn changes(&mut self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.ask(method, path, Some(body));
        assert_eq!(status, 200, "{method} {path} {body}: {answer}");
        answer
    }

    #[track_caller]
    fn is_refused(&mut self, method: &str, path: &str, body: &Value, error: &str) {
        let (status, answer) = self.ask(method, path, Some(body));
        assert!(status >= 400 && answer["error"] == error, "{method} {path} {body}: {status} {answer}");
    }

    #[track_caller]
    fn fits(&self, mut schema: Value, answer: &Value) {
        schema["components"] = self.document["components"].clone();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let errors: Vec<_> =
            validator.iter_errors(answer).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{errors:#?}\n{answer:#}");
    }

    /// The first events of the stream.
    fn watches(&mut self) {
        let answer = ureq::get(format!("http://{}/api/v1/stream", self.daemon.address().unwrap())).call().unwrap();
        let mut lines = BufReader::new(answer.into_body().into_reader()).lines();
        let mut next = || lines.find_map(|line| Some(line.unwrap().split_once(": ")?.1.to_owned())).unwrap();
        for name in ["overview", "tick", "tick"] {
            assert_eq!(next(), name);
            let schema = if name == "overview" { "Overview" } else { "Tick" };
            let schema = json!({"$ref": format!("#/components/schemas/{schema}")});
            self.fits(schema, &serde_json::from_str(&next()).unwrap());
        }
        self.answered.insert(("/api/v1/stream".to_owned(), "get".to_owned()));
    }

    async fn becomes(&mut self, table: &str, state: &str) {
        until(&format!("{table} is {state}"), async || self.get(table)["state"] == state).await;
    }
}

/// No object has what is not in its schema.
fn close(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if object.get("type") == Some(&json!("object")) && object.contains_key("properties") {
                object.entry("additionalProperties").or_insert(json!(false));
            }
            object.values_mut().for_each(close);
        }
        Value::Array(all) => all.iter_mut().for_each(close),
        _ => {}
    }
}

/// Given a daemon at work, when all that its document has is asked of it, well and badly, then each answer is what the document
/// says, with nothing missing and nothing more.
#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_as_the_document_says() {
    let stage = Stage::of().blocks(2).shards(2).partitions(1).set("OUTBOX__0__TABLES", "delivery.delivery-outbox1");
    let stage = stage.set("OUTBOX__1__TABLES", "delivery.delivery-outbox2").set("OUTBOX__1__START", "earliest");
    let stage = stage.set("DELIVERY__ON_POISON", "park").up().await;
    let late = format!("{}-late", stage.topic);
    for topic in [&stage.topic, &late] {
        stage.create(&format!("outboxd.parked.{topic}")).await;
    }
    let daemon = stage.run_with(&[("OUTBOX__1__TOPIC", &late)]);
    daemon.logs("relay_halted").await;
    let mut client = Client::of(&daemon);
    client.becomes(FIRST, "running").await;
    for path in ["/livez", "/metrics", "/api/v1/openapi.json", "/api/v1/overview", "/api/v1/tables", "/api/v1/log"] {
        client.get(path);
    }
    client.watches();

    // A table that is halted.
    client.is_refused("post", &format!("{SECOND}/retry"), &json!({}), "unfit");
    stage.create(&late).await;
    client.changes("post", &format!("{SECOND}/retry"), &json!({"by": "ann"}));
    client.becomes(SECOND, "running").await;
    client.is_refused("post", &format!("{SECOND}/retry"), &json!({}), "not_halted");
    client.get("/readyz");

    // One that is paused, and its position.
    client.is_refused("post", &format!("{FIRST}/resume"), &json!({}), "not_paused");
    client.is_refused("put", &format!("{FIRST}/position"), &json!({"position": "file=b.000001:4"}), "misplaced");
    client.changes("post", &format!("{FIRST}/pause"), &json!({"by": "ann", "reason": "why"}));
    client.becomes(FIRST, "paused").await;
    let position = client.get(FIRST)["position"].clone();
    client.changes("delete", &format!("{FIRST}/position"), &json!({}));
    client.is_refused("put", &format!("{FIRST}/position"), &json!({"position": "here"}), "bad_request");
    client.changes("put", &format!("{FIRST}/position"), &json!({"position": position}));
    client.changes("post", &format!("{FIRST}/resume"), &json!({}));
    client.becomes(FIRST, "running").await;

    // An event that is parked.
    let insert = "INSERT INTO delivery.`delivery-outbox1` (id, aggregatetype, aggregateid, type, payload)";
    stage.sql([format!("{insert} VALUES ('small', 'delivery', 'k', 'T', '{{}}')")]).await;
    stage.delivered("small").await;
    limit(&stage, "1000").await;
    stage.sql([format!("{insert} VALUES ('large', 'delivery', 'k', 'T', '{}')", noise(3_000))]).await;
    let parked = format!("{FIRST}/parked");
    until("an event is parked", async || client.get(&parked).as_array().is_some_and(|all| !all.is_empty())).await;
    client.is_refused("post", &format!("{FIRST}/release"), &json!({"aggregate": "k"}), "not_released");
    limit(&stage, "1048588").await;
    client.becomes(FIRST, "running").await;
    client.changes("post", &format!("{FIRST}/release"), &json!({"aggregate": "k"}));
    stage.delivered("large").await;

    // What was published comes again.
    let replay = format!("{FIRST}/replay");
    let (status, _) = client.ask("get", &replay, None);
    assert_eq!(status, 404, "there was none");
    client.is_refused("post", &replay, &json!({"from": "here"}), "bad_request");
    client.changes("post", &replay, &json!({"from": position, "ids": ["small"]}));
    until("the replay is done", async || client.get(&replay)["state"] == "done").await;

    // The daemon itself.
    client.is_refused("put", "/api/v1/log", &json!({"level": "loud"}), "bad_request");
    client.changes("put", "/api/v1/log", &json!({"level": "info,outboxd::kafka=debug"}));
    client.changes("post", "/api/v1/reload", &json!({"rehearse": true}));
    client.changes("post", "/api/v1/reload", &json!({"by": "ann"}));
    client.is_refused("post", "/api/v1/reload", &json!({"wrong": true}), "bad_request");
    client.watches();

    let paths = client.document["paths"].as_object().unwrap();
    let all: BTreeSet<_> = paths
        .iter()
        .flat_map(|(path, item)| item.as_object().unwrap().keys().map(|method| (path.clone(), method.clone())))
        .filter(|(_, method)| method != "parameters")
        .collect();
    assert_eq!(all.difference(&client.answered).collect::<Vec<_>>(), Vec::<&(String, String)>::new());
    assert_eq!(daemon.terminate().await, Some(0));
}
