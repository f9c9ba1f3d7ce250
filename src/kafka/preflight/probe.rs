//! What a listener speaks: asked when the client library gets nowhere, for it knows only that it did not.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::ssl::{HandshakeError, SslConnector, SslMethod, SslVerifyMode};
use openssl::x509::X509VerifyResult;

use crate::kafka::security::{TlsMode, TlsSettings};
use crate::kafka::settings::KafkaSettings;

/// How long one step may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// The number by which our question's answer is known.
const CORRELATION: [u8; 4] = [0, 0, 0x6f, 0x62];

/// The longest answer that is read.
const MOST: usize = 64 * 1024;

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listener {
    /// `None` where it speaks without TLS.
    pub(super) tls: Option<Handshake>,
    /// The ways to log in that it takes; none where it wants no login, or did not say.
    pub(super) mechanisms: Vec<String>,
}

/// How a TLS handshake went that lets everything pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Handshake {
    /// What is wrong with the listener's certificate, in OpenSSL's words.
    pub(super) distrusted: Option<String>,
    /// Why the listener does not take us.
    pub(super) refused: Option<String>,
}

/// A host and a port as `bootstrap_servers` has them.
pub(super) fn address(text: &str) -> (String, u16) {
    let text = text.trim();
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().unwrap_or(9092)),
        _ => (text, 9092),
    };
    (host.trim_matches(['[', ']']).to_owned(), port)
}

/// What listens there, if it is a broker. Blocks.
pub(super) fn listener(host: &str, port: u16, settings: &KafkaSettings) -> Option<Listener> {
    if let Some(mechanisms) = ask(&mut connect(host, port)?) {
        return Some(Listener { tls: None, mechanisms });
    }
    let connector = connector(&settings.tls).ok()?;
    let mut configured = connector.configure().ok()?;
    configured.set_verify_hostname(settings.tls.mode != TlsMode::VerifyCa);
    match configured.connect(host, connect(host, port)?) {
        Ok(mut stream) => {
            let verified = stream.ssl().verify_result();
            let distrusted = (verified != X509VerifyResult::OK).then(|| verified.error_string().to_owned());
            let answer = ask(&mut stream);
            // Of TLS 1.3, a client hears with the first answer only that its certificate is not taken.
            let refused = answer.is_none().then(|| "the connection is closed after the handshake".to_owned());
            let tls = Some(Handshake { distrusted, refused });
            Some(Listener { tls, mechanisms: answer.unwrap_or_default() })
        }
        Err(HandshakeError::Failure(stream)) => {
            let reason = stream.error().to_string();
            // An alert is a word of TLS; anything else is another protocol.
            let tls = reason.contains("alert").then_some(Handshake { distrusted: None, refused: Some(reason) })?;
            Some(Listener { tls: Some(tls), mechanisms: Vec::new() })
        }
        Err(_) => None,
    }
}

fn connector(tls: &TlsSettings) -> Result<SslConnector, ErrorStack> {
    let mut builder = SslConnector::builder(SslMethod::tls_client())?;
    builder.set_verify(SslVerifyMode::NONE);
    if let Some(ca) = &tls.ca {
        builder.set_ca_file(ca)?;
    }
    if let Ok(Some(identity)) = tls.identity() {
        builder.set_private_key(&identity.key)?;
        let mut chain = identity.chain.into_iter();
        if let Some(certificate) = chain.next() {
            builder.set_certificate(&certificate)?;
        }
        for between in chain {
            builder.add_extra_chain_cert(between)?;
        }
    }
    Ok(builder.build())
}

fn connect(host: &str, port: u16) -> Option<TcpStream> {
    let addresses = (host, port).to_socket_addrs().ok()?;
    let stream = addresses.into_iter().find_map(|address| TcpStream::connect_timeout(&address, PATIENCE).ok())?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    Some(stream)
}

/// Asks to log in by a way that nobody has: a listener that wants a login names its own ways. `None` if what answers is no
/// broker, or does not speak like this.
fn ask(stream: &mut (impl Read + Write)) -> Option<Vec<String>> {
    const SASL_HANDSHAKE: [u8; 4] = [0, 17, 0, 1];
    let mut request = SASL_HANDSHAKE.to_vec();
    request.extend(CORRELATION);
    for text in ["outboxd", "?"] {
        request.extend(u16::try_from(text.len()).ok()?.to_be_bytes());
        request.extend(text.as_bytes());
    }
    stream.write_all(&u32::try_from(request.len()).ok()?.to_be_bytes()).ok()?;
    stream.write_all(&request).ok()?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let length = usize::try_from(u32::from_be_bytes(length)).ok().filter(|length| *length <= MOST)?;
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).ok()?;
    mechanisms(answer.strip_prefix(&CORRELATION)?)
}

/// The ways that an answer names, none where no login is wanted; `None` where it is damaged.
fn mechanisms(answer: &[u8]) -> Option<Vec<String>> {
    let (_code, rest) = answer.split_at_checked(2)?;
    let (count, mut rest) = rest.split_at_checked(4)?;
    let mut names = Vec::new();
    for _ in 0..u32::from_be_bytes(count.try_into().ok()?) {
        let (length, after) = rest.split_at_checked(2)?;
        let (name, after) = after.split_at_checked(u16::from_be_bytes(length.try_into().ok()?).into())?;
        names.push(String::from_utf8_lossy(name).into_owned());
        rest = after;
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_an_answer_when_read_then_it_names_the_ways_to_log_in() {
        assert_eq!(mechanisms(b"\0\x21\0\0\0\x02\0\x05PLAIN\0\x01X").unwrap(), ["PLAIN", "X"]);
        assert_eq!(mechanisms(b"\0\x22\0\0\0\0"), Some(Vec::new()), "no login is wanted");
        assert_eq!(mechanisms(b"\0\x21\0\0\0\x02\0\x05PL"), None, "damaged");
    }

    #[test]
    fn given_a_bootstrap_server_when_taken_apart_then_the_port_may_be_left_out() {
        assert_eq!(address(" b1:9093"), ("b1".to_owned(), 9093));
        assert_eq!(address("b1"), ("b1".to_owned(), 9092));
        assert_eq!(address("[::1]:9094"), ("::1".to_owned(), 9094));
        assert_eq!(address("[::1]"), ("::1".to_owned(), 9092));
    }
}
