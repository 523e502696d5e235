//! `metrics.jsonl` beside the checkpoints: the course of a run, across restarts.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::lines::{record_of, write_line};
use super::{Event, Sink, Warning};
use crate::record::{Line, Moment};
use crate::terms::{FileError, FileId};

/// Read at once on the way back to the last newline.
const CHUNK_BYTES: u64 = 64 * 1024;

/// The append-only `metrics.jsonl`. A checkpoint records [`MetricsLog::bytes`]; a resumed run opens the file at that
/// length, so that no line is missing and none is there twice.
///
/// A link to the null device is a way to have none. Any other device or pipe is refused.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    len: u64,
    /// The folder of `path` when it was opened. In another folder, the file may be another run's.
    folder: Option<FileId>,
    /// A regular file, and not the null device.
    is_kept: bool,
    /// Whether a line was lost and the user knows.
    has_warned: bool,
}

impl MetricsLog {
    /// Opens `path` for appending after its first `bytes` bytes. The lines behind them were written after the
    /// checkpoint and are cut off. A new run passes 0.
    ///
    /// A missing or shorter file is used up to the end of its last whole line, and the warning says so.
    ///
    /// # Errors
    /// [`FileError`] if the file or its folder cannot be created, read or cut, or is a device or a pipe.
    pub fn open_at(path: &Path, bytes: u64) -> Result<(Self, Option<Warning>), FileError> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(FileError::at("create", folder))?;
        let is_kept = !is_null_device(path);
        // Looked at before it is opened: a pipe without a reader would block.
        if is_kept && fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            let found = "expected a regular file, or a link to /dev/null to keep none";
            return Err(FileError::at("write to", path)(io::Error::other(found)));
        }
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(path)
            .map_err(FileError::at("open", path))?;
        let mut len = bytes;
        if is_kept {
            len = complete_lines(&mut file, bytes).map_err(FileError::at("read", path))?;
            file.set_len(len).map_err(FileError::at("cut", path))?;
        }
        let warning = (len < bytes).then(|| Warning::MetricsCut {
            path: path.to_owned(),
            expected_bytes: bytes,
            found_bytes: len,
        });
        let log = Self {
            folder: FileId::at(folder),
            path: path.to_owned(),
            file,
            len,
            is_kept,
            has_warned: false,
        };
        Ok((log, warning))
    }

    /// Stores everything that was written on the disk, and returns the length to record in a checkpoint.
    ///
    /// # Errors
    /// [`FileError`] if the system cannot store what was written.
    pub fn bytes(&self) -> Result<u64, FileError> {
        if self.is_kept {
            let stored = self.file.sync_data();
            stored.map_err(FileError::at("store", &self.path))?;
        }
        Ok(self.len)
    }

    /// Opens the file at its path again, with all lines so far, because its folder was moved or removed.
    ///
    /// # Errors
    /// [`FileError`] as for [`MetricsLog::open_at`]; lines go on to the old file then.
    pub fn reopen(&mut self) -> Result<(), FileError> {
        if !self.is_kept {
            return Ok(());
        }
        let (mut log, _) = Self::open_at(&self.path, u64::MAX)?;
        if log.len == 0 && log.is_kept {
            let copied = (&self.file)
                .seek(SeekFrom::Start(0))
                .and_then(|_| io::copy(&mut (&self.file).take(self.len), &mut log.file));
            log.len = copied.map_err(FileError::at("write", &self.path))?;
        }
        if !log.is_kept {
            log.len = self.len;
        }
        log.has_warned = self.has_warned;
        *self = log;
        Ok(())
    }

    /// Goes on at the path when the file there is not the open one any more, in the same folder. An own line is never
    /// appended to what may be another run's file.
    fn follow(&mut self) -> Option<Warning> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let is_there = FileId::at(&self.path) == FileId::of_file(&self.file);
        if !self.is_kept || is_there || FileId::at(folder) != self.folder {
            return None;
        }
        match self.reopen() {
            Ok(()) => Some(Warning::MetricsMoved {
                path: self.path.clone(),
            }),
            Err(error) => self.warn_once(&error.source),
        }
    }

    /// Once is loud enough; later lines are tried all the same.
    fn warn_once(&mut self, error: &io::Error) -> Option<Warning> {
        let has_warned = std::mem::replace(&mut self.has_warned, true);
        (!has_warned).then(|| Warning::MetricsNotWritten {
            path: self.path.clone(),
            reason: error.to_string(),
        })
    }

    /// Appends the whole line or nothing.
    fn append(&mut self, line: &Line) -> io::Result<()> {
        match write_line(&mut self.file, line) {
            Ok(written) => {
                self.len += written;
                Ok(())
            }
            Err(error) => {
                // A disk that filled up midway left half a line. Cutting needs no space.
                self.file.set_len(self.len).and(Err(error))
            }
        }
    }
}

