//! A network between two: it can stop to carry anything without either end being told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Carries connections to a port of this machine.
pub(crate) struct Proxy {
    port: u16,
    flowing: watch::Sender<bool>,
    carried: Arc<AtomicU64>,
    _task: AbortOnDropHandle<()>,
}

impl Proxy {
    pub(crate) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (flowing, gate) = watch::channel(true);
        let carried = Arc::<AtomicU64>::default();
        let counter = Arc::clone(&carried);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (gate, counter) = (gate.clone(), Arc::clone(&counter));
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    let asked = carry(from_client, to_server, gate.clone(), Arc::default());
                    tokio::join!(asked, carry(from_server, to_client, gate, counter));
                });
            }
        });
        Self { port, flowing, carried, _task: AbortOnDropHandle::new(task) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// From now on nothing gets through, and nobody is told. Connecting works, as with a machine that hangs.
    pub(crate) fn freeze(&self) {
        self.flowing.send_replace(false);
    }

    /// Everything goes on.
    pub(crate) fn thaw(&self) {
        self.flowing.send_replace(true);
    }

    /// Times that something came from the server.
    pub(crate) fn answers(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut gate: watch::Receiver<bool>,
    counter: Arc<AtomicU64>,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        if gate.wait_for(|flowing| *flowing).await.is_err() {
            return;
        }
        let Ok(size @ 1..) = from.read(&mut buffer).await else { break };
        // What arrives after the freeze stays here.
        if gate.wait_for(|flowing| *flowing).await.is_err() {
            return;
        }
        counter.fetch_add(1, Ordering::Relaxed);
        if to.write_all(&buffer[..size]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
