//! A reader over bytes that checks every step.

use super::error::DecodeError;

/// Reads little-endian fields one after another. Whatever fails leaves the cursor where it was.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    rest: &'a [u8],
    total: usize,
    part: &'static str,
}

impl<'a> Cursor<'a> {
    /// A cursor at the beginning of `data`. `part` says in errors what is being read.
    pub fn new(data: &'a [u8], part: &'static str) -> Self {
        Self { rest: data, total: data.len(), part }
    }

    /// What is left.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// How many bytes have been read.
    pub fn offset(&self) -> usize {
        self.total - self.rest.len()
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or_else(|| self.truncated(n as u64))?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next `n` bytes, where `n` comes from the wire.
    pub fn take_u64(&mut self, n: u64) -> Result<&'a [u8], DecodeError> {
        let n = usize::try_from(n).map_err(|_| self.truncated(n))?;
        self.take(n)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.truncated(N as u64))?;
        self.rest = rest;
        Ok(*taken)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Three bytes.
    pub fn u24(&mut self) -> Result<u32, DecodeError> {
        let [a, b, c] = self.array()?;
        Ok(u32::from_le_bytes([a, b, c, 0]))
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Six bytes.
    pub fn u48(&mut self) -> Result<u64, DecodeError> {
        let mut wide = [0; 8];
        wide[..6].copy_from_slice(&self.array::<6>()?);
        Ok(u64::from_le_bytes(wide))
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A length-encoded integer: 1, 3, 4 or 9 bytes (`net_field_length_ll` in the server's `mysys/pack.cc`).
    pub fn lenenc(&mut self) -> Result<u64, DecodeError> {
        let before = self.clone();
        let value = match self.u8()? {
            252 => self.u16().map(u64::from),
            253 => self.u24().map(u64::from),
            254 => self.u64(),
            byte @ (251 | 255) => Err(DecodeError::BadLength { part: self.part, offset: before.offset(), byte }),
            small => Ok(u64::from(small)),
        };
        if value.is_err() {
            *self = before;
        }
        value
    }

    /// Bytes preceded by their length as a length-encoded integer.
    pub fn lenenc_bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let before = self.clone();
        let taken = self.lenenc().and_then(|n| self.take_u64(n));
        if taken.is_err() {
            *self = before;
        }
        taken
    }

    fn truncated(&self, needed: u64) -> DecodeError {
        DecodeError::Truncated { part: self.part, offset: self.offset(), needed, left: self.rest.len() }
    }
}
