//! Answers to requests that failed.

use std::fmt;

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::guard::{Rejection, WAIT};
use super::reload::Unloaded;
use crate::relay::control::Refusal;

/// Why a request did nothing, as it is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Stable, for programs, in `snake_case`.
    pub error: String,
    /// For people.
    pub detail: String,
    #[serde(skip)]
    status: u16,
}

impl Failure {
    pub(super) fn new(status: u16, error: &str, detail: impl Into<String>) -> Self {
        Self { error: error.to_owned(), detail: detail.into(), status }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.detail, self.error)
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        let (name, status) = rejection.name();
        Self::new(status, name, rejection.to_string())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let status = match &refusal {
            Refusal::Unknown(_) => 404,
            Refusal::NotPaused(_) | Refusal::NotHalted { .. } | Refusal::Halted { .. } | Refusal::Unfit { .. } => 409,
            Refusal::Misplaced { .. } | Refusal::NoReplay { .. } | Refusal::NotReleased { .. } => 422,
            Refusal::Store(_) | Refusal::Busy(_) | Refusal::Stopping => 503,
        };
        Self::new(status, refusal.name(), refusal.to_string())
    }
}

impl From<Unloaded> for Failure {
    fn from(refusal: Unloaded) -> Self {
        let (name, status) = refusal.name();
        Self::new(status, name, refusal.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut answer = (status, Json(self)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            answer.headers_mut().insert(WWW_AUTHENTICATE, axum::http::HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::TOO_MANY_REQUESTS {
            answer.headers_mut().insert(RETRY_AFTER, WAIT.as_secs().into());
        }
        answer
    }
}
