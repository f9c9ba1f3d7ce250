//! A name that moves, as applications reach the primary of several servers.

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// A port of 127.0.0.1 that stands for a server: connections go there, and end when it moves.
#[derive(Debug)]
pub struct Front {
    port: u16,
    target: watch::Sender<u16>,
    _serving: AbortOnDropHandle<()>,
}

impl Front {
    /// Stands for the server on this port of 127.0.0.1.
    pub async fn before(target: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let (target, at) = watch::channel(target);
        let serving = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut at = at.clone();
                tokio::spawn(async move {
                    let to = *at.borrow_and_update();
                    let Ok(mut server) = TcpStream::connect(("127.0.0.1", to)).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = at.changed() => {}
                    }
                });
            }
        });
        Ok(Self { port, target, _serving: AbortOnDropHandle::new(serving) })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on it stands for the server on this port.
    pub fn lead_to(&self, target: u16) {
        self.target.send_replace(target);
    }
}
