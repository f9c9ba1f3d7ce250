//! Sorting more than memory holds: sorted runs in one temporary file, merged as they are read.
//!
//! Promise: what was pushed comes out in the order of its bytes, and memory stays within the limits given, however much it
//! is and however it is spread. The file has no name, so that it goes with the process, whatever ends it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is read of a run at once, in bytes; a merge has one such buffer for each run.
const READ: usize = 32 << 10;

/// What a length takes in a run, in bytes.
const LENGTH: usize = 4;

/// Where temporary files are, and how much memory a sort may take.
#[derive(Debug, Clone)]
pub struct Room {
    /// Folder of temporary files.
    pub folder: PathBuf,
    /// Bytes of memory.
    pub memory: usize,
}

impl Room {
    /// A part of this room: `share` of `of`.
    #[must_use]
    pub(super) fn part(&self, share: usize, of: usize) -> Self {
        Self { folder: self.folder.clone(), memory: self.memory / of * share }
    }
}

/// Takes byte strings in.
pub(super) struct Sorter {
    room: Room,
    bytes: Vec<u8>,
    /// Where each string is in `bytes`.
    spans: Vec<(u32, u32)>,
    runs: Runs,
    count: u64,
}

/// Sorted runs, one behind the other.
struct Runs {
    file: Option<Arc<File>>,
    runs: Vec<Range<u64>>,
}

impl Runs {
    /// Appends a run of what `write` writes.
    fn append(
        &mut self,
        folder: &Path,
        write: impl FnOnce(&mut BufWriter<At<'_>>) -> io::Result<()>,
    ) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(Arc::new(tempfile::tempfile_in(folder)?)),
        };
        let start = self.runs.last().map_or(0, |run| run.end);
        let mut writer = BufWriter::with_capacity(READ, At { file, offset: start });
        write(&mut writer)?;
        let end = writer.into_inner().map_err(io::IntoInnerError::into_error)?.offset;
        self.runs.push(start..end);
        Ok(())
    }
}

/// Writes at a place of a file that is read at others.
struct At<'f> {
    file: &'f File,
    offset: u64,
}

impl Write for At<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write_at(bytes, self.offset)?;
        self.offset += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write(out: &mut impl Write, string: &[u8]) -> io::Result<()> {
    let length = u32::try_from(string.len()).map_err(io::Error::other)?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(string)
}

impl Sorter {
    /// Takes nothing yet, of memory or of disk.
    pub(super) fn new(room: Room) -> Self {
        let runs = Runs { file: None, runs: Vec::new() };
        Self { room, bytes: Vec::new(), spans: Vec::new(), runs, count: 0 }
    }

    /// How many strings were taken in.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Takes one in.
    pub(super) fn push(&mut self, string: &[u8]) -> io::Result<()> {
        let span = size_of::<(u32, u32)>();
        let limit = self.room.memory.min(u32::MAX as usize);
        if self.bytes.len() + string.len() + (self.spans.len() + 1) * span > limit && !self.spans.is_empty() {
            self.spill()?;
        }
        // Grown by halves, so that the memory that is there is little more than the memory that is used.
        if self.bytes.capacity() - self.bytes.len() < string.len() {
            self.bytes.reserve_exact(string.len().max(self.bytes.len() / 2));
        }
        if self.spans.capacity() == self.spans.len() {
            self.spans.reserve_exact(1024.max(self.spans.len() / 2));
        }
        let start = u32::try_from(self.bytes.len()).map_err(io::Error::other)?;
        self.bytes.extend_from_slice(string);
        let end = u32::try_from(self.bytes.len()).map_err(io::Error::other)?;
        self.spans.push((start, end));
        self.count += 1;
        Ok(())
    }

    /// Ends the taking in. Reading takes up to `memory` bytes, besides what never had to leave memory.
    pub(super) fn sorted(mut self, memory: usize) -> io::Result<Sorted> {
        if self.runs.runs.is_empty() {
            self.sort();
            return Ok(Sorted::Held { bytes: self.bytes, spans: self.spans.into_iter() });
        }
        if !self.spans.is_empty() {
            self.spill()?;
        }
        let Self { room, mut runs, .. } = self;
        let width = (memory / READ).max(2);
        while runs.runs.len() > width {
            let mut merged = Runs { file: None, runs: Vec::new() };
            for group in runs.runs.chunks(width) {
                let mut group = Merge::of(runs.file.as_ref(), group)?;
                merged.append(&room.folder, |out| {
                    while let Some(string) = group.next()? {
                        write(out, string)?;
                    }
                    Ok(())
                })?;
            }
            runs = merged;
        }
        Ok(Sorted::Merged(Merge::of(runs.file.as_ref(), &runs.runs)?))
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        self.spans.sort_unstable_by(|a, b| string(bytes, *a).cmp(string(bytes, *b)));
    }

    fn spill(&mut self) -> io::Result<()> {
        self.sort();
        let Self { room, bytes, spans, runs, .. } = self;
        runs.append(&room.folder, |out| spans.iter().try_for_each(|span| write(out, string(bytes, *span))))?;
        bytes.clear();
        spans.clear();
        Ok(())
    }
}

