//! `metrics.jsonl` beside the checkpoints: steps, evaluations and recoveries, across restarts.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::jsonl::JsonLine;
use super::{Event, Sink, Warning};
use crate::terms::FileError;

/// The append-only `metrics.jsonl`. A checkpoint records [`MetricsLog::bytes`]; a resumed run opens the file at that
/// length, so that no line is missing and none is there twice.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    len: u64,
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
    /// [`FileError`] if the file or its folder cannot be created, read or cut.
    pub fn open_at(path: &Path, bytes: u64) -> Result<(Self, Option<Warning>), FileError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(FileError::at("create", folder))?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(FileError::at("open", path))?;
        let written = std::fs::read(path).map_err(FileError::at("read", path))?;
        let kept = usize::try_from(bytes).map_or(written.len(), |n| n.min(written.len()));
        let len = complete_lines(&written[..kept]).len() as u64;
        file.set_len(len).map_err(FileError::at("cut", path))?;
        let warning = (len < bytes).then(|| Warning::MetricsCut {
            path: path.to_owned(),
            expected_bytes: bytes,
            found_bytes: len,
        });
        let log = Self {
            path: path.to_owned(),
            file,
            len,
            has_warned: false,
        };
        Ok((log, warning))
    }

    /// Stores everything that was written on the disk, and returns the length to record in a checkpoint.
    ///
    /// # Errors
    /// [`FileError`] if the system cannot store what was written.
    pub fn bytes(&self) -> Result<u64, FileError> {
        self.file
            .sync_data()
            .map_err(FileError::at("store", &self.path))?;
        Ok(self.len)
    }

    /// Appends the whole line or nothing.
    fn append(&mut self, line: &JsonLine) -> io::Result<()> {
        match line.write_to(&mut self.file) {
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
    fn record(&mut self, event: &Event) -> Option<Warning> {
        let line = match event {
            Event::Step { .. }
            | Event::Eval { .. }
            | Event::Warning(Warning::MemoryRefused { .. }) => JsonLine::of(event)?,
            _ => return None,
        };
        let error = self.append(&line).err()?;
        // Once is loud enough; later lines are tried all the same.
        if std::mem::replace(&mut self.has_warned, true) {
            return None;
        }
        Some(Warning::MetricsNotWritten {
            path: self.path.clone(),
            reason: error.to_string(),
        })
    }
}

/// Cuts `text` behind its last newline: a killed process may leave half a line there.
pub fn complete_lines(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|&byte| byte == b'\n');
    &text[..end.map_or(0, |newline| newline + 1)]
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
        let cases: [(&[u8], &[u8]); 4] = [
            (b"", b""),
            (b"torn", b""),
            (b"a\nb\n", b"a\nb\n"),
            (b"a\nb", b"a\n"),
        ];
        for (text, whole) in cases {
            assert_eq!(complete_lines(text), whole);
        }
    }
}
