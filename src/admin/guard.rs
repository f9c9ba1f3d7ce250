//! Who may change something.
//!
//! Promise: a change is taken from a program of this machine, or with the token or a certificate; never from a web page that a
//! browser on this machine happens to show, whatever name it makes this address answer to (DNS rebinding). Nor does such a
//! page read the status page or the API of a listener that is for this machine only. Otherwise reading stays open to all who
//! can reach the listener: metrics and probes answer whoever asks, by whatever name.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName};
use secrecy::ExposeSecret;
use subtle::ConstantTimeEq;

use super::settings::read_token;

/// What browsers say of whoever makes them ask.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Why a change is not even looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Rejection {
    #[error(
        "changes are taken from other machines with a token or a certificate only; set admin.token_file or admin.tls"
    )]
    TokenRequired,
    #[error("this needs a client certificate of an authority in admin.tls.client_ca")]
    CertificateMissing,
    #[error("admin.token_file cannot be used: {0}")]
    TokenFile(String),
    #[error("this needs the token: Authorization: Bearer …")]
    TokenMissing,
    #[error("the token is another")]
    TokenWrong,
    #[error("a listener for this machine is asked as localhost or a loopback address, by that name")]
    ForeignHost,
    #[error("a page of another origin may not change anything")]
    ForeignOrigin,
    #[error("changes are asked for as Content-Type: application/json")]
    ContentType,
    #[error("too many at a time; try again in a second")]
    TooMany,
}

impl Rejection {
    /// A name for programs, and the HTTP status.
    pub(super) fn name(&self) -> (&'static str, u16) {
        match self {
            Self::TokenRequired => ("token_required", 403),
            Self::CertificateMissing => ("certificate_missing", 403),
            Self::TokenFile(_) => ("token_file", 503),
            Self::TokenMissing => ("token_missing", 401),
            Self::TokenWrong => ("token_wrong", 401),
            Self::ForeignHost => ("foreign_host", 403),
            Self::ForeignOrigin => ("foreign_origin", 403),
            Self::ContentType => ("content_type", 415),
            Self::TooMany => ("too_many_requests", 429),
        }
    }
}

/// So many at once, and so many more each second.
struct Bucket {
    holds: f64,
    a_second: f64,
    level: Mutex<(f64, Instant)>,
}

impl Bucket {
    fn new(holds: f64, a_second: f64) -> Self {
        Self { holds, a_second, level: Mutex::new((holds, Instant::now())) }
    }

    fn take(&self, now: Instant) -> bool {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(level.1).as_secs_f64();
        *level = ((level.0 + passed * self.a_second).min(self.holds), now);
        let there = level.0 >= 1.0;
        if there {
            level.0 -= 1.0;
        }
        there
    }
}

/// How long somebody who asks too often should wait.
pub(super) const WAIT: Duration = Duration::from_secs(1);

/// Lets changes in.
pub(super) struct Guard {
    local: bool,
    token_file: Option<PathBuf>,
    /// Whether certificates are asked for.
    certificates: bool,
    /// What is let in, and what is not: who guesses tokens does not keep others from their work.
    changes: Bucket,
    rejections: Bucket,
}

impl Guard {
    /// For a listener on this address; whether certificates of others are looked at.
    pub(super) fn new(listens: IpAddr, token_file: Option<PathBuf>, certificates: bool) -> Self {
        let (changes, rejections) = (Bucket::new(100.0, 20.0), Bucket::new(20.0, 2.0));
        Self { local: listens.is_loopback(), token_file, certificates, changes, rejections }
    }

