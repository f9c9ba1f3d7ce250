//! What an administrator of Kafka does that the client library has no function for, spoken as brokers understand it.

use std::io::{Read, Write};
use std::net::TcpStream;

use openssl::hash::MessageDigest;
use openssl::pkcs5::pbkdf2_hmac;

/// What a grant is about.
#[derive(Clone, Copy)]
pub(crate) enum Resource<'a> {
    Topic(&'a str),
    Group(&'a str),
    /// All ids that begin so.
    TransactionalIds(&'a str),
}

/// What is granted.
#[derive(Clone, Copy)]
pub(crate) enum Operation {
    Read = 3,
    Write = 4,
    Describe = 8,
    DescribeConfigs = 10,
}

/// Asks at the listener without login.
pub(crate) struct KafkaAdmin {
    port: u16,
}

fn text(into: &mut Vec<u8>, text: &str) {
    into.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    into.extend(text.as_bytes());
}

/// As newer requests have it.
fn compact(into: &mut Vec<u8>, bytes: &[u8]) {
    into.push(u8::try_from(bytes.len() + 1).unwrap());
    into.extend(bytes);
}

impl KafkaAdmin {
    pub(crate) fn at(port: u16) -> Self {
        Self { port }
    }

    /// `kafka-acls.sh --add --allow-principal`
    pub(crate) fn allow(&self, principal: &str, resource: Resource<'_>, operations: &[Operation]) {
        let (kind, name, pattern) = match resource {
            Resource::Topic(name) => (2, name, 3),
            Resource::Group(name) => (3, name, 3),
            Resource::TransactionalIds(prefix) => (5, prefix, 4),
        };
        let mut body = u32::try_from(operations.len()).unwrap().to_be_bytes().to_vec();
        for operation in operations {
            body.push(kind);
            text(&mut body, name);
            body.push(pattern);
            text(&mut body, principal);
            text(&mut body, "*");
            body.extend([*operation as u8, 3]);
        }
        self.ask(30, 1, false, &body, 8);
    }

    /// `kafka-configs.sh --alter --entity-type users`: a password for SCRAM; 1 is SHA-256, 2 is SHA-512.
    pub(crate) fn scram(&self, user: &str, password: &str, mechanism: u8) {
        const ROUNDS: usize = 4096;
        let (digest, length) =
            if mechanism == 1 { (MessageDigest::sha256(), 32) } else { (MessageDigest::sha512(), 64) };
        let salt = b"salt of a test";
        let mut salted = vec![0; length];
        pbkdf2_hmac(password.as_bytes(), salt, ROUNDS, digest, &mut salted).unwrap();
        // None to delete, one to set.
        let mut body = vec![1, 2];
        compact(&mut body, user.as_bytes());
        body.push(mechanism);
        body.extend(u32::try_from(ROUNDS).unwrap().to_be_bytes());
        compact(&mut body, salt);
        compact(&mut body, &salted);
        body.extend([0, 0]);
        self.ask(51, 0, true, &body, 7 + user.len());
    }

    /// `kafka-configs.sh --alter --entity-type clients --add-config producer_byte_rate=`
    pub(crate) fn throttle(&self, client_id: &str, bytes_a_second: Option<f64>) {
        let mut body = 1_u32.to_be_bytes().to_vec();
        body.extend(1_u32.to_be_bytes());
        text(&mut body, "client-id");
        text(&mut body, client_id);
        body.extend(1_u32.to_be_bytes());
        text(&mut body, "producer_byte_rate");
        body.extend(bytes_a_second.unwrap_or_default().to_be_bytes());
        body.extend([u8::from(bytes_a_second.is_none()), 0]);
        self.ask(49, 0, false, &body, 8);
    }

    /// Sends a request; `code` is where the first error code stands behind the answer's header.
    fn ask(&self, key: u16, version: u16, flexible: bool, body: &[u8], code: usize) {
        let mut request = [key.to_be_bytes(), version.to_be_bytes()].concat();
        request.extend([0; 4]);
        text(&mut request, "test");
        request.extend(flexible.then_some(0));
        request.extend(body);
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(&u32::try_from(request.len()).unwrap().to_be_bytes()).unwrap();
        stream.write_all(&request).unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut answer).unwrap();
        let at = 4 + usize::from(flexible) + code;
        assert_eq!(answer[at..at + 2], [0, 0], "request {key} is refused: {answer:?}");
    }
}
