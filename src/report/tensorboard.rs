//! TensorBoard's event file beside the metrics.
//!
//! A file is a list of records in TFRecord's frame, each an `Event` message of `event.proto`
//! (<https://github.com/tensorflow/tensorboard/tree/master/tensorboard/compat/proto>). The few messages that are needed
//! are encoded here, field by field.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;

use super::lines::record_of;
use super::{Event, Sink, Warning};
use crate::evals::{Metrics, Score};
use crate::record::{Moment, Record, RunRecord};
use crate::terms::FileError;

/// Version of the format, in the first record.
const FILE_VERSION: &[u8] = b"brain.Event:2";
/// `DT_STRING` of `types.proto`.
const STRING: u64 = 7;
/// `START` of `SessionLog`.
const START: u64 = 1;

/// An event file of one process. A resumed run begins another, which tells TensorBoard to forget the steps that are
/// done again.
pub struct TensorBoard {
    path: PathBuf,
    file: File,
    has_warned: bool,
}

impl TensorBoard {
    /// Begins an event file in `folder` for the steps after `done`.
    ///
    /// # Errors
    /// [`FileError`] when it cannot be created or written.
    pub fn create(folder: &Path, done: u64, moment: Moment) -> Result<Self, FileError> {
        let time = moment.time.unwrap_or_default();
        let name = format!(
            "events.out.tfevents.{:010}.{}.{}",
            time as u64,
            host(),
            process::id()
        );
        // Two runs of one process may begin within a second.
        let free = (0..).map(|number| folder.join(format!("{name}.{number}")));
        let path = free
            .into_iter()
            .find(|path| !path.exists())
            .unwrap_or_default();
        let file = File::create_new(&path).map_err(FileError::at("create", &path))?;
        let mut own = Self {
            path,
            file,
            has_warned: false,
        };
        let version = Message::default().double(1, time).bytes(3, FILE_VERSION);
        let start = Message::default().number(1, START);
        let start = event(time, done + 1).message(7, &start);
        let begun = own.write(&version).and_then(|()| own.write(&start));
        begun.map_err(FileError::at("write", &own.path))?;
        Ok(own)
    }

    /// Appends one record, in one call.
    fn write(&mut self, message: &Message) -> io::Result<()> {
        self.file.write_all(&framed(&message.0))
    }
}

impl Sink for TensorBoard {
    fn record(&mut self, event: &Event, moment: Moment) -> Option<Warning> {
        let message = message_of(&record_of(event)?, moment.time.unwrap_or_default())?;
        let error = self.write(&message).err()?;
        let has_warned = std::mem::replace(&mut self.has_warned, true);
        (!has_warned).then(|| Warning::TensorBoardNotWritten {
            path: self.path.clone(),
            reason: error.to_string(),
        })
    }
}

/// The scalars of a record, or the config of a run as text. `None` for what TensorBoard does not show.
fn message_of(record: &Record, time: f64) -> Option<Message> {
    let (step, scalars) = match record {
        Record::Run(run) => return Some(config(run, time)),
        Record::Step(step) => {
            let rate = 1e3 * step.tokens as f64 / step.ms;
            let bytes = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64);
            let scalars = vec![
                ("loss/step", Some(step.loss)),
                ("lr", Some(step.lr)),
                ("grad_norm", Some(step.grad_norm)),
                (
                    "tokens_per_second",
                    Some(rate).filter(|rate| rate.is_finite()),
                ),
                ("memory/host_bytes", bytes(step.host_bytes)),
                ("memory/device_bytes", bytes(step.device_bytes)),
            ];
            (step.step, scalars)
        }
        Record::Eval(eval) => {
            let scalars = vec![
                ("loss/train", Some(eval.train_loss)),
                ("loss/val", Some(eval.val_loss)),
            ];
            (eval.step, scalars)
        }
        Record::Score { step, score } => return Some(scores(*step, score, time)),
        _ => return None,
    };
    let values = scalars.into_iter().filter_map(|(tag, value)| {
        let value = value? as f32;
        Some(Message::default().bytes(1, tag.as_bytes()).float(2, value))
    });
    let summary = values.fold(Message::default(), |summary, value| {
        summary.message(1, &value)
    });
    Some(event(time, step).message(5, &summary))
}

