//! Filling a batch, with the means to take rows back.

use std::sync::Arc;

use super::batch::{Batch, Span};
use crate::position::Position;

/// A place in a batch under construction to which it can be cut back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    rows: usize,
    bytes: usize,
}

impl Mark {
    /// Before the first row.
    pub const START: Self = Self { rows: 0, bytes: 0 };

    /// Rows before the mark.
    pub fn rows(self) -> usize {
        self.rows
    }
}

/// A batch under construction.
pub struct BatchBuilder {
    bytes: Vec<u8>,
    spans: Vec<Span>,
    commit_micros: Vec<u64>,
    columns: usize,
    now_micros: u64,
}

impl BatchBuilder {
    /// An empty batch for rows of `columns` columns.
    pub fn new(columns: usize) -> Self {
        Self { bytes: Vec::new(), spans: Vec::new(), commit_micros: Vec::new(), columns, now_micros: 0 }
    }

    /// Sets the commit time of the rows that follow, in microseconds since the Unix epoch.
    pub fn set_commit_micros(&mut self, micros: u64) {
        self.now_micros = micros;
    }

    /// Starts a row; every column is NULL until [`RowWriter::set`]. The row counts when it is finished.
    pub fn row(&mut self) -> RowWriter<'_> {
        let mark = self.mark();
        self.spans.resize(self.spans.len() + self.columns, Span::NULL);
        RowWriter { batch: self, mark, finished: false }
    }

    /// Where the batch ends now.
    pub fn mark(&self) -> Mark {
        Mark { rows: self.commit_micros.len(), bytes: self.bytes.len() }
    }

    /// Cuts the batch back to `mark`.
    pub fn cut(&mut self, mark: Mark) {
        self.commit_micros.truncate(mark.rows);
        self.spans.truncate(mark.rows * self.columns);
        self.bytes.truncate(mark.bytes);
    }

    /// Drops the first `count` rows after `mark` (they were relayed before); returns how many there were to drop.
    pub fn skip_after(&mut self, mark: Mark, count: u64) -> u64 {
        let there = (self.commit_micros.len() - mark.rows) as u64;
        if there <= count {
            self.cut(mark);
            return there;
        }
        let skipped = usize::try_from(count).unwrap_or(usize::MAX);
        self.commit_micros.drain(mark.rows..mark.rows + skipped);
        self.spans.drain(mark.rows * self.columns..(mark.rows + skipped) * self.columns);
        skipped as u64
    }

    /// Takes the rows after `mark` out, into a batch of their own.
    #[must_use]
    pub fn split_off(&mut self, mark: Mark) -> Self {
        let base = u32::try_from(mark.bytes).unwrap_or(u32::MAX);
        let spans = self.spans.drain(mark.rows * self.columns..).map(|span| span.moved(0, base)).collect();
        Self {
            bytes: self.bytes.split_off(mark.bytes),
            spans,
            commit_micros: self.commit_micros.split_off(mark.rows),
            columns: self.columns,
            now_micros: self.now_micros,
        }
    }

    /// Puts rows behind these that were taken out of a batch for the same columns. They are committed now.
    pub fn append(&mut self, rows: &Self) -> Result<(), BatchFull> {
        let base = u32::try_from(self.bytes.len()).map_err(|_| BatchFull)?;
        u32::try_from(self.bytes.len() + rows.bytes.len()).map_err(|_| BatchFull)?;
        self.bytes.extend_from_slice(&rows.bytes);
        self.spans.extend(rows.spans.iter().map(|span| span.moved(base, 0)));
        self.commit_micros.resize(self.commit_micros.len() + rows.len(), self.now_micros);
        Ok(())
    }

    /// Number of finished rows.
    pub fn len(&self) -> usize {
        self.commit_micros.len()
    }

    /// Whether no row is finished.
    pub fn is_empty(&self) -> bool {
        self.commit_micros.is_empty()
    }

    /// Memory held, in bytes.
    pub fn memory(&self) -> usize {
        self.bytes.len() + self.spans.len() * size_of::<Span>() + self.commit_micros.len() * 8
    }

    /// Takes the batch out, leaving an empty builder for the same columns.
    pub fn take(&mut self, position: Arc<Position>) -> Batch {
        Batch {
            bytes: std::mem::take(&mut self.bytes),
            spans: std::mem::take(&mut self.spans),
            commit_micros: std::mem::take(&mut self.commit_micros),
            columns: self.columns,
            position,
        }
    }
}

