//! The first pass: a survey of the input, before anything is written.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use indicatif::ProgressBar;

use super::PrepareError;
use super::blocks::{BLOCK_BYTES, Block, Blocks, FileRead, in_order, whole_files};
use super::encoding::MARK;
use super::input::{Format, InputFile};
use super::json::{self, Kind, Value};
use super::note::{Lines, Note};
use crate::data::Split;
use crate::rng::{Seed, Stream};

/// Result of the first pass.
pub(super) struct Survey {
    pub counts: Counts,
    pub characters: Characters,
    pub files: Vec<FileRead>,
}

/// Counts over all documents.
#[derive(Default)]
pub(super) struct Counts {
    pub documents: u64,
    pub characters: u64,
    /// The least and the greatest draw of a document.
    draws: Option<(f64, f64)>,
    nulls: LineCount,
    surrogates: LineCount,
}

/// Some lines: their number, and the place of the first by source and line.
#[derive(Default)]
struct LineCount(u64, Option<(usize, u64)>);

impl LineCount {
    fn add(&mut self, other: &LineCount) {
        self.0 += other.0;
        self.1 = self.1.or(other.1);
    }

    fn lines(&self, sources: &[InputFile]) -> Option<Lines> {
        let (source, line) = self.1?;
        Some(Lines {
            count: self.0,
            first: (sources[source].path.clone(), line),
        })
    }
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.documents += other.documents;
        self.characters += other.characters;
        self.draws = match (self.draws, other.draws) {
            (Some(ours), Some(theirs)) => Some((ours.0.min(theirs.0), ours.1.max(theirs.1))),
            (ours, theirs) => ours.or(theirs),
        };
        self.nulls.add(&other.nulls);
        self.surrogates.add(&other.surrogates);
    }
}

impl Survey {
    /// Notes on what was read.
    pub(super) fn notes(&self, sources: &[InputFile], field: &str) -> Vec<Note> {
        let with_line_ends = sources.iter().zip(&self.files);
        let with_line_ends = with_line_ends.filter(|(_, file)| file.line_ends);
        let paths: Vec<PathBuf> = with_line_ends.map(|(s, _)| s.path.clone()).collect();
        let mut notes = vec![Note::LineEnds(paths)];
        let nulls = self.counts.nulls.lines(sources);
        notes.extend(nulls.map(|lines| Note::Nulls {
            lines,
            field: field.to_owned(),
        }));
        let surrogates = self.counts.surrogates.lines(sources);
        notes.extend(surrogates.map(Note::Surrogates));
        notes.extend(
            self.characters
                .contains('\0')
                .then_some(Note::ZeroCharacter),
        );
        notes.extend(self.same_text(sources));
        notes.retain(Note::is_due);
        notes
    }

    /// The files whose bytes are those of an earlier one.
    fn same_text(&self, sources: &[InputFile]) -> Option<Note> {
        let mut seen: HashMap<&str, &Path> = HashMap::new();
        let mut same = None;
        let filled = sources
            .iter()
            .zip(&self.files)
            .filter(|(source, _)| source.bytes > 0);
        for (source, file) in filled {
            let Some(first) = seen.insert(&file.sha256, &source.path) else {
                continue;
            };
            let (files, _, _) = *same.get_or_insert((0, &source.path, first));
            same = same.map(|(_, path, first)| (files + 1, path, first));
        }
        same.map(|(files, path, first)| Note::SameText {
            files,
            path: path.clone(),
            first: first.to_owned(),
        })
    }
}

/// The distinct characters of a text, one bit per code point.
pub(super) struct Characters(Vec<u64>);

impl Characters {
    fn new() -> Self {
        Characters(vec![0; (char::MAX as usize + 1) / 64])
    }

    pub(super) fn insert(&mut self, c: char) {
        self.0[c as usize / 64] |= 1 << (c as usize % 64);
    }

    fn contains(&self, c: char) -> bool {
        self.0[c as usize / 64] >> (c as usize % 64) & 1 == 1
    }