/// The metrics of a task, `hellaswag/acc`.
fn scores(step: u64, score: &Score, time: f64) -> Message {
    let values = match score.metrics {
        Metrics::HellaSwag { acc, acc_norm, .. } => [("acc", acc), ("acc_norm", acc_norm)],
        Metrics::Lambada {
            acc, perplexity, ..
        } => [("acc", acc), ("perplexity", perplexity)],
        Metrics::Perplexity {
            loss, perplexity, ..
        } => [("loss", loss), ("perplexity", perplexity)],
    };
    let summary = values
        .iter()
        .fold(Message::default(), |summary, (name, value)| {
            let tag = format!("{}/{name}", score.task);
            let value = Message::default()
                .bytes(1, tag.as_bytes())
                .float(2, *value as f32);
            summary.message(1, &value)
        });
    event(time, step).message(5, &summary)
}

/// The config of a run as a text, which the plugin `text` shows as Markdown.
fn config(run: &RunRecord, time: f64) -> Message {
    let mut lines = vec![format!(
        "`{}`, taper {}, on {}",
        run.name, run.version, run.device
    )];
    lines.extend(["".into(), "| key | value |".into(), "|---|---|".into()]);
    for (key, value) in crate::record::flat(&run.config) {
        lines.push(format!("| {key} | {value} |"));
    }
    let plugin = Message::default().bytes(1, b"text");
    let metadata = Message::default().message(1, &plugin);
    let one = Message::default().number(1, 1);
    let shape = Message::default().message(2, &one);
    let tensor = Message::default()
        .number(1, STRING)
        .message(2, &shape)
        .bytes(8, lines.join("\n").as_bytes());
    let value = Message::default()
        .bytes(1, b"config/text_summary")
        .message(8, &tensor)
        .message(9, &metadata);
    event(time, run.step).message(5, &Message::default().message(1, &value))
}

/// An `Event` without its content.
fn event(time: f64, step: u64) -> Message {
    Message::default().double(1, time).number(2, step)
}

/// A message in protobuf's encoding (<https://protobuf.dev/programming-guides/encoding/>).
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    fn double(mut self, field: u64, value: f64) -> Self {
        self.varint(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
        self
    }

    fn float(mut self, field: u64, value: f32) -> Self {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn message(self, field: u64, value: &Message) -> Self {
        self.bytes(field, &value.0)
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// A record in TFRecord's frame: length, its checksum, content, its checksum
/// (<https://www.tensorflow.org/tutorials/load_data/tfrecord>).
fn framed(content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(content.len() + 16);
    record.extend(length);
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(content);
    record.extend(masked_crc(content).to_le_bytes());
    record
}

/// CRC-32C, rotated and shifted, so that the checksum of a text with checksums stays one.
fn masked_crc(bytes: &[u8]) -> u32 {
    let crc = crc32c::crc32c(bytes);
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

fn host() -> String {
    #[cfg(unix)]
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    #[cfg(not(unix))]
    let name = String::new();
    let name: String = name
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c))
        .collect();
    if name.is_empty() { "host".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of an empty record: a length of 0, and CRC-32C's known masked values.
    #[test]
    fn a_record_has_the_checksums_of_its_length_and_of_its_content() {
        let known = [
            0, 0, 0, 0, 0, 0, 0, 0, 0x29, 0x03, 0x98, 0x07, 0xd8, 0xea, 0x82, 0xa2,
        ];
        assert_eq!(framed(b""), known);
    }

    #[test]
    fn scores_are_scalars_of_their_task() {
        let score = Score {
            task: "hellaswag".into(),
            metrics: Metrics::HellaSwag {
                acc: 0.25,
                acc_norm: 0.5,
                examples: 8,
            },
            truncated: 0,
            duration: std::time::Duration::ZERO,
        };
        let record = Record::Score { step: 7, score };
        let Message(bytes) = message_of(&record, 1.0).unwrap();
        let ends = [("hellaswag/acc", 0.25f32), ("hellaswag/acc_norm", 0.5)];
        for (tag, value) in ends {
            // The value is field 2, of four bytes.
            let scalar = [tag.as_bytes(), &[0x15], &value.to_le_bytes()].concat();
            assert!(
                bytes.windows(scalar.len()).any(|part| part == scalar),
                "{tag}"
            );
        }
    }

    #[test]
    fn numbers_above_127_take_several_bytes() {
        assert_eq!(Message::default().number(1, 150).0, [0x08, 0x96, 0x01]);
    }
}
