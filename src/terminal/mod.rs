//! Lines on a terminal, redrawn in place.
//!
//! Promise: what was written above stays; the cursor is back when the screen is dropped, whatever ends it; a terminal
//! that changes its size, or is too small, is drawn as well as it goes.

pub mod text;

use std::io::{self, IsTerminal, Stdout, Write};

use crossterm::cursor::{Hide, MoveToColumn, MoveUp, Show};
use crossterm::terminal::{self, Clear, ClearType};
use crossterm::{Command, queue};

/// What of a terminal is redrawn in place.
pub struct Screen<W: Write = Stdout> {
    out: W,
    /// Columns of each line that is there now.
    drawn: Vec<usize>,
    lines: Vec<String>,
}

impl Screen {
    /// On standard output, if that is a terminal that can move its cursor.
    pub fn open() -> Option<Self> {
        let dumb = std::env::var_os("TERM").is_some_and(|name| name == "dumb");
        (io::stdout().is_terminal() && !dumb).then(|| Self::on(io::stdout()))
    }
}

/// Columns and lines of the terminal; 80 × 24 if it does not say.
pub fn size() -> (usize, usize) {
    let (columns, lines) = terminal::size().unwrap_or((80, 24));
    // A terminal without a size, such as a bare pseudo-terminal, says 0.
    (if columns == 0 { 80 } else { columns.into() }, if lines == 0 { 24 } else { lines.into() })
}

/// Whether colours are wanted.
pub fn colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

impl<W: Write> Screen<W> {
    fn on(out: W) -> Self {
        Self { out, drawn: Vec::new(), lines: Vec::new() }
    }

    /// Draws these lines in place of those drawn before.
    pub fn draw(&mut self, lines: Vec<String>, size: (usize, usize)) -> io::Result<()> {
        self.lines = lines;
        self.redraw(&[], size)
    }

    /// Writes a line that stays, above those that are redrawn.
    pub fn say(&mut self, line: &str, size: (usize, usize)) -> io::Result<()> {
        self.redraw(&[line], size)
    }

    fn redraw(&mut self, staying: &[&str], size: (usize, usize)) -> io::Result<()> {
        let mut frame = String::new();
        begin(&mut frame, rows(&self.drawn, size));
        for line in staying {
            frame.push_str(line);
            frame.push_str("\r\n");
        }
        let fitting = fit(&self.lines, size);
        self.drawn = fitting.iter().map(|line| text::columns(line)).collect();
        for line in fitting {
            frame.push_str(&line);
            frame.push_str("\r\n");
        }
        self.out.write_all(frame.as_bytes())?;
        self.out.flush()
    }
}

/// Hides the cursor and clears the rows that were drawn.
fn begin(frame: &mut String, rows: usize) {
    let mut write = |command: &dyn Fn(&mut String) -> std::fmt::Result| {
        // A string takes everything.
        let _ = command(frame);
    };
    write(&|frame| Hide.write_ansi(frame));
    if let Ok(rows @ 1..) = u16::try_from(rows) {
        write(&|frame| MoveUp(rows).write_ansi(frame));
    }
    write(&|frame| MoveToColumn(0).write_ansi(frame));
    write(&|frame| Clear(ClearType::FromCursorDown).write_ansi(frame));
}

/// The rows that lines take which were drawn when the terminal may have been wider: terminals break them anew.
fn rows(drawn: &[usize], (columns, lines): (usize, usize)) -> usize {
    let rows: usize = drawn.iter().map(|width| width.div_ceil(columns.max(1)).max(1)).sum();
    rows.min(lines.saturating_sub(1))
}

/// As much as the terminal has room for, the row of the cursor left free.
fn fit(lines: &[String], (columns, rows): (usize, usize)) -> Vec<String> {
    let room = rows.saturating_sub(1).max(1);
    let clipped = lines.iter().map(|line| text::clip(line, columns));
    if lines.len() <= room {
        return clipped.collect();
    }
    let hidden = lines.len() - (room - 1);
    clipped.take(room - 1).chain([text::clip(&format!("… {hidden} more lines"), columns)]).collect()
}

impl<W: Write> Drop for Screen<W> {
    fn drop(&mut self) {
        // The last frame stays; nobody is left to tell if this fails.
        let _ = queue!(self.out, Show);
        let _ = self.out.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(count: usize) -> Vec<String> {
        (1..=count).map(|number| format!("line {number}")).collect()
    }

    fn written(work: impl FnOnce(&mut Screen<&mut Vec<u8>>)) -> String {
        let mut out = Vec::new();
        work(&mut Screen::on(&mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_drawn_over_those_before_and_the_cursor_comes_back() {
        let text = written(|screen| {
            screen.draw(lines(2), (80, 24)).unwrap();
            screen.draw(lines(1), (80, 24)).unwrap();
        });
        let first = "\u{1b}[?25l\u{1b}[1G\u{1b}[Jline 1\r\nline 2\r\n";
        let second = "\u{1b}[?25l\u{1b}[2A\u{1b}[1G\u{1b}[Jline 1\r\n";
        assert_eq!(text, format!("{first}{second}\u{1b}[?25h"));
    }

    #[test]
    fn what_is_said_stays_above() {
        let text = written(|screen| {
            screen.draw(lines(1), (80, 24)).unwrap();
            screen.say("killed", (80, 24)).unwrap();
        });
        assert!(text.ends_with("\u{1b}[1A\u{1b}[1G\u{1b}[Jkilled\r\nline 1\r\n\u{1b}[?25h"), "{text:?}");
    }

    #[test]
    fn a_terminal_that_got_narrower_has_broken_the_lines() {
        assert_eq!(rows(&[80, 10, 0], (40, 24)), 4);
        assert_eq!(rows(&[80; 30], (80, 24)), 23, "what is scrolled out is out of reach");
        assert_eq!(rows(&[5], (0, 0)), 0);
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        assert_eq!(fit(&lines(3), (4, 24)), ["line", "line", "line"]);
        assert_eq!(fit(&lines(9), (80, 4)), ["line 1", "line 2", "… 7 more lines"]);
        assert_eq!(fit(&lines(3), (80, 0)), ["… 3 more lines"]);
    }
}