    fn union(&mut self, other: &Characters) {
        for (bits, more) in self.0.iter_mut().zip(&other.0) {
            *bits |= more;
        }
    }

    /// The characters in nanoGPT's order, which is sorted.
    pub(super) fn sorted(&self) -> Vec<char> {
        ('\0'..=char::MAX).filter(|&c| self.contains(c)).collect()
    }
}

/// Reads everything once; `None` when interrupted.
pub(super) fn survey(
    sources: &[InputFile],
    field: &str,
    progress: &ProgressBar,
    interrupted: &AtomicBool,
) -> Result<Option<Survey>, PrepareError> {
    let mut blocks = Blocks::new(sources, whole_files(sources), BLOCK_BYTES, progress);
    let mut characters = Characters::new();
    let mut counts = Counts::default();
    let complete = in_order(
        &mut blocks,
        interrupted,
        |block| survey_block(&block, sources, field),
        |(found, counted)| {
            characters.union(&found);
            counts.add(&counted);
            Ok(())
        },
    )?;
    Ok(complete.then_some(Survey {
        counts,
        characters,
        files: blocks.files,
    }))
}

fn survey_block(
    block: &Block,
    sources: &[InputFile],
    field: &str,
) -> Result<(Characters, Counts), PrepareError> {
    let mut characters = Characters::new();
    let mut counts = Counts::default();
    for part in block.documents(&sources[block.source], field) {
        let part = part?;
        let line = LineCount(1, Some((block.source, part.line)));
        let Some(text) = part.text else {
            counts.nulls.add(&line);
            continue;
        };
        if part.repaired {
            counts.surrogates.add(&line);
        }
        for character in text.chars() {
            characters.insert(character);
            counts.characters += 1;
        }
        counts.documents += u64::from(part.ends);
        let draw = draw(part.document);
        let (least, most) = counts.draws.unwrap_or((draw, draw));
        counts.draws = Some((least.min(draw), most.max(draw)));
    }
    Ok((characters, counts))
}

/// A document or a part of one.
pub(super) struct DocumentPart<'a> {
    pub document: u64,
    /// The number of its line in the file, from 1.
    pub line: u64,
    /// `None` if the field is null, which is no document.
    pub text: Option<Cow<'a, str>>,
    /// Whether U+FFFD stands for half of a surrogate pair.
    pub repaired: bool,
    /// Whether the document ends here.
    pub ends: bool,
}

impl Block {
    /// The documents in a block; for a text file, the part that the block holds.
    pub(super) fn documents<'a>(
        &'a self,
        source: &'a InputFile,
        field: &'a str,
    ) -> Box<dyn Iterator<Item = Result<DocumentPart<'a>, PrepareError>> + 'a> {
        if source.format == Format::Text {
            return Box::new(std::iter::once(Ok(DocumentPart {
                document: self.document,
                line: self.line,
                text: Some(Cow::Borrowed(&self.text)),
                repaired: false,
                ends: self.ends,
            })));
        }
        let lines = (self.line..).zip(self.text.lines());
        let filled = lines.filter(|(_, line)| !line.trim().is_empty());
        Box::new(
            (self.document..)
                .zip(filled)
                .map(move |(document, (number, line))| {
                    let text = text_of(line, number, &source.path, field)?;
                    Ok(DocumentPart {
                        document,
                        line: number,
                        repaired: text.as_ref().is_some_and(|text| text.repaired),
                        text: text.map(|text| text.text),
                        ends: true,
                    })
                }),
        )
    }
}