impl Sink for MetricsLog {
    /// Warnings about this file itself are for people: they are no part of the run.
    fn record(&mut self, event: &Event, moment: Moment) -> Option<Warning> {
        if let Event::EvalOnly(_)
        | Event::Warning(
            Warning::MetricsNotWritten { .. }
            | Warning::MetricsMoved { .. }
            | Warning::MetricsCut { .. }
            | Warning::TensorBoardNotWritten { .. },
        ) = event
        {
            return None;
        }
        let record = record_of(event)?;
        let line = Line { record, moment };
        let moved = self.follow();
        let lost = self.append(&line).err();
        moved.or_else(|| lost.and_then(|error| self.warn_once(&error)))
    }
}

/// Length of the whole lines in the first `bytes` bytes: a killed process may leave half a line behind them. Reads
/// backwards, and no more than the last line.
fn complete_lines(file: &mut File, bytes: u64) -> io::Result<u64> {
    let mut end = file.metadata()?.len().min(bytes);
    let mut chunk = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(CHUNK_BYTES);
        chunk.resize((end - start) as usize, 0);
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut chunk)?;
        if let Some(newline) = chunk.iter().rposition(|&byte| byte == b'\n') {
            return Ok(start + newline as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Whether a path leads to the system's null device.
fn is_null_device(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        let device = |path: &Path| {
            let metadata = fs::metadata(path).ok()?;
            let is_device = metadata.file_type().is_char_device();
            is_device.then(|| metadata.rdev())
        };
        let found = device(path);
        found.is_some() && found == device(Path::new("/dev/null"))
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        false
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;
    use crate::faults::Site;
    use crate::metrics::StepReport;
    use crate::report::{ReportOptions, Reporter, Summary};
    use crate::step::recovery::Recovery;
    use crate::terms::{Recompute, Rung};

    /// A stream that the test can read back.
    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn unwritable(file: &tempfile::NamedTempFile) -> MetricsLog {
        MetricsLog {
            path: "out/metrics.jsonl".into(),
            file: File::open(file.path()).unwrap(), // for reading only
            len: 0,
            folder: FileId::at(Path::new("out")),
            is_kept: false,
            has_warned: false,
        }
    }

    fn step(step: u64) -> StepReport {
        StepReport {
            step,
            loss: 4.0,
            learning_rate: 1e-3,
            grad_norm: 1.0,
            tokens: 64,
            duration: Duration::from_millis(5),
            ..StepReport::default()
        }
    }

    #[test]
    fn a_file_that_refuses_lines_warns_once_and_the_run_goes_on() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let stderr = Captured::default();
        let options = ReportOptions {
            quiet: true,
            ..Default::default()
        };
        let mut reporter =
            Reporter::with_outputs(options, Box::new(io::sink()), Box::new(stderr.clone()));
        reporter.record_in(unwritable(&file));
        for number in 1..=3 {
            reporter.step(&step(number));
        }
        let text = stderr.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.starts_with("warning: cannot write `out/metrics.jsonl` ("));
    }

    #[test]
    fn every_event_goes_to_the_terminal_then_to_stdout_then_to_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let both = Captured::default();
        let options = ReportOptions {
            json: true,
            ..Default::default()
        };
        let mut reporter =
            Reporter::with_outputs(options, Box::new(both.clone()), Box::new(both.clone()));
        reporter.record_in(unwritable(&file));
        let rung = Rung {
            micro_batch: 2,
            recompute: Recompute::None,
            logits_rows: 8,
        };
        let recovery = Recovery {
            site: Site::Forward,
            refusal: "the GPU has no memory".into(),
            from: rung,
            to: rung,
        };
        reporter.recovered(7, &recovery);
        reporter.step(&step(8));
        reporter.finish(&Summary::default());
        let text = both.text();
        let expected = [
            "warning: step 7: the GPU has no memory; ",
            r#"{"kind":"recovery","step":7,"#,
            "warning: cannot write `out/metrics.jsonl` (",
            r#"{"kind":"warning","message":"cannot write `"#,
            "iter 8: ",
            r#"{"kind":"step","step":8,"#,
            "done: 0 steps",
            "  this run     1 steps, ",
            "  speed        12,800 tok/s, ",
            "  warnings     cannot write `out/metrics.jsonl` (",
            "               step 7: the GPU has no memory; ",
            r#"{"kind":"done","step":0,"#,
        ];
        assert_eq!(text.lines().count(), expected.len(), "{text}");
        for (line, start) in text.lines().zip(expected) {
            assert!(line.starts_with(start), "{text}");
        }
    }

    #[test]
    fn complete_lines_end_at_the_last_newline() {
        let long = [&b"a\n"[..], &[b'x'; 3 * CHUNK_BYTES as usize]].concat();
        let cases: [(&[u8], u64, u64); 7] = [
            (b"", 9, 0),
            (b"torn", 9, 0),
            (b"a\nb\n", 9, 4),
            (b"a\nb", 9, 2),
            (b"a\nb\n", 3, 2),
            (b"a\nb\n", 0, 0),
            (&long, u64::MAX, 2),
        ];
        for (text, bytes, whole) in cases {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text).unwrap();
            assert_eq!(complete_lines(&mut file, bytes).unwrap(), whole);
        }
    }
}
