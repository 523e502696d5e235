//! The machine-readable side: one JSON object per line, on stdout with `--json`, and in
//! `metrics.jsonl` beside the checkpoints (steps and evaluations only).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{GpuUse, ReportError, Startup, Warning};
use crate::metrics::{EvalReport, StepReport};
use crate::recovery::Recovery;
use crate::terms::NamedChoice;

/// One line. A loss that is not a number is written as `null`, as JSON has no word for it.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum Event<'a> {
    Startup(&'a Startup),
    Step {
        step: u64,
        loss: f64,
        lr: f64,
        grad_norm: f64,
        tokens: u64,
        ms: f64,
    },
    Eval {
        step: u64,
        train_loss: f64,
        val_loss: f64,
        train_perplexity: f64,
        val_perplexity: f64,
        ms: f64,
    },
    Checkpoint {
        path: String,
        bytes: u64,
        ms: f64,
    },
    /// Memory was refused, and the run went on.
    Recovery {
        step: u64,
        #[serde(flatten)]
        recovery: &'a Recovery,
    },
    Choice(&'a NamedChoice),
    Warning {
        message: String,
    },
    Done(Done),
}

/// The last line of a run.
#[derive(Serialize)]
pub(super) struct Done {
    pub step: u64,
    pub steps: u64,
    pub tokens: u64,
    pub seconds: f64,
    pub tokens_per_second: Option<f64>,
    pub flops_per_second: Option<f64>,
    pub peak_bytes: Option<u64>,
    /// Absent on the CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuUse>,
    pub best_val_loss: Option<f64>,
    pub best_step: Option<u64>,
    pub checkpoint: Option<String>,
    pub warnings: Vec<String>,
}

impl From<&StepReport> for Event<'_> {
    fn from(report: &StepReport) -> Self {
        Self::Step {
            step: report.step,
            loss: report.loss,
            lr: report.learning_rate,
            grad_norm: report.grad_norm,
            tokens: report.tokens,
            ms: report.duration.as_secs_f64() * 1e3,
        }
    }
}

impl From<&EvalReport> for Event<'_> {
    fn from(report: &EvalReport) -> Self {
        Self::Eval {
            step: report.step,
            train_loss: report.train_loss,
            val_loss: report.val_loss,
            train_perplexity: report.train_perplexity(),
            val_perplexity: report.val_perplexity(),
            ms: report.duration.as_secs_f64() * 1e3,
        }
    }
}

impl From<&Warning> for Event<'_> {
    fn from(warning: &Warning) -> Self {
        Self::Warning {
            message: warning.to_string(),
        }
    }
}

impl Event<'_> {
    /// Writes the whole line with one call, so that a killed process tears at most one.
    pub(super) fn write_to(&self, out: &mut dyn Write) -> io::Result<u64> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        out.write_all(&line)?;
        out.flush()?;
        Ok(line.len() as u64)
    }
}

/// The append-only `metrics.jsonl`. A checkpoint records [`MetricsLog::bytes`]; a resumed run opens
/// the file at that length, so that no line is missing and none is there twice.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    len: u64,
}

impl MetricsLog {
    /// Opens `path` for appending after its first `bytes` bytes; whatever lies behind them was
    /// written after the checkpoint and is cut off. A new run passes 0.
    ///
    /// A file that is missing or shorter is used as far as it goes, back to the end of its last
    /// whole line, and the warning says so.
    ///
    /// # Errors
    /// [`ReportError::Io`] if the file or its folder cannot be created, read or cut.
    pub fn open_at(path: &Path, bytes: u64) -> Result<(Self, Option<Warning>), ReportError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(ReportError::io("create", folder))?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(ReportError::io("open", path))?;
        let written = std::fs::read(path).map_err(ReportError::io("read", path))?;
        let kept = usize::try_from(bytes).map_or(written.len(), |n| n.min(written.len()));
        let len = complete_lines(&written[..kept]).len() as u64;
        file.set_len(len).map_err(ReportError::io("cut", path))?;
        let warning = (len < bytes).then(|| Warning::MetricsCut {
            path: path.to_owned(),
            expected_bytes: bytes,
            found_bytes: len,
        });
        let path = path.to_owned();
        Ok((Self { path, file, len }, warning))
    }

    /// The length to record in a checkpoint, once everything up to it is on the disk.
    ///
    /// # Errors
    /// [`ReportError::Io`] if the system cannot store what was written.
    pub fn bytes(&self) -> Result<u64, ReportError> {
        self.file
            .sync_data()
            .map_err(ReportError::io("store", &self.path))?;
        Ok(self.len)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends one line, or nothing at all.
    pub(super) fn append(&mut self, event: &Event) -> io::Result<()> {
        match event.write_to(&mut self.file) {
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

/// `text` up to its last newline: a killed process may leave half a line behind it.
pub fn complete_lines(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|&byte| byte == b'\n');
    &text[..end.map_or(0, |newline| newline + 1)]
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;
    use crate::report::{ReportOptions, Reporter};

    #[derive(Clone, Default)]
    struct Stream(Arc<Mutex<Vec<u8>>>);

    impl Write for Stream {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_file_that_refuses_lines_warns_once_and_the_run_goes_on() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let log = MetricsLog {
            path: "out/metrics.jsonl".into(),
            file: File::open(file.path()).unwrap(), // for reading only
            len: 0,
        };
        let stderr = Stream::default();
        let options = ReportOptions {
            quiet: true,
            ..Default::default()
        };
        let mut reporter =
            Reporter::with_outputs(options, Box::new(io::sink()), Box::new(stderr.clone()));
        reporter.record_in(log);
        for step in 1..=3 {
            reporter.step(&StepReport {
                step,
                loss: 4.0,
                learning_rate: 1e-3,
                grad_norm: 1.0,
                tokens: 64,
                duration: Duration::from_millis(5),
            });
        }
        let text = String::from_utf8(stderr.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.starts_with("warning: cannot write `out/metrics.jsonl` ("));
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