/// The text in `field` of a line; `None` if it is null. Of equal keys the last one counts, as in Python.
fn text_of<'a>(
    line: &'a str,
    number: u64,
    path: &Path,
    field: &str,
) -> Result<Option<json::Text<'a>>, PrepareError> {
    // Files that were joined have marks inside, too.
    let json = line.strip_prefix('\u{FEFF}').unwrap_or(line);
    let mut found: Option<Value> = None;
    let kind = json::read(json, |key, value| {
        if key == field {
            found = Some(value);
        }
    });
    let kind = kind.map_err(|source| PrepareError::BadJson {
        path: path.to_owned(),
        line: number,
        source,
    })?;
    let text = found.and_then(Value::text);
    if text.is_some() || found.is_some_and(|value| value.kind == Kind::Null) {
        return Ok(text);
    }
    let (found, other) = match found {
        Some(value) => (format!("it is {}", value.kind.name()), None),
        None if kind != Kind::Object => {
            (format!("the line is {}, not an object", kind.name()), None)
        }
        None => fields(json),
    };
    Err(PrepareError::MissingField {
        path: path.to_owned(),
        line: number,
        field: field.to_owned(),
        found,
        other,
    })
}

/// The fields of an object in words, and the one that most likely holds its text: the longest string.
fn fields(json: &str) -> (String, Option<String>) {
    /// Most fields that are named.
    const MOST: usize = 10;
    let mut names = Vec::new();
    let mut longest: Option<(usize, String)> = None;
    // It was read before, so it has no faults.
    let _ = json::read(json, |key, value| {
        let length = value.text().map_or(0, |text| text.text.len());
        if length > longest.as_ref().map_or(0, |(length, _)| *length) {
            longest = Some((length, key.clone().into_owned()));
        }
        names.push(format!("`{key}`"));
    });
    let more = names.len().saturating_sub(MOST);
    names.truncate(MOST);
    let names = match (names.is_empty(), more) {
        (true, _) => "nothing".into(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{} and {more} more", names.join(", ")),
    };
    (
        format!("the line has {names}"),
        longest.map(|(_, name)| name),
    )
}

/// Division of documents between the splits: a draw for each, a function of its number alone.
#[derive(Clone, Copy)]
pub(super) struct ByDocument {
    /// Documents with a draw below it go to val.
    below: f64,
}

impl ByDocument {
    /// About `val_fraction` of the documents (two or more), and at least one in each split.
    pub(super) fn new(counts: &Counts, val_fraction: f64) -> ByDocument {
        let (least, most) = counts.draws.unwrap_or((0.0, 1.0));
        ByDocument {
            below: val_fraction.max(least.next_up()).min(most),
        }
    }

    pub(super) fn split(self, document: u64) -> Split {
        if draw(document) < self.below {
            Split::Val
        } else {
            Split::Train
        }
    }
}

fn draw(document: u64) -> f64 {
    // A site of its own: 0 and 1 are the splits of `order::eval_window`.
    const SITE: u32 = 2;
    Seed(0).uniform(
        Stream::EvalOrder,
        SITE,
        (document >> 32) as u32,
        document as u32,
    )
}

/// The byte at which a text of `characters` divides so that val is the last fraction of them, as nanoGPT's
/// `data[int(n * 0.9):]`. CRLF is one character.
pub(super) fn byte_of_split(
    source: &InputFile,
    characters: u64,
    val_fraction: f64,
) -> Result<u64, PrepareError> {
    let path = &source.path;
    let failed = || PrepareError::io("read", path);
    let mut file = File::open(path).map_err(PrepareError::io("open", path))?;
    let mut left = (characters as f64 * (1.0 - val_fraction)) as u64;
    let mut bytes = if source.mark { MARK.len() as u64 } else { 0 };
    file.seek(SeekFrom::Start(bytes)).map_err(failed())?;
    let mut buffer = vec![0; 1 << 20];
    let mut before = 0;
    loop {
        let read = file.read(&mut buffer).map_err(failed())?;
        if read == 0 {
            return Ok(bytes);
        }
        for &byte in &buffer[..read] {
            // Every byte but a continuation byte, 10xxxxxx, begins a character, and so does LF unless CR comes before.
            let begins = byte & 0xC0 != 0x80 && !(byte == b'\n' && before == b'\r');
            if begins && left == 0 {
                return Ok(bytes);
            }
            left -= u64::from(begins);
            before = byte;
            bytes += 1;
        }
    }
}
