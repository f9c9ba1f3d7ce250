//! TLS around a connection, by the driver's options.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;

use mysql_async::{Error, SslOpts};
use native_tls::{Certificate, Identity, TlsConnector};
use openssl::error::ErrorStack;
use openssl::pkcs12::Pkcs12;
use openssl::ssl::{Ssl, SslContext, SslMethod, SslMode, SslVerifyMode, SslVersion};
use tokio::io::BufReader;
use tokio_openssl::SslStream;

use super::Transport;
use super::packets::BUFFER;

/// Wraps a connection to `host`.
pub(super) async fn wrap(
    transport: Box<dyn Transport>,
    options: &SslOpts,
    host: &str,
) -> Result<Box<dyn Transport>, Error> {
    let host = options.tls_hostname_override().unwrap_or(host);
    // OpenSSL asks for the few bytes of each record's head, and servers make a record of each event.
    let transport = BufReader::with_capacity(BUFFER, transport);
    if !options.accept_invalid_certs() {
        return Ok(Box::new(verifying(options).await?.connect(host, transport).await?));
    }
    let ssl = trusting(options, host).await?;
    let mut stream = SslStream::new(ssl, transport).map_err(failed)?;
    Pin::new(&mut stream).connect().await.map_err(|error| error.into_io_error().unwrap_or_else(io::Error::other))?;
    Ok(Box::new(stream))
}

/// For a server that has to show who it is.
async fn verifying(options: &SslOpts) -> Result<tokio_native_tls::TlsConnector, Error> {
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
    if let Some((archive, password)) = identity(options).await? {
        builder.identity(Identity::from_pkcs12(&archive, password)?);
    }
    builder
        .danger_accept_invalid_hostnames(options.skip_domain_validation())
        .disable_built_in_roots(options.disable_built_in_roots());
    Ok(builder.build()?.into())
}

/// For a server that may be anybody: without the authorities that the system trusts, which take some 35 ms to be read.
async fn trusting(options: &SslOpts, host: &str) -> Result<Ssl, Error> {
    let identity = identity(options).await?;
    let ssl = || {
        let mut context = SslContext::builder(SslMethod::tls_client())?;
        context.set_min_proto_version(Some(SslVersion::TLS1_2))?;
        context.set_verify(SslVerifyMode::NONE);
        context.set_mode(
            SslMode::AUTO_RETRY
                | SslMode::ENABLE_PARTIAL_WRITE
                | SslMode::ACCEPT_MOVING_WRITE_BUFFER
                | SslMode::RELEASE_BUFFERS,
        );
        if let Some((archive, password)) = &identity {
            let parts = Pkcs12::from_der(archive)?.parse2(password)?;
            if let (Some(certificate), Some(key)) = (parts.cert, parts.pkey) {
                context.set_certificate(&certificate)?;
                context.set_private_key(&key)?;
            }
            // An archive gives them last one first.
            for between in parts.ca.into_iter().flatten().rev() {
                context.add_extra_chain_cert(between)?;
            }
        }
        let mut ssl = Ssl::new(&context.build())?;
        if host.parse::<IpAddr>().is_err() {
            ssl.set_hostname(host)?;
        }
        Ok(ssl)
    };
    ssl().map_err(failed)
}

/// Our certificate as an archive, and its password.
async fn identity(options: &SslOpts) -> Result<Option<(Vec<u8>, &str)>, Error> {
    let Some(identity) = options.client_identity() else { return Ok(None) };
    let archive = identity.pkcs12_archive().read().await?.into_owned();
    Ok(Some((archive, identity.password().unwrap_or_default())))
}

fn failed(error: ErrorStack) -> Error {
    io::Error::other(error).into()
}
