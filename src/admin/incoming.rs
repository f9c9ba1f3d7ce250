//! Connections to the admin listener, and who is at their other ends.
//!
//! Promise: whoever connects and is slow or silent holds up nobody else, and who comes in great numbers takes nothing of what
//! relays need: connections are bounded, and end when nothing goes over them.

mod connection;
mod guests;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use openssl::ssl::Ssl;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_openssl::SslStream;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use self::connection::Connection;
use self::guests::{Guests, Place};
use super::tls::{self, Renewing, TlsSettings};

/// How long the other end of a connection may take nothing of what it is sent.
const DEAF: Duration = Duration::from_secs(30);

/// How long agreeing on keys may take.
const GREETING: Duration = Duration::from_secs(10);

/// How many connections may be open; the next wait in the listener's queue. Each takes a file descriptor, of which the relays'
/// own connections need some.
const OPEN: usize = 256;

/// How many of them may be of one address: who takes all that it may leaves some for probes from elsewhere.
const OF_ONE: usize = 64;

/// How long to wait where no connection can be taken, as without free file descriptors.
const BREATH: Duration = Duration::from_millis(500);

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where it is.
    pub address: SocketAddr,
    /// Whose certificate it has shown, of an authority that may change something.
    pub certificate: Option<Arc<str>>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.certificate {
            Some(name) => write!(f, "{} (certificate of {name:?})", self.address),
            None => self.address.fmt(f),
        }
    }
}

/// Connections that are ready for their first request.
pub struct Incoming {
    address: SocketAddr,
    ready: mpsc::Receiver<(Connection, Peer)>,
    _taking: AbortOnDropHandle<()>,
}

impl Incoming {
    /// Takes connections from now on, with TLS where there is a certificate.
    pub fn of(listener: TcpListener, tls: &TlsSettings) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let tls = Renewing::new(tls.clone()).map_err(|error| io::Error::other(format!("admin.tls.{error}")))?;
        let (sender, ready) = mpsc::channel(1);
        let taking = AbortOnDropHandle::new(tokio::spawn(take(listener, tls.map(Arc::new), sender)));
        Ok(Self { address, ready, _taking: taking })
    }
}

async fn take(listener: TcpListener, tls: Option<Arc<Renewing>>, ready: mpsc::Sender<(Connection, Peer)>) {
    let (places, guests) = (Arc::new(Semaphore::new(OPEN)), Guests::new(OF_ONE));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(%error, "admin_connection_not_taken");
                sleep(BREATH).await;
                continue;
            }
        };
        let Some(place) = guests.place(address.ip(), place) else {
            debug!(peer = %address, "admin_connection_one_too_many");
            continue;
        };
        drop_the_deaf(&stream);
        if let Some(tls) = &tls {
            greet(Arc::clone(tls), (stream, address), ready.clone(), place);
        } else {
            let connection = Connection::of(stream, place);
            if ready.send((connection, Peer { address, certificate: None })).await.is_err() {
                return;
            }
        }
    }
}

/// Agrees on keys, beside other connections.
fn greet(
    tls: Arc<Renewing>,
    (stream, address): (TcpStream, SocketAddr),
    ready: mpsc::Sender<(Connection, Peer)>,
    place: Place,
) {
    tokio::spawn(async move {
        match timeout(GREETING, secured(tls, stream)).await {
            Ok(Ok(stream)) => {
                let certificate = tls::shown(stream.ssl()).map(Arc::from);
                let _ = ready.send((Connection::of(stream, place), Peer { address, certificate })).await;
            }
            Ok(Err(error)) => debug!(peer = %address, %error, "admin_connection_refused"),
            Err(_) => debug!(peer = %address, "admin_connection_silent"),
        }
    });
}

async fn secured(tls: Arc<Renewing>, stream: TcpStream) -> io::Result<SslStream<TcpStream>> {
    let acceptor = tokio::task::spawn_blocking(move || tls.now()).await.map_err(io::Error::other)?;
    let mut stream = SslStream::new(Ssl::new(acceptor.context())?, stream)?;
    Pin::new(&mut stream).accept().await.map_err(io::Error::other)?;
    Ok(stream)
}

/// Closes connections whose other end takes nothing any more.
fn drop_the_deaf(connection: &TcpStream) {
    // Without it, the system gives them up after a quarter of an hour.
    let _ = socket2::SockRef::from(connection).set_tcp_user_timeout(Some(DEAF));
}

impl Listener for Incoming {
    type Io = Connection;
    type Addr = Peer;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            // Only at the end of the runtime.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(Peer { address: self.address, certificate: None })
    }
}

impl Connected<IncomingStream<'_, Incoming>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Incoming>) -> Self {
        stream.remote_addr().clone()
    }
}