    /// Who may change something, as the status page is told: `open`, `token`, `certificate`, `either` of these, or `nobody`.
    pub(super) fn changes(&self) -> &'static str {
        if self.token_file.is_some() {
            if self.certificates { "either" } else { "token" }
        } else if self.certificates {
            "certificate"
        } else if self.local {
            "open"
        } else {
            "nobody"
        }
    }

    /// Whether what a browser could show to another page may be read with these headers.
    pub(super) fn may_read(&self, headers: &HeaderMap) -> Result<(), Rejection> {
        let host = text(headers, &HOST).unwrap_or_default();
        if self.local && !is_this_machine(host) {
            return Err(Rejection::ForeignHost);
        }
        // A link may lead here from anywhere.
        let is_link = text(headers, &FETCH_MODE) == Some("navigate");
        if is_foreign(headers, host) && !is_link { Err(Rejection::ForeignOrigin) } else { Ok(()) }
    }

    /// Whether a change with these headers may be looked at, of somebody whose certificate was found good or not.
    pub(super) fn admit(&self, headers: &HeaderMap, certified: bool) -> Result<(), Rejection> {
        let now = Instant::now();
        match self.judge(headers, certified) {
            Ok(()) if self.changes.take(now) => Ok(()),
            Err(rejection) if self.rejections.take(now) => Err(rejection),
            _ => Err(Rejection::TooMany),
        }
    }

    fn judge(&self, headers: &HeaderMap, certified: bool) -> Result<(), Rejection> {
        let host = text(headers, &HOST).unwrap_or_default();
        if is_foreign(headers, host) {
            return Err(Rejection::ForeignOrigin);
        }
        match &self.token_file {
            // A browser shows it for whatever page asks: what is said of pages, above and below, counts here too.
            _ if certified => {}
            None if self.certificates => return Err(Rejection::CertificateMissing),
            None if !self.local => return Err(Rejection::TokenRequired),
            None if !is_this_machine(host) => return Err(Rejection::ForeignHost),
            None => {}
            Some(path) => {
                // Read each time, so that a token that is replaced counts at once.
                let token = read_token(path).map_err(|error| Rejection::TokenFile(error.to_string()))?;
                let given = text(headers, &AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
                let given = given.ok_or(Rejection::TokenMissing)?;
                if !bool::from(given.as_bytes().ct_eq(token.expose_secret().as_bytes())) {
                    return Err(Rejection::TokenWrong);
                }
            }
        }
        // A page may send other types without being asked whether it may.
        let kind = text(headers, &CONTENT_TYPE).and_then(|kind| kind.split(';').next());
        if !kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
            return Err(Rejection::ContentType);
        }
        Ok(())
    }
}

