//! The process's own streams. Nothing here panics: a stream may be closed, full, or without a reader.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use rustix::fs::FileType;

/// Prints a line for people on stderr. A stderr that is closed or full loses it: the work is worth more than the word.
pub fn say(text: impl Display) {
    let _ = Patient(io::stderr()).write_all(format!("{text}\n").as_bytes());
}

/// Prints a result on stdout at once. A reader that went away, as `head` does when it has seen enough, is told by
/// [`OutputError::is_reader_gone`].
///
/// # Errors
/// [`OutputError`] when stdout does not take it.
pub fn print_now(text: &str) -> Result<(), OutputError> {
    let mut out = Patient(io::stdout());
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Whether stdout goes to a file or a program and stderr stays on the screen, or nearly so: whoever redirected stdout
/// looks for a log that is not there.
pub fn only_stdout_is_redirected() -> bool {
    let (stdout, stderr) = (kind_of(io::stdout()), kind_of(io::stderr()));
    match stdout {
        Some(FileType::RegularFile) => stderr != Some(FileType::RegularFile),
        Some(FileType::Fifo) => io::stderr().is_terminal(),
        _ => false,
    }
}

fn kind_of(stream: impl AsFd) -> Option<FileType> {
    let stat = rustix::fs::fstat(stream).ok()?;
    Some(FileType::from_raw_mode(stat.st_mode))
}

/// A result that standard output did not take.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
pub struct OutputError(#[from] io::Error);

impl OutputError {
    pub fn is_reader_gone(&self) -> bool {
        self.0.kind() == ErrorKind::BrokenPipe
    }

    /// The next thing to do.
    pub fn hint(&self) -> String {
        "look at where it goes to, or send it elsewhere, such as `> FILE` on another disk".into()
    }
}

/// Pause before a stream without room is tried again.
const PAUSE: Duration = Duration::from_millis(2);

/// A stream that waits while it has no room, also where another program made it non-blocking (EAGAIN).
pub(super) struct Patient<W>(pub W);

impl<W: Write> Write for Patient<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        patiently(|| self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        patiently(|| self.0.flush())
    }
}

fn patiently<T>(mut write: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match write() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that has room for one byte at every second try.
    #[derive(Default)]
    struct Narrow {
        taken: Vec<u8>,
        tries: usize,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.tries += 1;
            if self.tries.is_multiple_of(2) {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.taken.extend(bytes.first());
            Ok(bytes.len().min(1))
        }

        fn flush(&mut self) -> io::Result<()> {
            self.write(&[]).map(|_| ())
        }
    }

    #[test]
    fn a_stream_without_room_is_waited_for_and_loses_nothing() {
        let mut stream = Patient(Narrow::default());
        stream.write_all(b"a whole line\n").unwrap();
        stream.flush().unwrap();
        stream.flush().unwrap();
        assert_eq!(stream.0.taken, b"a whole line\n");
    }
}
