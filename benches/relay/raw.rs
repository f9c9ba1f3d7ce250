//! Reading the log and nothing else: bytes off the socket, packet by packet.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use crate::stage::Start;

/// What a client says that it can: long passwords, protocol 4.1, secure connections, authentication by plugin.
const CAPABILITIES: u32 = 0x0000_0001 | 0x0000_0200 | 0x0000_8000 | 0x0008_0000;

const COM_QUERY: u8 = 0x03;
const COM_BINLOG_DUMP: u8 = 0x12;

/// The server ends the log where it ends now, instead of waiting for more.
const NON_BLOCKING: u16 = 1;

/// Reads everything after a place. Gives bytes and seconds. The account is `reader`, which has no password.
pub(crate) fn read(port: u16, from: &Start) -> (u64, f64) {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut packets = Packets { input: BufReader::with_capacity(1 << 18, socket.try_clone().unwrap()) };
    packets.whole();
    let mut login = CAPABILITIES.to_le_bytes().to_vec();
    login.extend_from_slice(&0x0100_0000_u32.to_le_bytes());
    login.push(45);
    login.extend_from_slice(&[0; 23]);
    login.extend_from_slice(b"reader\0\0caching_sha2_password\0");
    send(&mut socket, 1, &login);
    // An empty password is taken, in one step or two.
    while packets.whole().first() != Some(&0) {}
    let mut query = vec![COM_QUERY];
    query.extend_from_slice(b"SET @source_binlog_checksum = 'CRC32', @master_binlog_checksum = 'CRC32'");
    send(&mut socket, 0, &query);
    assert_eq!(packets.whole().first(), Some(&0), "the server refuses a SET");
    let mut dump = vec![COM_BINLOG_DUMP];
    dump.extend_from_slice(&u32::try_from(from.offset).unwrap().to_le_bytes());
    dump.extend_from_slice(&NON_BLOCKING.to_le_bytes());
    dump.extend_from_slice(&9_999_u32.to_le_bytes());
    dump.extend_from_slice(from.file.as_bytes());
    send(&mut socket, 0, &dump);
    let begin = Instant::now();
    let mut bytes = 0;
    while let Some(length) = packets.skip() {
        bytes += length;
    }
    (bytes, begin.elapsed().as_secs_f64())
}

fn send(socket: &mut TcpStream, sequence: u8, body: &[u8]) {
    let length = u32::try_from(body.len()).unwrap().to_le_bytes();
    let packet = [&length[..3], &[sequence], body].concat();
    socket.write_all(&packet).unwrap();
}

struct Packets {
    input: BufReader<TcpStream>,
}

impl Packets {
    fn length(&mut self) -> usize {
        let mut head = [0; 4];
        self.input.read_exact(&mut head).unwrap();
        u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize
    }

    /// The next packet.
    fn whole(&mut self) -> Vec<u8> {
        let mut body = vec![0; self.length()];
        self.input.read_exact(&mut body).unwrap();
        assert_ne!(body.first(), Some(&0xff), "{}", String::from_utf8_lossy(&body));
        body
    }

    /// Passes over the next packet and gives its length; `None` at the end of the log.
    fn skip(&mut self) -> Option<u64> {
        let mut rest = self.length();
        let length = rest as u64;
        let mut first = None;
        while rest > 0 {
            let there = self.input.fill_buf().unwrap();
            assert!(!there.is_empty(), "the server ends the connection");
            if first.is_none() {
                assert_ne!(there[0], 0xff, "{}", String::from_utf8_lossy(&there[..rest.min(there.len())]));
                first = Some(there[0]);
            }
            let taken = rest.min(there.len());
            self.input.consume(taken);
            rest -= taken;
        }
        // A packet of an event begins with 0, that at the end with 0xfe.
        (first == Some(0)).then_some(length)
    }
}
