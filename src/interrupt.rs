//! Signals that ask a run to stop, and the one of the limit on file sizes.
//!
//! Ctrl-C, SIGTERM, a lost connection (SIGHUP), a scheduler's warning (SIGUSR1, SIGUSR2) and the limit on CPU time
//! (SIGXCPU) all ask alike. A second Ctrl-C or SIGTERM insists; the others may come as often as they like. A signal that
//! is ignored at the start stays ignored: `nohup` and a shell's `&` mean it.
//!
//! The handler only sets a flag; the loop looks at it between steps, says what it is going to do,
//! saves and returns. Nothing is ever written from inside a signal handler.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU, SIGXFSZ};
use signal_hook::flag;
use signal_hook::low_level::signal_name;

/// Exit code that shells expect of a process that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// Signals that ask once and insist the second time.
const INSISTENT: [i32; 2] = [SIGINT, SIGTERM];

/// Signals that ask, however often they come.
const PATIENT: [i32; 4] = [SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU];

/// A request to stop the run.
#[derive(Clone, Debug)]
pub struct Interrupt {
    requested: Arc<AtomicBool>,
    /// Number of the last signal that came.
    signal: Arc<AtomicUsize>,
}

/// The system's refusal to install the signal handlers.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch for signals such as Ctrl-C")]
pub struct InterruptError(#[source] io::Error);

impl Interrupt {
    /// Installs the handlers: the first signal sets the flag; a second SIGINT or SIGTERM ends the process at once with
    /// code 130. Call it once per process.
    pub fn install() -> Result<Self, InterruptError> {
        let requested = Arc::new(AtomicBool::new(false));
        let signal = Arc::new(AtomicUsize::new(0));
        let insisted = Arc::new(AtomicBool::new(false));
        let ignored = ignored();
        let watched = |signal: &i32| ignored & mask(*signal) == 0;
        for number in INSISTENT.into_iter().filter(watched) {
            // The order matters: the shutdown must see the flag as it was before this signal.
            flag::register_conditional_shutdown(number, INTERRUPTED, Arc::clone(&insisted))
                .and_then(|_| flag::register(number, Arc::clone(&insisted)))
                .map_err(InterruptError)?;
        }
        for number in INSISTENT.into_iter().chain(PATIENT).filter(watched) {
            flag::register_usize(number, Arc::clone(&signal), number as usize)
                .and_then(|_| flag::register(number, Arc::clone(&requested)))
                .map_err(InterruptError)?;
        }
        Ok(Self { requested, signal })
    }

    /// Flag that the first signal sets, for work that polls it itself.
    pub fn flag(&self) -> &AtomicBool {
        &self.requested
    }

    /// True after the first signal.
    pub fn requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// Name of the signal, such as `SIGTERM`.
    pub fn signal(&self) -> &'static str {
        let number = self.signal.load(Ordering::Relaxed);
        let name = i32::try_from(number).ok().and_then(signal_name);
        name.unwrap_or("a signal")
    }
}

/// Makes a write beyond the limit on file sizes (`ulimit -f`) fail, which is an error with a name, instead of ending the
/// process. Call it once per process.
pub fn survive_file_size_limit() -> Result<(), InterruptError> {
    if ignored() & mask(SIGXFSZ) == 0 {
        // Only a handler is needed; nobody looks at the flag.
        flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false))).map_err(InterruptError)?;
    }
    Ok(())
}

fn mask(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Signals that this process was started to ignore, a bit for each, as Linux tells. Elsewhere none.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let bits = line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use signal_hook::low_level::raise;

    use super::*;

    const CHILD: &str = "TAPER_TEST_INTERRUPT_CHILD";

    #[test]
    fn the_first_signal_asks_and_the_second_exits_with_130() {
        if std::env::var_os(CHILD).is_some() {
            return be_interrupted_twice();
        }
        let test = "interrupt::tests::the_first_signal_asks_and_the_second_exits_with_130";
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let stdout = String::from_utf8_lossy(&child.stdout);
        assert!(stdout.contains("asked by the first"), "{stdout}");
        assert_eq!(child.status.code(), Some(INTERRUPTED));
    }

    /// Runs in a process of its own, which it ends.
    fn be_interrupted_twice() {
        let interrupt = Interrupt::install().unwrap();
        assert!(!interrupt.requested());
        raise(SIGTERM).unwrap();
        assert!(interrupt.requested());
        println!("asked by the first");
        // Not SIGINT, which a shell's background job ignores.
        raise(SIGTERM).unwrap();
        unreachable!("the second signal must end the process");
    }
}
