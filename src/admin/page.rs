//! The status page: what every table is doing, live, and the operator's hand on it, in a browser.
//!
//! Promise: it is all in this program: no build, nothing from elsewhere, and the browser is told to let nothing else in. What
//! servers and tables call things is shown as text and never as anything that could act.

use axum::Router;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::get;

use super::Current;

/// Files of the page: where they are, what they are, and what is in them.
const FILES: [(&str, &str, &str); 9] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/page/style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("/page/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    ("/page/main.js", SCRIPT, include_str!("page/main.js")),
    ("/page/words.js", SCRIPT, include_str!("page/words.js")),
    ("/page/spark.js", SCRIPT, include_str!("page/spark.js")),
    ("/page/row.js", SCRIPT, include_str!("page/row.js")),
    ("/page/orders.js", SCRIPT, include_str!("page/orders.js")),
    ("/page/timeline.js", SCRIPT, include_str!("page/timeline.js")),
];

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// What a browser may do on behalf of the page: load these files, ask this daemon, and nothing else.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-cache"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

pub(super) fn routes() -> Router<Current> {
    let all = FILES.into_iter().fold(Router::new(), |all, (path, kind, text)| {
        all.route(path, get(move || async move { ([(CONTENT_TYPE, kind)], text) }))
    });
    all.layer(map_response(protect))
}

async fn protect(mut answer: Response) -> Response {
    for (name, value) in HEADERS {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}
