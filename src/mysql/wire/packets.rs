//! Packets: up to 16 MiB of payload behind a length and a number; a larger one continues in the next.

use std::io;
use std::ops::Range;

use mysql_async::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Transport, head, lost, server_error};

/// How much is received at a time, in bytes; a packet that fits is never copied.
pub(super) const BUFFER: usize = 256 * 1024;

/// A payload of this size continues in the next packet.
const FULL: usize = 0xff_ffff;

/// A buffer for a large packet that is kept for the next, in bytes; larger ones are given back.
const KEPT: usize = 1024 * 1024;

/// Where a packet's payload is, until the next is taken out.
pub(in crate::mysql) enum Packet {
    /// In the receive buffer.
    Here(Range<usize>),
    /// Put together from what did not fit there.
    Whole,
}

/// Packets over a transport.
pub(super) struct Packets {
    transport: Box<dyn Transport>,
    /// What was received: `buffer[unread]` is yet to be taken out.
    buffer: Box<[u8]>,
    unread: Range<usize>,
    /// A packet that does not fit the buffer. It grows with what comes, not with what a length claims.
    whole: Vec<u8>,
    /// Bytes of it that are yet to come, of the part that has begun; `None` between parts.
    left: Option<usize>,
    /// Whether another part follows.
    continues: bool,
    /// Whether a packet is being put together.
    partial: bool,
    sequence: u8,
}

impl Packets {
    pub(super) fn new(transport: Box<dyn Transport>) -> Self {
        Self {
            transport,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            unread: 0..0,
            whole: Vec::new(),
            left: None,
            continues: false,
            partial: false,
            sequence: 0,
        }
    }

    /// The same connection with another transport around it, as TLS is.
    pub(super) fn into_parts(self) -> (Box<dyn Transport>, u8) {
        (self.transport, self.sequence)
    }

    pub(super) fn with_sequence(transport: Box<dyn Transport>, sequence: u8) -> Self {
        Self { sequence, ..Self::new(transport) }
    }

    /// Gives back what a large packet took, once its bytes are of no more use.
    pub(super) fn release(&mut self) {
        if !self.partial && self.whole.capacity() > KEPT {
            self.whole = Vec::new();
        }
    }

    pub(super) fn packet(&mut self) -> Option<Packet> {
        loop {
            if let Some(left) = self.left {
                let taken = left.min(self.unread.len());
                let end = self.unread.start + taken;
                self.whole.extend_from_slice(&self.buffer[self.unread.start..end]);
                self.unread.start = end;
                if taken < left {
                    self.left = Some(left - taken);
                    return None;
                }
                self.left = None;
                if !self.continues {
                    self.partial = false;
                    return Some(Packet::Whole);
                }
            }
            let &[a, b, c, sequence] = self.buffer[self.unread.clone()].first_chunk()?;
            let size = usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16;
            let payload = self.unread.start + 4..self.unread.start + 4 + size;
            let fits = !self.partial && 4 + size <= BUFFER;
            if fits && payload.end > self.unread.end {
                return None;
            }
            self.sequence = sequence.wrapping_add(1);
            if fits {
                self.unread.start = payload.end;
                return Some(Packet::Here(payload));
            }
            if !self.partial {
                self.whole.clear();
                self.partial = true;
            }
            self.unread.start = payload.start;
            (self.left, self.continues) = (Some(size), size == FULL);
        }
    }

    pub(super) fn bytes(&self, packet: &Packet) -> &[u8] {
        match packet {
            Packet::Here(range) => self.buffer.get(range.clone()).unwrap_or(&[]),
            Packet::Whole => &self.whole,
        }
    }

    /// Receives more. Cancel-safe: bytes are in the buffer, or still to come.
    pub(super) async fn receive(&mut self) -> io::Result<()> {
        if self.unread.is_empty() {
            self.unread = 0..0;
        } else if self.unread.end == BUFFER {
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        let received = self.transport.read(&mut self.buffer[self.unread.end..]).await?;
        if received == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"));
        }
        self.unread.end += received;
        Ok(())
    }

    /// Waits for a packet, and copies it.
    pub(super) async fn next(&mut self) -> Result<Vec<u8>, Error> {
        loop {
            if let Some(packet) = self.packet() {
                let bytes = self.bytes(&packet);
                return match bytes.split_first() {
                    Some((&head::ERROR, rest)) => Err(server_error(rest)),
                    Some(_) => Ok(bytes.to_vec()),
                    None => Err(lost("the server sent an empty packet")),
                };
            }
            self.receive().await?;
        }
    }

    pub(super) async fn expect_ok(&mut self) -> Result<(), Error> {
        match self.next().await?.first() {
            Some(&head::OK) => Ok(()),
            _ => Err(lost("the server answered with something else than OK")),
        }
    }

    /// Sends the first packet of a command, which has to be smaller than 16 MiB.
    pub(super) async fn command(&mut self, payload: &[u8]) -> Result<(), Error> {
        self.sequence = 0;
        self.send(payload).await
    }

    /// Sends the next packet of a dialogue, which has to be smaller than 16 MiB.
    pub(super) async fn send(&mut self, payload: &[u8]) -> Result<(), Error> {
        let size = u32::try_from(payload.len()).ok().filter(|size| (*size as usize) < FULL);
        let [a, b, c, _] = size.ok_or_else(|| lost("a command is too long"))?.to_le_bytes();
        let mut packet = Vec::with_capacity(4 + payload.len());
        packet.extend_from_slice(&[a, b, c, self.sequence]);
        packet.extend_from_slice(payload);
        self.sequence = self.sequence.wrapping_add(1);
        self.transport.write_all(&packet).await?;
        self.transport.flush().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut parts = payload.chunks(FULL).collect::<Vec<_>>();
        if payload.len().is_multiple_of(FULL) {
            parts.push(&[]);
        }
        for (number, part) in parts.into_iter().enumerate() {
            let [a, b, c, _] = u32::try_from(part.len()).unwrap().to_le_bytes();
            bytes.extend([a, b, c, u8::try_from(number).unwrap()]);
            bytes.extend_from_slice(part);
        }
        bytes
    }

    fn payload(size: usize) -> Vec<u8> {
        let mut payload = (0..=250_u8).collect::<Vec<_>>().repeat(size / 251 + 1);
        payload.truncate(size);
        payload
    }

    #[tokio::test]
    async fn given_packets_of_any_size_when_received_in_any_pieces_then_they_come_out_whole_and_in_order() {
        let sizes = [1, 5, BUFFER - 4, BUFFER - 3, 3, FULL - 1, FULL, FULL + 1, 2 * FULL, 7];
        for piece in [262_147, 1 << 20] {
            let (ours, mut theirs) = tokio::io::duplex(piece);
            let sending = tokio::spawn(async move {
                for size in sizes {
                    theirs.write_all(&framed(&payload(size))).await.unwrap();
                }
            });
            let mut packets = Packets::new(Box::new(ours));
            for size in sizes {
                assert!(packets.next().await.unwrap() == payload(size), "{size}");
            }
            sending.await.unwrap();
            assert!(packets.next().await.is_err());
        }
    }

    #[tokio::test]
    async fn given_an_error_packet_when_read_then_code_and_message_are_told() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        theirs.write_all(&framed(b"\xff\x15\x04#28000Access denied")).await.unwrap();
        let error = Packets::new(Box::new(ours)).next().await.unwrap_err();
        let Error::Server(error) = error else { panic!("{error}") };
        assert_eq!((error.code, error.state.as_str(), error.message.as_str()), (1045, "28000", "Access denied"));
    }
}
