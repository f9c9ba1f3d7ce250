//! One connection of the admin listener.
//!
//! Promise: it ends when nothing was heard or said for a while, and gives its place back with its end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::guests::Place;

/// For how long a connection may rest. Who looks live is written to every few seconds, and who asks again and again does so more
/// often than this.
const REST: Duration = Duration::from_secs(90);

/// With or without TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection that is watched.
pub struct Connection {
    stream: Box<dyn Stream>,
    rested: Pin<Box<Sleep>>,
    _place: Place,
}

impl Connection {
    pub(super) fn of(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, place: Place) -> Self {
        Self { stream: Box::new(stream), rested: Box::pin(sleep(REST)), _place: place }
    }

    fn stirs(&mut self) {
        self.rested.as_mut().reset(Instant::now() + REST);
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buffer) {
            self.stirs();
            return Poll::Ready(read);
        }
        // Whoever serves it listens all the time, so that this is asked also while an answer is written.
        ready!(self.rested.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        self.stirs();
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, parts));
        self.stirs();
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::sync::Semaphore;
    use tokio::time::advance;

    use super::super::guests::Guests;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn given_a_connection_when_nothing_goes_over_it_then_it_ends_and_gives_its_place_back() {
        let places = Arc::new(Semaphore::new(1));
        let (mut other, this) = duplex(64);
        let permit = Arc::clone(&places).acquire_owned().await.unwrap();
        let place = Guests::new(1).place("127.0.0.1".parse().unwrap(), permit).unwrap();
        let mut connection = Connection::of(this, place);
        let short = REST.checked_sub(Duration::from_secs(1)).unwrap();
        for _ in 0..3 {
            // An answer that is written bit by bit, and a question now and then, keep it open.
            advance(short).await;
            connection.write_all(b"a").await.unwrap();
            advance(short).await;
            other.write_all(b"q").await.unwrap();
            assert_eq!(connection.read_u8().await.unwrap(), b'q');
        }
        let begun = Instant::now();
        let error = connection.read_u8().await.unwrap_err();
        assert_eq!((error.kind(), begun.elapsed().as_secs()), (io::ErrorKind::TimedOut, REST.as_secs()));
        assert_eq!(places.available_permits(), 0);
        drop(connection);
        assert_eq!(places.available_permits(), 1);
    }
}