/// Whether a browser says that another page asks.
fn is_foreign(headers: &HeaderMap, host: &str) -> bool {
    let elsewhere = text(headers, &FETCH_SITE).is_some_and(|site| !["same-origin", "none"].contains(&site));
    elsewhere
        || headers.contains_key(ORIGIN) && {
            let origin = text(headers, &ORIGIN).unwrap_or_default();
            let of = |scheme: &str| origin.strip_prefix(scheme).is_some_and(|of| of.eq_ignore_ascii_case(host));
            !of("http://") && !of("https://")
        }
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// Whether a name cannot be given to this machine by somebody else's name server.
fn is_this_machine(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let ip = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name).parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};
    use std::net::Ipv4Addr;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const JSON: (&str, &str) = ("content-type", "application/json");
    const HERE: (&str, &str) = ("host", "127.0.0.1:9640");

    fn headers(all: &[(&str, &str)]) -> HeaderMap {
        let pair = |&(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        all.iter().map(pair).collect()
    }

    fn admitted(guard: &Guard, all: &[(&str, &str)]) -> Result<(), &'static str> {
        guard.admit(&headers(all), false).map_err(|rejection| rejection.name().0)
    }

    #[test]
    fn a_program_of_this_machine_may_and_a_page_in_its_browser_may_not() {
        let guard = Guard::new(Ipv4Addr::LOCALHOST.into(), None, false);
        for host in ["127.0.0.1:9640", "localhost:9640", "LOCALHOST", "[::1]:9640", "127.8.9.1"] {
            assert_eq!(admitted(&guard, &[("host", host), JSON]), Ok(()), "{host}");
        }
        for host in ["evil.example:9640", "127.0.0.1.evil.example", "10.0.0.7:9640", "", "localhost.evil.example"] {
            assert_eq!(admitted(&guard, &[("host", host), JSON]), Err("foreign_host"), "{host}");
        }
        let origin = |origin| admitted(&guard, &[HERE, JSON, ("origin", origin)]);
        assert_eq!(origin("http://127.0.0.1:9640"), Ok(()), "the daemon's own page");
        for foreign in ["http://evil.example", "null", "http://127.0.0.1:8080", "file://"] {
            assert_eq!(origin(foreign), Err("foreign_origin"), "{foreign}");
        }
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
            assert_eq!(admitted(&guard, &[HERE, ("content-type", kind)]), Err("content_type"));
        }
        assert_eq!(admitted(&guard, &[HERE]), Err("content_type"));
        assert_eq!(admitted(&guard, &[HERE, ("content-type", "application/json; charset=utf-8")]), Ok(()));
    }

    #[test]
    fn a_page_of_elsewhere_reads_nothing_here_and_a_link_may_lead_here() {
        let guard = Guard::new(Ipv4Addr::LOCALHOST.into(), None, false);
        let read = |all: &[(&str, &str)]| guard.may_read(&headers(all)).map_err(|rejection| rejection.name().0);
        assert_eq!((read(&[HERE]), read(&[("host", "evil.example:9640")])), (Ok(()), Err("foreign_host")));
        let site = |site| [HERE, ("sec-fetch-site", site), ("sec-fetch-mode", "cors")];
        for ours in ["same-origin", "none"] {
            assert_eq!(read(&site(ours)), Ok(()), "{ours}");
        }
        for foreign in ["cross-site", "same-site", "?"] {
            assert_eq!(read(&site(foreign)), Err("foreign_origin"), "{foreign}");
            assert_eq!(admitted(&guard, &[&site(foreign)[..], &[JSON]].concat()), Err("foreign_origin"), "{foreign}");
        }
        let link = [HERE, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
        assert_eq!(read(&link), Ok(()));
        assert_eq!(admitted(&guard, &[&link[..], &[JSON]].concat()), Err("foreign_origin"), "and changes nothing");
        let open = Guard::new(Ipv4Addr::UNSPECIFIED.into(), None, false);
        assert_eq!(
            open.may_read(&headers(&[("host", "relay.internal:9640")])),
            Ok(()),
            "by whatever name it is reached"
        );
        assert_eq!((guard.changes(), open.changes()), ("open", "nobody"));
    }

    #[test]
    fn from_elsewhere_only_the_token_counts_as_it_is_in_the_file_now() {
        let open = Guard::new(Ipv4Addr::UNSPECIFIED.into(), None, false);
        assert_eq!(admitted(&open, &[HERE, JSON]), Err("token_required"));
        let file = tempfile::NamedTempFile::new().unwrap();
        set_permissions(file.path(), Permissions::from_mode(0o600)).unwrap();
        let guard = Guard::new(Ipv4Addr::UNSPECIFIED.into(), Some(file.path().to_owned()), false);
        let host = ("host", "relay.internal:9640");
        let with = |value| admitted(&guard, &[host, JSON, ("authorization", value)]);
        write(file.path(), "0123456789abcdef\n").unwrap();
        assert_eq!(with("Bearer 0123456789abcdef"), Ok(()));
        assert_eq!(admitted(&guard, &[host, JSON]), Err("token_missing"));
        for wrong in ["Bearer 0123456789abcdeF", "Bearer ", "Bearer 0123456789abcdef0"] {
            assert_eq!(with(wrong), Err("token_wrong"), "{wrong}");
        }
        assert_eq!(with("Basic 0123456789abcdef"), Err("token_missing"));
        write(file.path(), "fedcba9876543210").unwrap();
        assert_eq!((with("Bearer 0123456789abcdef"), with("Bearer fedcba9876543210")), (Err("token_wrong"), Ok(())));
        set_permissions(file.path(), Permissions::from_mode(0o644)).unwrap();
        assert_eq!(with("Bearer fedcba9876543210"), Err("token_file"));
        let local = Guard::new(Ipv4Addr::LOCALHOST.into(), Some(file.path().to_owned()), false);
        assert_eq!(admitted(&local, &[HERE, JSON]), Err("token_file"), "a token that is set is asked for here too");
    }

    #[test]
    fn a_certificate_counts_as_a_token_does_and_pages_of_elsewhere_have_neither() {
        let file = tempfile::NamedTempFile::new().unwrap();
        set_permissions(file.path(), Permissions::from_mode(0o600)).unwrap();
        write(file.path(), "0123456789abcdef").unwrap();
        for (listens, token) in
            [(Ipv4Addr::UNSPECIFIED, None), (Ipv4Addr::LOCALHOST, None), (Ipv4Addr::UNSPECIFIED, Some(&file))]
        {
            let guard = Guard::new(listens.into(), token.map(|file| file.path().to_owned()), true);
            let certified = |all: &[(&str, &str)]| guard.admit(&headers(all), true).map_err(|error| error.name().0);
            assert_eq!(certified(&[HERE, JSON]), Ok(()));
            assert_eq!(certified(&[HERE, JSON, ("origin", "https://evil.example")]), Err("foreign_origin"));
            assert_eq!(certified(&[HERE, JSON, ("sec-fetch-site", "cross-site")]), Err("foreign_origin"));
            assert_eq!(certified(&[HERE]), Err("content_type"));
            let (missing, changes) = match token {
                Some(_) => ("token_missing", "either"),
                None => ("certificate_missing", "certificate"),
            };
            assert_eq!((admitted(&guard, &[HERE, JSON]), guard.changes()), (Err(missing), changes));
            let with_token = admitted(&guard, &[HERE, JSON, ("authorization", "Bearer 0123456789abcdef")]);
            assert_eq!(with_token.is_ok(), token.is_some());
        }
    }

    #[test]
    fn who_guesses_tokens_does_not_keep_others_out() {
        let guard = Guard::new(Ipv4Addr::LOCALHOST.into(), None, false);
        let rejected: Vec<_> = (0..30).map(|_| admitted(&guard, &[JSON]).unwrap_err()).collect();
        assert_eq!((rejected[0], rejected[29]), ("foreign_host", "too_many_requests"));
        let admissions = (0..200).filter(|_| admitted(&guard, &[HERE, JSON]).is_ok()).count();
        assert!((100..150).contains(&admissions), "{admissions}");
        let bucket = Bucket::new(1.0, 2.0);
        let now = Instant::now();
        assert!(bucket.take(now) && !bucket.take(now) && bucket.take(now + Duration::from_millis(500)));
    }
}
