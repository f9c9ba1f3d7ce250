//! Whether the brokers let us in, and whether they can be reached where they say they are.

use std::time::Duration;

use futures::future::join_all;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::probe::{self, Handshake, Listener};
use crate::kafka::security::{InForce, TlsMode};
use crate::kafka::settings::KafkaSettings;
use crate::preflight::{Check, Name, Unavailable};

/// How long a broker may take to be connected to.
const REACH: Duration = Duration::from_secs(3);

/// What is asked for, in words.
fn expected(mode: TlsMode) -> &'static str {
    match mode {
        TlsMode::Disabled => "no TLS",
        TlsMode::Required => "TLS",
        TlsMode::VerifyCa => "TLS, and a certificate of a trusted authority",
        TlsMode::VerifyIdentity => "TLS, and a certificate of a trusted authority for the host",
    }
}

/// Whether a complaint is about who we are, which stays as it is.
pub(super) fn is_about_login(complaint: &str) -> bool {
    let token_is_refused = complaint.contains("OAUTHBEARER token") && !complaint.contains("answers 4");
    let about =
        ["SASL authentication", "authentication failed", "Authentication failed", "OAUTHBEARER token", "SASL SCRAM"];
    about.iter().any(|words| complaint.contains(words)) && !token_is_refused
}

/// A failed check, if TLS or the login is why there is no answer. `None` for what may pass.
pub(super) async fn refused(settings: &KafkaSettings, complaint: &str) -> Option<Check> {
    let settings = settings.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let servers = settings.bootstrap_servers.split(',').map(probe::address);
        let mut found = servers
            .filter_map(|(host, port)| Some((format!("{host}:{port}"), probe::listener(&host, port, &settings)?)));
        found.next().map(|(address, listener)| (InForce::of(&settings), address, listener))
    });
    match asked.await {
        Ok(Some((in_force, address, listener))) => judge(&in_force, &listener, &address, complaint),
        _ => None,
    }
}

/// Why a listener does not let us in, if it is for what is set.
fn judge(in_force: &InForce, listener: &Listener, address: &str, complaint: &str) -> Option<Check> {
    let mode = in_force.tls;
    let tls = |found: &str, cure: String| {
        let setting = format!("kafka.tls.mode = \"{mode}\" to {address}");
        Some(Check::passed(Name::KafkaTls, setting, expected(mode), found).failed(cure))
    };
    match (&listener.tls, in_force.is_encrypted()) {
        (Some(_), false) => {
            let cure =
                "set kafka.tls.mode = \"verify_identity\", or another port in kafka.bootstrap_servers".to_owned();
            return tls("a listener that speaks TLS", cure);
        }
        (None, true) => {
            let cure =
                "name the port of a listener with TLS in kafka.bootstrap_servers, or set kafka.tls.mode = \"disabled\"";
            return tls("a listener without TLS", cure.to_owned());
        }
        (Some(Handshake { distrusted: Some(why), .. }), true) if mode >= TlsMode::VerifyCa && distrusts(why, mode) => {
            return tls(why, cure_of(why, address));
        }
        (Some(Handshake { refused: Some(why), .. }), true) => {
            let cure = "set kafka.tls.cert and kafka.tls.key to a certificate that the broker's ssl.truststore trusts; the \
                        broker's ssl.enabled.protocols has to have TLSv1.2 or TLSv1.3";
            return tls(why, cure.to_owned());
        }
        _ => {}
    }
    let login = |expected: &str, found: String, cure: String| {
        let set =
            in_force.mechanism.as_ref().map_or("not set".to_owned(), |name| format!("= \"{}\"", name.to_lowercase()));
        let setting = format!("kafka.sasl.mechanism {set} to {address}");
        Some(Check::passed(Name::KafkaLogin, setting, expected, found).failed(cure))
    };
    match (&in_force.mechanism, &listener.mechanisms[..]) {
        (None, taken @ [_, ..]) => login(
            "no login",
            format!("a listener that wants a login by {}", taken.join(", ")),
            format!("set kafka.sasl.mechanism = \"{}\", with name and password", first(taken)),
        ),
        (Some(_), []) => login(
            "a login",
            "a listener that wants none".to_owned(),
            "leave [kafka.sasl] out, or name the port of a listener with SASL in kafka.bootstrap_servers".to_owned(),
        ),
        (Some(name), taken) if !taken.contains(name) => login(
            &format!("a listener that takes {name}"),
            format!("one that takes {}", taken.join(", ")),
            format!("set kafka.sasl.mechanism = \"{}\"", first(taken)),
        ),
        (Some(name), _) if is_about_login(complaint) => {
            let cure = if name == "OAUTHBEARER" {
                "correct kafka.sasl.token_url, client_id, client_secret or scope; the broker has to trust the token's issuer"
            } else {
                "correct kafka.sasl.username and kafka.sasl.password; kafka-configs.sh --describe --entity-type users lists \
                 SCRAM's"
            };
            login("a login that is taken", complaint.to_owned(), cure.to_owned())
        }
        _ => None,
    }
}

