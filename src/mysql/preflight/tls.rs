//! Whether connections are as safe as `mysql.tls.mode` says.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, Error};

use crate::mysql::connect::Endpoint;
use crate::mysql::tls::TlsMode;
use crate::preflight::{Check, Name};

/// `ER_SECURE_TRANSPORT_REQUIRED`.
const INSECURE: u16 = 3159;

const SETTING: &str = "mysql.tls.mode";

/// What is asked for, in words.
fn expected(mode: TlsMode) -> &'static str {
    match mode {
        TlsMode::Disabled => "no TLS",
        TlsMode::Preferred => "TLS, if the server offers it",
        TlsMode::Required => "TLS",
        TlsMode::VerifyCa => "TLS, and a certificate of a trusted authority",
        TlsMode::VerifyIdentity => "TLS, and a certificate of a trusted authority for the host of the URL",
    }
}

/// A failed check, if TLS is why there is no connection. `None` for all that is of another kind, or may pass.
pub async fn refused(endpoint: &Endpoint, error: &Error) -> Option<Check> {
    let mode = endpoint.tls_mode()?;
    // A server that does not take our certificate says why and hangs up, and the driver may see the latter only.
    let told = match error {
        Error::Io(_) if endpoint.shows_certificate() => endpoint.wire().await.err(),
        _ => None,
    };
    let error = told.as_ref().unwrap_or(error);
    let text = error.to_string();
    let cure = match error {
        Error::Driver(DriverError::NoClientSslFlagFromServer) => {
            "give the server a certificate (ssl_cert, ssl_key), or set mysql.tls.mode = \"preferred\"".to_owned()
        }
        Error::Server(server) if server.code == INSECURE => {
            "set mysql.tls.mode = \"verify_identity\", or at least \"required\"".to_owned()
        }
        // OpenSSL's word for a name that is not that of the certificate.
        Error::Io(_) if text.contains("mismatch") => format!(
            "connect to a name that the certificate has, not to {endpoint}; or set mysql.tls.mode = \"verify_ca\""
        ),
        Error::Io(_) if text.contains("certificate verify failed") => {
            "set mysql.tls.ca to the certificate of the authority that signed the server's; renew that one if it has expired"
                .to_owned()
        }
        // The server says so when it does not take ours.
        Error::Io(_) if text.contains("alert") => {
            "set mysql.tls.cert and mysql.tls.key to a certificate that the server's ssl_ca has signed; the server's \
             tls_version has to have 1.2 or 1.3"
                .to_owned()
        }
        _ => return None,
    };
    let found = match error {
        Error::Driver(DriverError::NoClientSslFlagFromServer) => "a server that offers no TLS".to_owned(),
        Error::Server(_) => "a server with require_secure_transport".to_owned(),
        _ => text,
    };
    Some(Check::passed(Name::Tls, format!("{SETTING} = \"{mode}\" to {endpoint}"), expected(mode), found).failed(cure))
}

/// How an open connection came out.
pub async fn check(conn: &mut Conn, endpoint: &Endpoint) -> Result<Check, Error> {
    let Some(mode) = endpoint.tls_mode() else {
        return Ok(Check::passed(Name::Tls, SETTING, "no TLS", "a Unix socket"));
    };
    let cipher: Option<(String, String)> = conn.query_first("SHOW SESSION STATUS LIKE 'Ssl_cipher'").await?;
    let version: Option<(String, String)> = conn.query_first("SHOW SESSION STATUS LIKE 'Ssl_version'").await?;
    let [cipher, version] = [cipher, version].map(|row| row.map_or_else(String::new, |(_, value)| value));
    let found = if cipher.is_empty() { "no encryption".to_owned() } else { format!("{version}, {cipher}") };
    let is_fine = !cipher.is_empty() || mode == TlsMode::Disabled || endpoint.is_local();
    let cure = "give the server a certificate (ssl_cert, ssl_key): events can be read on the way";
    Ok(Check::passed(Name::Tls, format!("{SETTING} = \"{mode}\""), expected(mode), found).or_warned(is_fine, cure))
}