fn string(bytes: &[u8], (start, end): (u32, u32)) -> &[u8] {
    &bytes[start as usize..end as usize]
}

/// What was taken in, in order.
pub(super) enum Sorted {
    /// It never left memory.
    Held {
        /// All strings.
        bytes: Vec<u8>,
        /// Where each of those to come is.
        spans: std::vec::IntoIter<(u32, u32)>,
    },
    /// It comes out of a file.
    Merged(Merge),
}

impl Sorted {
    /// The next string; `None` after the last one.
    #[allow(clippy::should_implement_trait, reason = "an iterator cannot lend")]
    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        match self {
            Self::Held { bytes, spans } => Ok(spans.next().map(|span| string(bytes, span))),
            Self::Merged(merge) => merge.next(),
        }
    }
}

/// Several runs as one.
pub(super) struct Merge {
    /// The next string of each run.
    heads: BinaryHeap<Reverse<(Vec<u8>, usize)>>,
    cursors: Vec<Cursor>,
    current: Vec<u8>,
}

impl Merge {
    fn of(file: Option<&Arc<File>>, runs: &[Range<u64>]) -> io::Result<Self> {
        let mut merge = Self { heads: BinaryHeap::new(), cursors: Vec::new(), current: Vec::new() };
        let Some(file) = file else { return Ok(merge) };
        for (index, run) in runs.iter().enumerate() {
            let mut cursor = Cursor { file: Arc::clone(file), left: run.clone(), buffer: Vec::new(), at: 0 };
            let mut head = Vec::new();
            if cursor.read(&mut head)? {
                merge.heads.push(Reverse((head, index)));
            }
            merge.cursors.push(cursor);
        }
        Ok(merge)
    }

    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        let Some(mut head) = self.heads.peek_mut() else { return Ok(None) };
        let Reverse((string, run)) = &mut *head;
        std::mem::swap(string, &mut self.current);
        if !self.cursors[*run].read(string)? {
            PeekMut::pop(head);
        }
        Ok(Some(&self.current))
    }
}

/// A place in a run.
struct Cursor {
    file: Arc<File>,
    left: Range<u64>,
    buffer: Vec<u8>,
    at: usize,
}

impl Cursor {
    /// Reads the next string; `false` at the end of the run.
    fn read(&mut self, into: &mut Vec<u8>) -> io::Result<bool> {
        into.clear();
        if self.at == self.buffer.len() && self.left.is_empty() {
            return Ok(false);
        }
        let mut length = [0; LENGTH];
        self.fill(&mut length)?;
        into.resize(u32::from_le_bytes(length) as usize, 0);
        self.fill(into)?;
        Ok(true)
    }

    fn fill(&mut self, mut out: &mut [u8]) -> io::Result<()> {
        while !out.is_empty() {
            if self.at == self.buffer.len() {
                let size = usize::try_from(self.left.end - self.left.start).unwrap_or(READ).min(READ);
                self.buffer.resize(size, 0);
                self.file.read_exact_at(&mut self.buffer, self.left.start)?;
                self.left.start += size as u64;
                self.at = 0;
                if size == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            let there = out.len().min(self.buffer.len() - self.at);
            let (now, later) = out.split_at_mut(there);
            now.copy_from_slice(&self.buffer[self.at..self.at + there]);
            self.at += there;
            out = later;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn room(memory: usize) -> Room {
        Room { folder: std::env::temp_dir(), memory }
    }

    fn sorted(strings: &[Vec<u8>], memory: usize, merge: usize) -> Vec<Vec<u8>> {
        let mut taken = Sorter::new(room(memory));
        for string in strings {
            taken.push(string).unwrap();
        }
        let mut sorted = taken.sorted(merge).unwrap();
        let mut out = Vec::new();
        while let Some(string) = sorted.next().unwrap() {
            out.push(string.to_vec());
        }
        out
    }

    proptest! {
        #[test]
        fn given_any_strings_when_sorted_within_any_memory_then_they_come_out_in_order(
            strings in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..200),
            memory in 1_usize..4_000,
        ) {
            let mut expected = strings.clone();
            expected.sort();
            // Two runs at a time, so that there are merges of merges.
            prop_assert_eq!(sorted(&strings, memory, 0), expected);
        }
    }

    #[test]
    fn given_strings_larger_than_a_buffer_when_merged_then_they_are_whole() {
        let strings: Vec<_> = (0..9_u8).rev().map(|byte| vec![byte; 3 * READ + usize::from(byte)]).collect();
        let expected: Vec<_> = strings.iter().rev().cloned().collect();
        assert_eq!(sorted(&strings, 1, 4 * READ), expected);
    }

    #[test]
    fn given_more_than_the_limit_when_taken_in_then_memory_keeps_to_it() {
        let mut sorter = Sorter::new(room(1 << 20));
        for number in 0..200_000_u64 {
            sorter.push(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()).unwrap();
            let held = sorter.bytes.capacity() + sorter.spans.capacity() * 8;
            assert!(held < 3 << 19, "{held} bytes");
        }
        assert!(sorter.runs.runs.len() > 2);
    }
}
