//! Ctrl-C and SIGTERM: the first asks, the second insists.
//!
//! The handler only sets a flag; the loop looks at it between steps, says what it is going to do,
//! saves and returns. Nothing is ever written from inside a signal handler.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Exit code that shells expect of a process that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// A request to stop the run.
#[derive(Clone, Debug)]
pub struct Interrupt {
    requested: Arc<AtomicBool>,
}

/// The system's refusal to install the signal handlers.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch for Ctrl-C and SIGTERM")]
pub struct InterruptError(#[source] io::Error);

impl Interrupt {
    /// Installs the handlers: the first SIGINT or SIGTERM sets the flag, any further one ends the process
    /// at once with code 130. Call it once per process.
    pub fn install() -> Result<Self, InterruptError> {
        let requested = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // The order matters: the shutdown must see the flag as it was before this signal.
            flag::register_conditional_shutdown(signal, INTERRUPTED, Arc::clone(&requested))
                .and_then(|_| flag::register(signal, Arc::clone(&requested)))
                .map_err(InterruptError)?;
        }
        Ok(Self { requested })
    }

    /// Flag that the first signal sets, for work that polls it itself.
    pub fn flag(&self) -> &AtomicBool {
        &self.requested
    }

    /// True after the first signal.
    pub fn requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }
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
        raise(SIGINT).unwrap();
        unreachable!("the second signal must end the process");
    }
}
