//! TLS around a connection, by the driver's options.

use mysql_async::{Error, SslOpts};
use native_tls::{Certificate, Identity, TlsConnector};

use tokio::io::BufReader;

use super::Transport;
use super::packets::BUFFER;

/// Wraps a connection to `host`.
pub(super) async fn wrap(
    transport: Box<dyn Transport>,
    options: &SslOpts,
    host: &str,
) -> Result<Box<dyn Transport>, Error> {
    let mut builder = TlsConnector::builder();
    for certificates in options.root_certs() {
        let bytes = certificates.read().await?;
        let certificates = match Certificate::from_der(&bytes) {
            Ok(certificate) => vec![certificate],
            Err(_) => Certificate::stack_from_pem(&bytes)?,
        };
        for certificate in certificates {
            builder.add_root_certificate(certificate);
        }
    }
    if let Some(identity) = options.client_identity() {
        let archive = identity.pkcs12_archive().read().await?.into_owned();
        builder.identity(Identity::from_pkcs12(&archive, identity.password().unwrap_or_default())?);
    }
    builder
        .danger_accept_invalid_hostnames(options.skip_domain_validation())
        .danger_accept_invalid_certs(options.accept_invalid_certs())
        .disable_built_in_roots(options.disable_built_in_roots());
    let connector = tokio_native_tls::TlsConnector::from(builder.build()?);
    let host = options.tls_hostname_override().unwrap_or(host);
    // OpenSSL asks for the few bytes of each record's head, and servers make a record of each event.
    Ok(Box::new(connector.connect(host, BufReader::with_capacity(BUFFER, transport)).await?))
}
