//! Spans of traced events, as a collector gets them.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use outboxd::position::Position;
use outboxd::table::TableName;
use prost::Message;

use crate::stage::{Setup, Stage, free_port, until};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const WRITER: &str = "00f067aa0ba902b7";

type Got = Arc<Mutex<Vec<ExportTraceServiceRequest>>>;

/// Takes spans on this port.
async fn collector(port: u16) -> Got {
    let got = Got::default();
    let taken = Arc::clone(&got);
    let take = async move |body: Bytes| {
        taken.lock().unwrap().push(ExportTraceServiceRequest::decode(body).unwrap());
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let router = Router::new().route("/v1/traces", post(take));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    got
}

async fn up(setup: Setup, port: u16) -> Stage {
    let setup = setup.shards(1).partitions(1).set("OUTBOX__0__COLUMNS__HEADERS__0", "traceparent");
    let stage = setup.set("OTEL__ENDPOINT", &format!("http://127.0.0.1:{port}")).up().await;
    stage.sql([format!("ALTER TABLE {} ADD traceparent VARCHAR(60)", stage.outboxes[0].quoted())]).await;
    stage
}

fn traced(table: &TableName, id: &str, parent: &str) -> String {
    let columns = "id, aggregatetype, aggregateid, type, payload, traceparent";
    format!("INSERT INTO {} ({columns}) VALUES ('{id}', 'delivery', 'k', 'T', '{{}}', {parent})", table.quoted())
}

fn text(attributes: &[KeyValue], name: &str) -> String {
    let value = attributes.iter().find(|attribute| attribute.key == name).and_then(|found| found.value.clone());
    match value {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => text,
        other => panic!("{name}: {other:?}"),
    }
}

/// Given events of a sampled trace, of another, and of none, when they are acknowledged, then the first has a span below its
/// writer's, from its commit to now; and the header is as the writer wrote it.
async fn one_span(setup: Setup) {
    let port = free_port();
    let got = collector(port).await;
    let stage = up(setup, port).await;
    let table = &stage.outboxes[0];
    let daemon = stage.run();
    let parent = format!("'00-{TRACE}-{WRITER}-01'");
    let began = stage.ask("SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000000 AS UNSIGNED)").await;
    stage
        .sql([
            traced(table, "sampled", &parent),
            traced(table, "not-sampled", &parent.replace("-01'", "-00'")),
            traced(table, "wrong", "'01'"),
            traced(table, "none", "NULL"),
        ])
        .await;
    stage.delivered("none").await;
    assert_eq!(daemon.terminate().await, Some(0));
    let got = got.lock().unwrap().clone();
    let resources: Vec<_> = got.into_iter().flat_map(|request| request.resource_spans).collect();
    assert_eq!(text(&resources[0].resource.as_ref().unwrap().attributes, "service.name"), "outboxd");
    let spans: Vec<Span> = resources.into_iter().flat_map(|of| of.scope_spans).flat_map(|of| of.spans).collect();
    let [span] = &spans[..] else { panic!("{spans:#?}") };
    let hex = |bytes: &[u8]| bytes.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.to_owned(), WRITER.to_owned()));
    assert_eq!(span.kind, i32::from(SpanKind::Producer));
    assert_eq!(text(&span.attributes, "messaging.message.id"), "sampled");
    assert_eq!(text(&span.attributes, "messaging.destination.name"), stage.topic);
    assert_eq!(text(&span.attributes, "outboxd.table"), table.to_string());
    let position = text(&span.attributes, "outboxd.position").parse::<Position>();
    assert!(position.is_ok(), "{span:?}");
    // A server's commit time may be in whole seconds.
    let began: u64 = began.parse().unwrap();
    assert!(span.start_time_unix_nano + 1_000_000_000 >= began, "{span:?}");
    assert!(span.end_time_unix_nano >= span.start_time_unix_nano && span.end_time_unix_nano > began, "{span:?}");
    let records = crate::routing::texts(&stage, &stage.topic, 4);
    assert!(records[0].contains(&format!("traceparent=00-{TRACE}-{WRITER}-01")), "{records:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_traced_event_has_a_span_from_its_commit_to_its_acknowledgement() {
    one_span(Stage::of()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_traced_event_has_a_span_where_records_are_committed() {
    let setup = crate::exactly_once::exactly_once(Stage::of()).set("KAFKA__CREATE_TOPICS", "true");
    one_span(setup.server("mariadb-11.8")).await;
}

/// Given a collector that is not there, when traced events come, then they are relayed all the same, and the stop is clean.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_holds_nothing_up() {
    let stage = up(Stage::of(), free_port()).await;
    let daemon = stage.run();
    let parent = format!("'00-{TRACE}-{WRITER}-01'");
    let table = &stage.outboxes[0];
    let inserts = (0..300).map(|n| traced(table, &format!("e-{n}"), &parent));
    stage.sql(inserts.collect::<Vec<_>>()).await;
    stage.delivered("e-299").await;
    until("all is acknowledged", async || daemon.metric("outboxd_events_total") >= 300.0).await;
    assert_eq!(daemon.terminate().await, Some(0));
}
