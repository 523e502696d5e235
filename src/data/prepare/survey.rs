//! The first pass: a survey of the input, before anything is written.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

use super::PrepareError;
use super::blocks::{Block, Blocks, Body, FileRead};
use super::division::Draws;
use super::input::{Format, InputFile};
use super::json::{self, Kind, Value};
use super::note::{Lines, Note};
use super::pipeline::in_order;

/// Facts of some documents.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Counts {
    /// Documents, without nulls.
    pub documents: u64,
    /// Nulls and documents, which are numbered alike.
    pub numbered: u64,
    pub characters: u64,
    pub draws: Draws,
    nulls: LineCount,
    surrogates: LineCount,
    /// Whether there is a character U+0000.
    zero: bool,
}

/// Some lines: their number, and the place of the first by source and line.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct LineCount(u64, Option<(usize, u64)>);

impl LineCount {
    fn add(&mut self, other: &LineCount) {
        self.0 += other.0;
        self.1 = match (self.1, other.1) {
            (Some(ours), Some(theirs)) => Some(ours.min(theirs)),
            (ours, theirs) => ours.or(theirs),
        };
    }

    fn lines(&self, sources: &[InputFile]) -> Option<Lines> {
        let (source, line) = self.1?;
        let source = sources.get(source)?;
        Some(Lines {
            count: self.0,
            unit: match source.format {
                Format::Parquet => "row",
                _ => "line",
            },
            first: (source.path.clone(), line),
        })
    }
}

impl Counts {
    pub(super) fn add(&mut self, other: &Counts) {
        self.documents += other.documents;
        self.numbered += other.numbered;
        self.characters += other.characters;
        self.draws.add(other.draws);
        self.nulls.add(&other.nulls);
        self.surrogates.add(&other.surrogates);
        self.zero |= other.zero;
    }

    /// Counts a document, or a part of one, in a file.
    pub(super) fn part(&mut self, source: usize, part: &DocumentPart) {
        self.numbered += u64::from(part.ends);
        let line = LineCount(1, Some((source, part.line)));
        let Some(text) = &part.text else {
            self.nulls.add(&line);
            return;
        };
        if part.repaired {
            self.surrogates.add(&line);
        }
        self.characters += text.chars().count() as u64;
        self.zero |= text.contains('\0');
        self.documents += u64::from(part.ends);
        self.draws.document(part.document);
    }

    /// Notes on what was read.
    pub(super) fn notes(&self, sources: &[InputFile], field: &str) -> Vec<Note> {
        let nulls = self.nulls.lines(sources);
        let nulls = nulls.map(|lines| Note::Nulls {
            lines,
            field: field.to_owned(),
        });
        let surrogates = self.surrogates.lines(sources).map(Note::Surrogates);
        let zero = self.zero.then_some(Note::ZeroCharacter);
        nulls.into_iter().chain(surrogates).chain(zero).collect()
    }
}

/// Notes on files as wholes.
pub(super) fn notes_on_files(sources: &[InputFile], files: &[Option<FileRead>]) -> Vec<Note> {
    let read = sources.iter().zip(files);
    let with_line_ends = read.filter(|(_, file)| file.as_ref().is_some_and(|file| file.line_ends));
    let paths: Vec<PathBuf> = with_line_ends.map(|(s, _)| s.path.clone()).collect();
    let mut notes = vec![Note::LineEnds(paths)];
    notes.extend(same_text(sources, files));
    notes.retain(Note::is_due);
    notes
}