/// Fills one row. Dropped unfinished, it leaves no trace.
pub struct RowWriter<'b> {
    batch: &'b mut BatchBuilder,
    mark: Mark,
    finished: bool,
}

/// A batch's bytes are addressed by 32 bits; one more row would not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a batch cannot hold more than 4 GiB")]
pub struct BatchFull;

impl RowWriter<'_> {
    /// Sets a column to the bytes that `write` appends. The first error of `write` is passed on.
    pub fn set<E: From<BatchFull>>(
        &mut self,
        column: usize,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.batch.bytes.len();
        write(&mut self.batch.bytes)?;
        let end = self.batch.bytes.len();
        debug_assert!(end >= start, "a column writer only appends");
        let (Ok(start), Ok(end)) = (u32::try_from(start), u32::try_from(end)) else { return Err(BatchFull.into()) };
        self.batch.spans[self.mark.rows * self.batch.columns + column] = Span { start, end };
        Ok(())
    }

    /// Counts the row in.
    pub fn finish(mut self) {
        self.finished = true;
        self.batch.commit_micros.push(self.batch.now_micros);
    }
}

impl Drop for RowWriter<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.batch.cut(self.mark);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(batch: &mut BatchBuilder, text: &str) {
        let mut row = batch.row();
        row.set::<BatchFull>(1, |out| {
            out.extend_from_slice(text.as_bytes());
            Ok(())
        })
        .unwrap();
        row.finish();
    }

    fn texts(batch: &Batch) -> Vec<String> {
        batch.rows().map(|row| String::from_utf8_lossy(row.get(1).unwrap()).into_owned()).collect()
    }

    #[test]
    fn an_unfinished_row_leaves_no_trace() {
        let mut batch = BatchBuilder::new(2);
        push(&mut batch, "one");
        let mut row = batch.row();
        row.set::<BatchFull>(0, |out| {
            out.push(b'x');
            Ok(())
        })
        .unwrap();
        drop(row);
        push(&mut batch, "two");
        let batch = batch.take(Arc::new(Position::default()));
        assert_eq!(texts(&batch), ["one", "two"]);
        assert!(batch.rows().all(|row| row.get(0).is_none()));
    }

    #[test]
    fn rows_taken_out_and_put_behind_others_are_the_same() {
        let mut batch = BatchBuilder::new(2);
        push(&mut batch, "a");
        let mark = batch.mark();
        push(&mut batch, "b");
        push(&mut batch, "cc");
        let taken = batch.split_off(mark);
        assert_eq!((batch.len(), taken.len()), (1, 2));
        push(&mut batch, "ddd");
        batch.set_commit_micros(7);
        batch.append(&taken).unwrap();
        let batch = batch.take(Arc::new(Position::default()));
        assert_eq!(texts(&batch), ["a", "ddd", "b", "cc"]);
        assert_eq!(batch.rows().map(|row| row.commit_micros()).collect::<Vec<_>>(), [0, 0, 7, 7]);
        assert!(batch.rows().all(|row| row.get(0).is_none()));
    }

    #[test]
    fn cutting_and_skipping_keep_the_other_rows_as_they_were() {
        let mut batch = BatchBuilder::new(2);
        push(&mut batch, "a");
        let mark = batch.mark();
        for text in ["b", "c", "d"] {
            push(&mut batch, text);
        }
        assert_eq!(batch.skip_after(mark, 2), 2);
        let later = batch.mark();
        push(&mut batch, "e");
        batch.cut(later);
        push(&mut batch, "f");
        assert_eq!(batch.skip_after(later, 9), 1);
        push(&mut batch, "g");
        assert_eq!(texts(&batch.take(Arc::new(Position::default()))), ["a", "d", "g"]);
        assert!(batch.is_empty());
    }
}
