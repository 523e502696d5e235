//! A text file that is being read: line ends translated, cut where it can be encoded apart.

use std::io::Read;

use super::{FileRead, LONGEST_BYTES};
use crate::data::Split;
use crate::data::prepare::PrepareError;
use crate::data::prepare::encoding::{MARK, first_fault};
use crate::data::prepare::input::{Format, InputFile};
use crate::data::prepare::packed::{Contents, Packing};
use crate::tokenizer::last_boundary;

pub(super) struct OpenText {
    contents: Contents,
    /// Text read and not yet given out.
    pending: Vec<u8>,
    /// Places in `pending` before which an LF was left out.
    left_out: Vec<u32>,
    /// Unpacked bytes before `pending`, and after it.
    pub at: u64,
    read_to: u64,
    /// Unpacked bytes before the text: a byte order mark.
    pub start_of_text: u64,
    /// Whether it was opened at its start, so that there is a checksum.
    from_start: bool,
    /// Unpacked byte where this part ends.
    stop: u64,
    /// Whether the last text was the last of its part, and of the file.
    part_ends: bool,
    is_last: bool,
    /// Whether the last byte read was CR.
    after_return: bool,
    line_ends: bool,
}

impl OpenText {
    /// Opens a file at unpacked byte `at`. At `middle` a part ends.
    pub(super) fn begin(
        source: &InputFile,
        at: u64,
        middle: Option<u64>,
    ) -> Result<OpenText, PrepareError> {
        // CR before it makes nothing of an LF that follows.
        let mut contents = source.contents(at.saturating_sub(1))?;
        let mut before = [0];
        if at > 0 {
            let read = contents.read_exact(&mut before);
            read.map_err(|error| source.unreadable(error))?;
        }
        let mark = if source.mark { MARK.len() as u64 } else { 0 };
        let mut start = at;
        if at == 0 && source.mark {
            let mut found = [0; MARK.len()];
            let read = contents.read_exact(&mut found);
            if read.is_err() || found != MARK {
                return Err(changed(source));
            }
            start = mark;
        }
        Ok(OpenText {
            contents,
            pending: Vec::new(),
            left_out: Vec::new(),
            at: start,
            read_to: start,
            start_of_text: mark,
            from_start: at == 0,
            stop: middle.filter(|middle| at < *middle).unwrap_or(u64::MAX),
            part_ends: false,
            is_last: false,
            after_return: before == [b'\r'],
            line_ends: false,
        })
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.contents.bytes_read()
    }

    /// The split of the next text.
    pub(super) fn split(&self, middle: Option<u64>) -> Option<Split> {
        middle.map(|middle| {
            if self.at < middle {
                Split::Train
            } else {
                Split::Val
            }
        })
    }

    /// Whether the last text ended a part of the file, or the file.
    pub(super) fn part_ends(&self) -> bool {
        self.part_ends
    }

    /// Whether the last text ended the file.
    pub(super) fn is_last(&self) -> bool {
        self.is_last
    }

    /// Facts of a file that was read from its start to its end.
    pub(super) fn finished(&self) -> Option<FileRead> {
        (self.is_last && self.from_start).then(|| FileRead {
            sha256: Some(self.contents.sha256()),
            line_ends: self.line_ends,
        })
    }

    /// The next text of about `block_bytes`; it may be empty at the end.
    pub(super) fn next(
        &mut self,
        source: &InputFile,
        block_bytes: usize,
    ) -> Result<String, PrepareError> {
        if self.part_ends {
            self.stop = u64::MAX;
        }
        let mut wanted = self.pending.len() + block_bytes;
        loop {
            self.read(source, wanted)?;
            let text = valid_text(&self.pending, source, self.part_ends)?;
            let cut = match source.format {
                _ if self.part_ends => Some(text.len()),
                Format::JsonLines => text.rfind('\n').map(|end| end + 1),
                _ => last_boundary(text),
            };
            if let Some(cut) = cut {
                let text = text[..cut].to_owned();
                self.pass(cut);
                return Ok(text);
            }
            if wanted >= LONGEST_BYTES {
                return Err(PrepareError::Unbroken {
                    path: source.path.clone(),
                    bytes: wanted,
                });
            }
            wanted *= 2;
        }
    }

    /// Reads until `wanted` bytes are pending, the part ends or the file does.
    fn read(&mut self, source: &InputFile, wanted: usize) -> Result<(), PrepareError> {
        let fault = |error| source.unreadable(error);
        let start = self.pending.len();
        let missing = (wanted.saturating_sub(start) as u64).min(self.stop - self.read_to);
        let read = self.contents.by_ref().take(missing);
        let read = { read }.read_to_end(&mut self.pending).map_err(fault)? as u64;
        self.read_to += read;
        self.is_last = self.contents.is_at_end().map_err(fault)?;
        self.part_ends = self.is_last || self.read_to == self.stop;
        let is_short = self.stop != u64::MAX && self.read_to < self.stop;
        let is_odd = source.packing == Packing::None && self.read_to != source.bytes;
        if self.is_last && (is_short || is_odd) {
            return Err(changed(source));
        }
        self.line_ends |= translate(
            &mut self.pending,
            start,
            &mut self.after_return,
            &mut self.left_out,
        );
        Ok(())
    }

    /// Takes the first `cut` pending bytes away.
    fn pass(&mut self, cut: usize) {
        let passed = self
            .left_out
            .partition_point(|&place| place as usize <= cut);
        self.left_out.drain(..passed);
        for place in &mut self.left_out {
            *place -= cut as u32;
        }
        self.pending.drain(..cut);
        self.at += (cut + passed) as u64;
    }
}

fn changed(source: &InputFile) -> PrepareError {
    PrepareError::Changed {
        path: source.path.clone(),
    }
}

/// Makes LF of every CR and CRLF in `bytes[from..]`. `after_return` says whether CR came before it, and is left for the
/// bytes that follow; `left_out` gains the place of each LF that is left out. Returns whether there was a CR.
fn translate(
    bytes: &mut Vec<u8>,
    from: usize,
    after_return: &mut bool,
    left_out: &mut Vec<u32>,
) -> bool {
    let found = bytes[from..].contains(&b'\r');
    if !found && !*after_return {
        return false;
    }
    let mut to = from;
    for at in from..bytes.len() {
        let byte = bytes[at];
        let of_pair = byte == b'\n' && *after_return;
        *after_return = byte == b'\r';
        if of_pair {
            // No more is pending than `LONGEST_BYTES`, which fits.
            left_out.push(to as u32);
        } else {
            bytes[to] = if byte == b'\r' { b'\n' } else { byte };
            to += 1;
        }
    }
    bytes.truncate(to);
    found
}

/// The characters in `bytes`; more bytes may complete the last one unless the part ends.
fn valid_text<'a>(
    bytes: &'a [u8],
    source: &InputFile,
    ends: bool,
) -> Result<&'a str, PrepareError> {
    let error = match std::str::from_utf8(bytes) {
        Ok(text) => return Ok(text),
        Err(error) => error,
    };
    let valid = std::str::from_utf8(&bytes[..error.valid_up_to()]);
    if let (None, Ok(text), false) = (error.error_len(), valid, ends) {
        return Ok(text);
    }
    let fault = first_fault(source)?;
    Err(match fault {
        Some(fault) => PrepareError::InvalidUtf8 {
            path: source.path.clone(),
            offset: fault.offset,
            line: fault.line,
            content: fault.content,
        },
        None => changed(source),
    })
}
