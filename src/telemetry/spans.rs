//! Spans to an OpenTelemetry collector, by OTLP over HTTP.
//!
//! Promise: no relay waits for the collector. Spans that come faster than it takes them are dropped, never events.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Span as _, SpanKind, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

use super::settings::OtelSettings;
use crate::relay::spans::{Sink, Span};

/// How long a collector may take for a batch of spans.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends spans from a thread of its own.
#[derive(Debug)]
pub struct Exporter {
    provider: SdkTracerProvider,
}

impl Exporter {
    /// To the collector that the settings name, if they do.
    pub fn of(settings: &OtelSettings) -> Result<Option<Self>, ExporterBuildError> {
        let Some(endpoint) = &settings.endpoint else { return Ok(None) };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Client(agent()))
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .build()?;
        let resource = Resource::builder().with_service_name(settings.service.clone()).build();
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        Ok(Some(Self { provider }))
    }

    /// What relays hand their spans to.
    pub fn sink(&self) -> Sink {
        let tracer = self.provider.tracer("outboxd");
        Arc::new(move |span, ended_micros| {
            let Span { parent, state, table, topic, position, event, begun_micros } = span;
            let carrier: HashMap<_, _> =
                [("traceparent", Some(parent)), ("tracestate", state)].into_iter().filter_map(named).collect();
            let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
            let position = position.map(|position| KeyValue::new("outboxd.position", position.to_string()));
            // By the conventions for messaging.
            let attributes = [
                KeyValue::new("messaging.system", "kafka"),
                KeyValue::new("messaging.operation.type", "send"),
                KeyValue::new("messaging.destination.name", topic.clone()),
                KeyValue::new("messaging.message.id", event),
                KeyValue::new("outboxd.table", table.to_string()),
            ];
            let builder = tracer.span_builder(format!("relay {topic}")).with_kind(SpanKind::Producer);
            let builder =
                builder.with_attributes(attributes.into_iter().chain(position)).with_start_time(time(begun_micros));
            builder.start_with_context(&tracer, &context).end_with_timestamp(time(ended_micros));
        })
    }

    /// Sends what is left. Blocks, as long as a collector may take.
    pub fn end(self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!(%error, "spans_not_sent");
        }
    }
}

fn agent() -> Agent {
    let tls = TlsConfig::builder().provider(TlsProvider::NativeTls).root_certs(RootCerts::PlatformVerifier).build();
    let config = Agent::config_builder().tls_config(tls).timeout_global(Some(PATIENCE));
    // A status is the exporter's to judge.
    config.http_status_as_error(false).build().into()
}

fn named((name, value): (&str, Option<String>)) -> Option<(String, String)> {
    Some((name.to_owned(), value?))
}

fn time(micros: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(micros)
}

/// The client that we have anyway.
#[derive(Debug)]
struct Client(Agent);

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        // On the exporter's own thread, which has nothing else to do.
        let (parts, body) = request.into_parts();
        let answer = self.0.run(Request::from_parts(parts, body.to_vec()))?;
        let (parts, mut body) = answer.into_parts();
        Ok(Response::from_parts(parts, Bytes::from(body.read_to_vec()?)))
    }
}
