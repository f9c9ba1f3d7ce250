//! A network between two: it can be slow, break off, or stop to carry anything without either end being told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

/// Of so many requests with records one is damaged, where they are.
const DAMAGED: u64 = 3;

/// What it does to connections.
#[derive(Debug, Clone, Copy, Default)]
struct Weather {
    frozen: bool,
    /// Before each piece, either way.
    delay: Duration,
    /// Each connection, either way.
    bytes_per_second: Option<u32>,
    /// Some of the records for Kafka are no longer what was sent.
    damaged: bool,
    /// Connections from before the last break are over.
    breaks: u64,
}

/// Carries connections to a port of this machine.
pub(crate) struct Proxy {
    port: u16,
    target: watch::Sender<u16>,
    weather: watch::Sender<Weather>,
    carried: Arc<AtomicU64>,
    _task: AbortOnDropHandle<()>,
}

impl Proxy {
    pub(crate) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (target, leads_to) = watch::channel(server);
        let (weather, forecast) = watch::channel(Weather::default());
        let carried = Arc::<AtomicU64>::default();
        let counter = Arc::clone(&carried);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, weather, counter) = (*leads_to.borrow(), forecast.clone(), Arc::clone(&counter));
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
                    carry_both(client, server, weather, counter).await;
                });
            }
        });
        Self { port, target, weather, carried, _task: AbortOnDropHandle::new(task) }
    }

    /// For a server that is to say this port of itself before it has one.
    pub(crate) async fn ahead() -> Self {
        Self::to(0).await
    }

    /// New connections lead to this port.
    pub(crate) fn lead_to(&self, server: u16) {
        self.target.send_replace(server);
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// From now on nothing gets through, and nobody is told. Connecting works, as with a machine that hangs.
    pub(crate) fn freeze(&self) {
        self.weather.send_modify(|weather| weather.frozen = true);
    }

    /// Every connection is closed at both ends.
    pub(crate) fn cut(&self) {
        self.weather.send_modify(|weather| weather.breaks += 1);
    }

    /// Whatever is carried is late.
    pub(crate) fn delay(&self, by: Duration) {
        self.weather.send_modify(|weather| weather.delay = by);
    }

    /// Each connection carries no more.
    pub(crate) fn throttle(&self, bytes_per_second: u32) {
        self.weather.send_modify(|weather| weather.bytes_per_second = Some(bytes_per_second));
    }

    /// One in [`DAMAGED`] requests with records for Kafka has a wrong byte in them, which the broker tells by their checksum.
    pub(crate) fn damage(&self) {
        self.weather.send_modify(|weather| weather.damaged = true);
    }

    /// Everything goes on.
    pub(crate) fn thaw(&self) {
        self.weather.send_modify(|weather| *weather = Weather { breaks: weather.breaks, ..Weather::default() });
    }

    /// Times that something came from the server.
    pub(crate) fn answers(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }
}

async fn carry_both(client: TcpStream, server: TcpStream, weather: watch::Receiver<Weather>, counter: Arc<AtomicU64>) {
    let mut cut = weather.clone();
    let born = cut.borrow().breaks;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let both = async {
        let asked = carry(from_client, to_server, weather.clone(), Arc::default(), true);
        tokio::join!(asked, carry(from_server, to_client, weather.clone(), counter, false));
    };
    tokio::select! {
        () = both => {}
        _ = cut.wait_for(|weather| weather.breaks != born) => {}
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut weather: watch::Receiver<Weather>,
    counter: Arc<AtomicU64>,
    damages: bool,
) {
    let mut requests = 0;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        if weather.wait_for(|weather| !weather.frozen).await.is_err() {
            return;
        }
        let limit = weather.borrow().bytes_per_second.map_or(buffer.len(), |rate| (rate / 20).max(1) as usize);
        let piece = limit.min(buffer.len());
        let Ok(size @ 1..) = from.read(&mut buffer[..piece]).await else { break };
        // What arrives after the freeze stays here.
        let Ok(now) = weather.wait_for(|weather| !weather.frozen).await.map(|weather| *weather) else { return };
        let takes = now.bytes_per_second.map_or(Duration::ZERO, |rate| Duration::from_secs(size as u64) / rate.max(1));
        let late = now.delay + takes;
        if !late.is_zero() {
            sleep(late).await;
        }
        counter.fetch_add(1, Ordering::Relaxed);
        if now.damaged && damages {
            damage(&mut buffer[..size], &mut requests);
        }
        if to.write_all(&buffer[..size]).await.is_err() {
            return;
        }
    }
    // Nobody is told of an end either.
    if weather.wait_for(|weather| !weather.frozen).await.is_ok() {
        let _ = to.shutdown().await;
    }
}

/// Damages the records of the request for Kafka that the piece begins with, if it is one in so many. Requests are a length of
/// four bytes, their kind, and at the end of those that produce (kind 0) a record batch and three empty lists of tags.
fn damage(piece: &mut [u8], requests: &mut u64) {
    let Some(&[a, b, c, d, 0, 0]) = piece.first_chunk() else { return };
    let end = 4 + u32::from_be_bytes([a, b, c, d]) as usize;
    *requests += 1;
    if end <= piece.len() && requests.is_multiple_of(DAMAGED) {
        piece[end - 8] ^= 1;
    }
}