/// The files whose bytes are those of an earlier one.
fn same_text(sources: &[InputFile], files: &[Option<FileRead>]) -> Option<Note> {
    let mut seen: HashMap<&str, &Path> = HashMap::new();
    let mut same = None;
    for (source, file) in sources
        .iter()
        .zip(files)
        .filter(|(source, _)| source.bytes > 0)
    {
        let Some(sha256) = file.as_ref().and_then(|file| file.sha256.as_ref()) else {
            continue;
        };
        let Some(first) = seen.insert(sha256, &source.path) else {
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

/// The distinct characters of a text, one bit per code point.
pub(super) struct Characters(Vec<u64>);

impl Characters {
    pub(super) fn new() -> Self {
        Characters(vec![0; (char::MAX as usize + 1) / 64])
    }

    pub(super) fn insert(&mut self, c: char) {
        self.0[c as usize / 64] |= 1 << (c as usize % 64);
    }

    pub(super) fn union(&mut self, other: &Characters) {
        for (bits, more) in self.0.iter_mut().zip(&other.0) {
            *bits |= more;
        }
    }

    /// The characters in nanoGPT's order, which is sorted.
    pub(super) fn sorted(&self) -> Vec<char> {
        let filled = (0..).zip(&self.0).filter(|(_, bits)| **bits != 0);
        let characters = filled.flat_map(|(word, bits)| {
            let there = (0..64).filter(move |bit| bits >> bit & 1 == 1);
            there.filter_map(move |bit| char::from_u32(word * 64 + bit))
        });
        characters.collect()
    }
}

impl FromIterator<char> for Characters {
    fn from_iter<I: IntoIterator<Item = char>>(characters: I) -> Self {
        let mut found = Characters::new();
        characters.into_iter().for_each(|c| found.insert(c));
        found
    }
}

/// Result of the first pass over one file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Surveyed {
    pub counts: Counts,
    pub file: FileRead,
    /// Its distinct characters, where a vocabulary is made of them.
    pub characters: Option<String>,
}

/// Reads the files of `blocks` once, and hands the result of each to `done`; false when interrupted.
pub(super) fn survey(
    sources: &[InputFile],
    field: &str,
    blocks: Blocks,
    characters_too: bool,
    interrupted: &AtomicBool,
    mut done: impl FnMut(usize, Surveyed) -> Result<(), PrepareError>,
) -> Result<bool, PrepareError> {
    let mut characters = characters_too.then(Characters::new);
    let mut counts = Counts::default();
    in_order(
        blocks,
        vec![(); rayon::current_num_threads()],
        interrupted,
        |(), block| survey_block(block, sources, field, characters_too),
        |(source, found, counted, file)| {
            counts.add(&counted);
            if let (Some(characters), Some(found)) = (&mut characters, &found) {
                characters.union(found);
            }
            let Some(file) = file else { return Ok(()) };
            let characters = characters.as_mut().map(|characters| {
                let all = std::mem::replace(characters, Characters::new());
                all.sorted().into_iter().collect()
            });
            let surveyed = Surveyed {
                counts: std::mem::take(&mut counts),
                file,
                characters,
            };
            done(source, surveyed)
        },
    )
}

type SurveyedBlock = (usize, Option<Characters>, Counts, Option<FileRead>);

fn survey_block(
    block: Block,
    sources: &[InputFile],
    field: &str,
    characters_too: bool,
) -> Result<SurveyedBlock, PrepareError> {
    let mut characters = characters_too.then(Characters::new);
    let mut counts = Counts::default();
    for part in block.documents(&sources[block.source], field) {
        let part = part?;
        if let (Some(characters), Some(text)) = (&mut characters, &part.text) {
            text.chars().for_each(|c| characters.insert(c));
        }
        counts.part(block.source, &part);
    }
    Ok((block.source, characters, counts, block.file))
}

/// A document or a part of one.
pub(super) struct DocumentPart<'a> {
    pub document: u64,
    /// The number of its line or row in the file, from 1.
    pub line: u64,
    /// `None` if the field is null, which is no document.
    pub text: Option<Cow<'a, str>>,
    /// Whether U+FFFD stands for half of a surrogate pair.
    pub repaired: bool,
    /// Whether the document ends here.
    pub ends: bool,
}

/// Documents of a block; the first fault is the last item.
type Documents<'a> = Box<dyn Iterator<Item = Result<DocumentPart<'a>, PrepareError>> + 'a>;

impl Block {
    /// The documents in a block; for a text file, the part that the block holds.
    pub(super) fn documents<'a>(&'a self, source: &'a InputFile, field: &'a str) -> Documents<'a> {
        let first = self.start.documents;
        match &self.body {
            Body::Part(text) => {
                // An empty file is no document.
                let text = Some(text).filter(|text| !text.is_empty());
                Box::new(text.into_iter().map(move |text| {
                    Ok(DocumentPart {
                        document: first,
                        line: 1,
                        text: Some(Cow::Borrowed(text)),
                        repaired: false,
                        ends: self.ends,
                    })
                }))
            }
            Body::Lines(text) => {
                let lines = (self.start.lines + 1..).zip(text.lines());
                let filled = lines.filter(|(_, line)| !line.trim().is_empty());
                Box::new(
                    (first..)
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
            Body::Rows { bytes, ends } => {
                let mut begin = 0;
                let rows = (self.start.at + 1..).zip(ends);
                Box::new((first..).zip(rows).map(move |(document, (row, end))| {
                    let text = end.map(|end| {
                        let text = &bytes[begin..end];
                        begin = end;
                        std::str::from_utf8(text).map(Cow::Borrowed)
                    });
                    let invalid = |_| PrepareError::InvalidRow {
                        path: source.path.clone(),
                        field: field.to_owned(),
                        row,
                    };
                    Ok(DocumentPart {
                        document,
                        line: row,
                        text: text.transpose().map_err(invalid)?,
                        repaired: false,
                        ends: true,
                    })
                }))
            }
        }
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