/// With `verify_ca`, a name that is not the host's is fine.
fn distrusts(why: &str, mode: TlsMode) -> bool {
    mode == TlsMode::VerifyIdentity || !why.contains("mismatch")
}

fn cure_of(why: &str, address: &str) -> String {
    if why.contains("mismatch") {
        format!(
            "connect to a name that the certificate has, not to {address}; brokers' advertised.listeners need such names \
             too; or set kafka.tls.mode = \"verify_ca\""
        )
    } else if why.contains("expired") {
        "renew the broker's certificate".to_owned()
    } else {
        "set kafka.tls.ca to the certificate of the authority that signed the broker's".to_owned()
    }
}

fn first(mechanisms: &[String]) -> String {
    // A password that is not sent at all is better than one that is.
    let best = mechanisms.iter().max_by_key(|name| (name.starts_with("SCRAM"), name.as_str()));
    best.map_or_else(String::new, |name| name.to_lowercase())
}

/// How the way to brokers came out that have let us in.
pub(super) fn granted(settings: &KafkaSettings) -> [Check; 2] {
    let in_force = InForce::of(settings);
    let (mode, mechanism) = (in_force.tls, in_force.mechanism.as_deref().unwrap_or("none"));
    let servers = || settings.bootstrap_servers.split(',').map(probe::address);
    let is_local = servers().all(|(host, _)| host == "localhost" || host == "::1" || host.starts_with("127."));
    let is_fine = in_force.is_encrypted() || is_local;
    let tls = Check::passed(
        Name::KafkaTls,
        format!("kafka.tls.mode = \"{mode}\""),
        expected(mode),
        if in_force.is_encrypted() { "TLS" } else { "no encryption" },
    );
    let cure = "a listener with TLS, and kafka.tls.mode = \"verify_identity\": events can be read on the way";
    let login = Check::passed(Name::KafkaLogin, "kafka.sasl.mechanism", "a login that is taken", mechanism);
    let bare = mechanism == "PLAIN" && !is_fine;
    let cure_of_login = "kafka.tls.mode = \"verify_identity\": PLAIN sends the password as it is";
    [tls.or_warned(is_fine, cure), login.or_warned(!bare, cure_of_login)]
}

/// The address that a complaint is about, if a broker has told it to the client library, and we have not.
pub(super) fn advertised(complaint: &str) -> Option<&str> {
    // `PROTOCOL://HOST:PORT/ID: what happened`, without the protocol where that is the plain one; `bootstrap` for an id
    // that is not known yet
    let (broker, _) = complaint.split_once(": ")?;
    let (address, id) = broker.rsplit_once('/')?;
    id.parse::<u32>().ok()?;
    Some(address.rsplit_once("://").map_or(address, |(_, address)| address))
}

