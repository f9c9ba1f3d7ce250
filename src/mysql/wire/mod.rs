//! The connection that a binlog comes over: the client side of `MySQL`'s protocol, so far as a replica needs it.
//!
//! Promise: events come as the server sent them, whole and unopened, whatever their size; nothing is read ahead of what
//! fits one buffer, and a dropped future loses nothing. The driver's own binlog stream cannot promise that: it expands a
//! compressed transaction in memory before anybody sees it, passes over one that it cannot expand, and cuts offsets to
//! 32 bits.

mod handshake;
mod packets;
mod tls;

use std::io;

use mysql_async::{Error, Opts};
use mysql_common::packets::{ComBinlogDump, ComBinlogDumpGtid};
use mysql_common::packets::{ComRegisterSlave, Sid};
use mysql_common::proto::MySerialize;
use packets::Packets;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// What packets go over.
pub(super) trait Transport: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Transport for T {}

/// Where a binlog is asked for.
pub(super) enum Start<'a> {
    /// After every transaction of a set of `MySQL`'s GTIDs.
    Gtids(Vec<Sid<'a>>),
    /// At an event of a file; an empty name is the oldest file, or what `@slave_connect_state` says.
    File(&'a str, u32),
}

/// An open connection.
pub(super) struct Wire {
    packets: Packets,
}

/// A code of the first byte of a packet.
mod head {
    pub(super) const OK: u8 = 0x00;
    pub(super) const MORE: u8 = 0x01;
    pub(super) const END: u8 = 0xfe;
    pub(super) const ERROR: u8 = 0xff;
}

/// Command codes.
const COM_QUERY: u8 = 3;

impl Wire {
    /// Connects and logs in as the driver would with the same options; `lenient`: without TLS if the server has none.
    pub(super) async fn connect(opts: &Opts, lenient: bool) -> Result<Self, Error> {
        let transport: Box<dyn Transport> = if let Some(path) = opts.socket() {
            Box::new(UnixStream::connect(path).await?)
        } else {
            let stream = TcpStream::connect((opts.ip_or_hostname(), opts.tcp_port())).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        };
        Self::over(transport, opts, lenient).await
    }

    /// Logs in over a transport that leads to a server.
    pub(super) async fn over(transport: Box<dyn Transport>, opts: &Opts, lenient: bool) -> Result<Self, Error> {
        Ok(Self { packets: handshake::log_in(Packets::new(transport), opts, lenient).await? })
    }

    /// Runs a statement without result.
    pub(super) async fn run(&mut self, statement: &str) -> Result<(), Error> {
        let mut command = vec![COM_QUERY];
        command.extend_from_slice(statement.as_bytes());
        self.packets.command(&command).await?;
        self.packets.expect_ok().await
    }

    /// Registers as the replica `server_id` and asks for the binlog. [`Wire::packet`] gives its events then.
    pub(super) async fn dump(&mut self, server_id: u32, start: Start<'_>) -> Result<(), Error> {
        let mut command = Vec::new();
        ComRegisterSlave::new(server_id).serialize(&mut command);
        self.packets.command(&command).await?;
        self.packets.expect_ok().await?;
        command.clear();
        match start {
            Start::Gtids(sids) => {
                ComBinlogDumpGtid::new(server_id).with_pos(4_u64).with_sids(sids).serialize(&mut command);
            }
            Start::File(file, offset) => {
                ComBinlogDump::new(server_id).with_pos(offset).with_filename(file.as_bytes()).serialize(&mut command);
            }
        }
        self.packets.command(&command).await?;
        Ok(())
    }

    /// Takes the next packet out of what has been received, if it is there whole.
    pub(super) fn packet(&mut self) -> Option<Packet> {
        self.packets.packet()
    }

    /// The event in a packet that was just taken out.
    pub(super) fn event(&self, packet: &Packet) -> Result<&[u8], Error> {
        match self.packets.bytes(packet).split_first() {
            Some((&head::OK, event)) => Ok(event),
            Some((&head::END, rest)) if rest.len() < 8 => Err(lost("the server ended the stream")),
            Some((&head::ERROR, rest)) => Err(server_error(rest)),
            _ => Err(lost("the server sent a packet that is no event")),
        }
    }

    /// Gives back the memory of the packet that was taken out last, if it is a large one.
    pub(super) fn release(&mut self) {
        self.packets.release();
    }

    /// Receives more. Cancel-safe.
    pub(super) async fn receive(&mut self) -> Result<(), Error> {
        Ok(self.packets.receive().await?)
    }
}

pub(super) use packets::Packet;

fn lost(reason: &str) -> Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, reason.to_owned()).into()
}

/// The error in a packet behind its first byte: a code, possibly a state, and a message.
fn server_error(body: &[u8]) -> Error {
    let Some((code, rest)) = body.split_first_chunk::<2>() else {
        return lost("the server sent an error without code");
    };
    let (state, message) = match rest.split_first() {
        Some((b'#', rest)) => rest.split_at_checked(5).unwrap_or((&[], rest)),
        _ => (&[][..], rest),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Error::Server(mysql_async::ServerError {
        code: u16::from_le_bytes(*code),
        state: text(state),
        message: text(message),
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::mysql::error::is_transient;

    /// What an answer to a dump means: an event's bytes, or the error and whether it may pass.
    async fn heard(payload: &[u8]) -> Result<Vec<u8>, (String, bool)> {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let size = u8::try_from(payload.len()).unwrap();
        theirs.write_all(&[&[size, 0, 0, 1], payload].concat()).await.unwrap();
        let mut wire = Wire { packets: Packets::new(Box::new(ours)) };
        wire.receive().await.unwrap();
        let packet = wire.packet().unwrap();
        wire.event(&packet).map(<[u8]>::to_vec).map_err(|error| (error.to_string(), is_transient(&error)))
    }

    #[tokio::test]
    async fn given_the_end_of_a_dump_when_heard_then_it_is_an_error_that_may_pass_and_no_end() {
        assert_eq!(heard(b"\x00event").await.unwrap(), b"event");
        let (text, passes) = heard(b"\xfe\x00\x00\x02\x00").await.unwrap_err();
        assert!(text.contains("the server ended the stream") && passes, "{text}");
        let (text, passes) = heard(b"\xff\x25\x05#70100Query execution was interrupted").await.unwrap_err();
        assert!(text.contains("interrupted") && passes, "{text}");
        let (text, passes) = heard(b"\xff\xd4\x04#HY000Could not find first log file name").await.unwrap_err();
        assert!(text.contains("1236") && !passes, "{text}");
        let (text, passes) = heard(b"?").await.unwrap_err();
        assert!(text.contains("no event") && passes, "{text}");
    }
}