/// Whether every broker can be reached at the address that it tells clients.
pub(super) async fn reach(brokers: &[String], settings: &KafkaSettings) -> Result<Check, Unavailable> {
    let tries = brokers.iter().map(|broker| async move {
        let reached = timeout(REACH, TcpStream::connect(probe::address(broker))).await;
        let why = match reached {
            Ok(Ok(_)) => return None,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {REACH:?}"),
        };
        Some(format!("{broker} ({why})"))
    });
    let away: Vec<_> = join_all(tries).await.into_iter().flatten().collect();
    let cure = "brokers' advertised.listeners have to be names and ports that this machine reaches";
    if !brokers.is_empty() && away.len() == brokers.len() {
        let server = format!("kafka {}", settings.bootstrap_servers);
        let reason = format!(
            "it answers, but no broker can be reached at the address it advertises: {}; {cure}",
            away.join(", ")
        );
        return Err(Unavailable { server, reason, transient: true });
    }
    let found = if away.is_empty() { format!("{} brokers", brokers.len()) } else { format!("not {}", away.join(", ")) };
    let check = Check::passed(Name::Brokers, "advertised.listeners", "every broker can be reached", found);
    Ok(check.or_warned(away.is_empty(), format!("{cure}; what a broker that is down leads goes to another one")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(tls: Option<(Option<&str>, Option<&str>)>, mechanisms: &[&str]) -> Listener {
        let text = |text: Option<&str>| text.map(ToOwned::to_owned);
        let tls = tls.map(|(distrusted, refused)| Handshake { distrusted: text(distrusted), refused: text(refused) });
        let named = mechanisms.iter().map(|name| (*name).to_owned());
        Listener { tls, mechanisms: named.collect() }
    }

    #[track_caller]
    fn gives(tls: TlsMode, mechanism: Option<&str>, found: &Listener, complaint: &str, told: Option<(Name, &str)>) {
        let in_force = InForce { tls, mechanism: mechanism.map(ToOwned::to_owned) };
        let check = judge(&in_force, found, "b:9092", complaint);
        let cure = check.as_ref().and_then(|check| Some((check.name, check.cure.as_deref()?)));
        match (cure, told) {
            (None, None) => {}
            (Some((name, cure)), Some((wanted, part))) => assert!(name == wanted && cure.contains(part), "{cure}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn given_another_kind_of_listener_when_judged_then_the_key_to_change_is_named() {
        use TlsMode::{Disabled, Required, VerifyCa, VerifyIdentity};
        let plain = || listener(None, &[]);
        let safe = |why| listener(Some((why, None)), &[]);
        let tls = |part| Some((Name::KafkaTls, part));
        gives(Disabled, None, &safe(None), "", tls("kafka.tls.mode = \"verify_identity\""));
        gives(VerifyCa, None, &plain(), "", tls("kafka.tls.mode = \"disabled\""));
        gives(VerifyCa, None, &safe(Some("self-signed certificate in certificate chain")), "", tls("kafka.tls.ca"));
        gives(VerifyIdentity, None, &safe(Some("hostname mismatch")), "", tls("verify_ca"));
        gives(VerifyCa, None, &safe(Some("hostname mismatch")), "", None);
        gives(VerifyIdentity, None, &safe(Some("certificate has expired")), "", tls("renew"));
        gives(Required, None, &safe(Some("self-signed certificate")), "", None);
        let alert = listener(Some((None, Some("tlsv13 alert certificate required"))), &[]);
        gives(Required, None, &alert, "", tls("kafka.tls.cert"));
        gives(Disabled, None, &plain(), "Connection refused", None);
    }

    #[test]
    fn given_a_complaint_when_it_is_about_a_broker_that_told_its_address_then_that_is_known() {
        let failed = "Connect to ipv4#10.0.0.7:9092 failed: Connection refused";
        assert_eq!(advertised(&format!("10.0.0.7:9092/1: {failed}")), Some("10.0.0.7:9092"));
        assert_eq!(advertised(&format!("sasl_ssl://[::1]:9093/12: {failed}")), Some("[::1]:9093"));
        assert_eq!(advertised(&format!("10.0.0.7:9092/bootstrap: {failed}")), None);
        assert_eq!(advertised("Disconnected"), None);
    }

    #[test]
    fn given_another_login_when_judged_then_the_key_to_change_is_named() {
        let login = |part| Some((Name::KafkaLogin, part));
        let wants = |names: &[&str]| listener(None, names);
        let off = TlsMode::Disabled;
        gives(off, None, &wants(&["PLAIN", "SCRAM-SHA-512"]), "", login("\"scram-sha-512\""));
        gives(off, Some("PLAIN"), &wants(&[]), "", login("leave [kafka.sasl] out"));
        gives(off, Some("PLAIN"), &wants(&["SCRAM-SHA-256"]), "", login("\"scram-sha-256\""));
        let failed = "SASL authentication error: Authentication failed: Invalid username or password";
        gives(off, Some("PLAIN"), &wants(&["PLAIN"]), failed, login("kafka.sasl.password"));
        gives(off, Some("PLAIN"), &wants(&["PLAIN"]), "Disconnected", None);
        let away = "Failed to acquire SASL OAUTHBEARER token: kafka.sasl.token_url http://t: io: Connection refused";
        gives(off, Some("OAUTHBEARER"), &wants(&["OAUTHBEARER"]), away, None);
        let denied =
            "Failed to acquire SASL OAUTHBEARER token: kafka.sasl.token_url http://t: answers 401 with invalid_client";
        gives(off, Some("OAUTHBEARER"), &wants(&["OAUTHBEARER"]), denied, login("client_secret"));
    }
}
