//! Counts of all that a program asks of the card: `VGPU_COUNTS` names the file that gets them when the process ends.
//!
//! Operations are counted where they are given to the card, those of a graph at each of its launches, so that the
//! numbers are the same whenever the work is done. `VGPU_COUNTS_UNTIL=N` stops at the N-th launch of AdamW's kernel,
//! with which a training step ends.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::operation::Operation;
use super::state::{current, lock, say};

/// The environment variable that names the file.
pub const COUNTS_VARIABLE: &str = "VGPU_COUNTS";
/// The environment variable that says after how many launches of AdamW's kernel the counts stop.
pub const UNTIL_VARIABLE: &str = "VGPU_COUNTS_UNTIL";

/// The beginning of the name of AdamW's kernel, whatever its type.
const UPDATE: &str = "adamw";

/// Something that the program asked for.
pub enum Asked<'a> {
    Context,
    Module,
    Allocation { bytes: u64 },
    Operation(&'a Operation),
    GraphLaunch,
    GraphNode,
    Wait(Wait),
}

/// Why the host waits for the card.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    Context,
    Event,
    Stream,
    CopyIn,
    CopyOut,
    Free,
    Unload,
    Release,
}

impl Wait {
    const ALL: [Wait; 8] = [
        Wait::Context,
        Wait::Event,
        Wait::Stream,
        Wait::CopyIn,
        Wait::CopyOut,
        Wait::Free,
        Wait::Unload,
        Wait::Release,
    ];

    fn key(self) -> &'static str {
        match self {
            Wait::Context => "context_synchronize",
            Wait::Event => "event_synchronize",
            Wait::Stream => "stream_synchronize",
            Wait::CopyIn => "blocking_copy_host_to_device",
            Wait::CopyOut => "blocking_copy_device_to_host",
            Wait::Free => "free",
            Wait::Unload => "module_unload",
            Wait::Release => "context_release",
        }
    }
}

/// The counts of this process, if somebody wants them.
#[derive(Default)]
pub struct Counts(Option<Counting>);

struct Counting {
    file: PathBuf,
    until: Option<u64>,
    began: Instant,
    tally: Mutex<Tally>,
}

impl Counts {
    /// The counts that the environment asks for; they begin now and are written when the process ends.
    pub fn from_environment() -> Result<Counts, String> {
        let Some(file) = env::var_os(COUNTS_VARIABLE) else {
            return Ok(Counts::default());
        };
        // The program may go elsewhere before it ends.
        let file = std::path::absolute(file).map_err(|error| wrong(COUNTS_VARIABLE, error))?;
        let until = env::var_os(UNTIL_VARIABLE).map(|text| parse_until(&text));
        let until = until.transpose()?;
        // SAFETY: the function needs nothing that ends before the process, and does not unwind.
        if unsafe { libc::atexit(write_at_exit) } != 0 {
            return Err(wrong(COUNTS_VARIABLE, "the end of the process is not told"));
        }
        Ok(Counts(Some(Counting {
            file,
            until,
            began: Instant::now(),
            tally: Mutex::default(),
        })))
    }

    pub fn add(&self, asked: Asked<'_>) {
        if let Some(counting) = &self.0 {
            counting.add(asked);
        }
    }
}

fn wrong(variable: &str, reason: impl Display) -> String {
    format!("`{variable}` is wrong: {reason}")
}

fn parse_until(text: &OsStr) -> Result<u64, String> {
    let text = text.to_string_lossy();
    let number = text.parse().ok().filter(|&number: &u64| number > 0);
    number.ok_or_else(|| {
        let reason = format!("expected a number of launches, found `{text}`");
        wrong(UNTIL_VARIABLE, reason)
    })
}

extern "C" fn write_at_exit() {
    if let Some(driver) = current()
        && let Some(counting) = &driver.counts.0
    {
        counting.write(&counting.file);
    }
}

impl Counting {
    fn add(&self, asked: Asked<'_>) {
        let mut tally = lock(&self.tally);
        if tally.stopped.is_some() {
            return;
        }
        tally.add(asked);
        if self.until == Some(tally.updates) {
            tally.stopped = Some(self.began.elapsed());
        }
    }

    fn write(&self, file: &Path) {
        let tally = lock(&self.tally);
        let wall = tally.stopped.unwrap_or_else(|| self.began.elapsed());
        if let (Some(until), None) = (self.until, tally.stopped) {
            let updates = tally.updates;
            say(&format!(
                "`{UNTIL_VARIABLE}` is {until}, but there were {updates} launches of `{UPDATE}...`: all is counted"
            ));
        }
        if let Err(error) = fs::write(file, tally.json(wall)) {
            let file = file.display();
            say(&format!(
                "the counts cannot be written to `{file}`: {error}"
            ));
        }
    }
}

/// Things that have a size.
#[derive(Default)]
struct Amount {
    number: u64,
    bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.number += 1;
        self.bytes += bytes;
    }

    fn json(&self) -> String {
        object([("number", self.number), ("bytes", self.bytes)])
    }
}

#[derive(Default)]
struct Tally {
    contexts: u64,
    modules: u64,
    allocations: Amount,
    host_to_device: Amount,
    device_to_host: Amount,
    device_to_device: Amount,
    fills: Amount,
    /// By the name of the kernel.
    launches: BTreeMap<String, u64>,
    /// By the entry point of the library.
    products: BTreeMap<&'static str, u64>,
    draws: u64,
    host_functions: u64,
    graph_launches: u64,
    graph_nodes: u64,
    waits: BTreeMap<Wait, u64>,
    /// Launches of AdamW's kernel.
    updates: u64,
    /// When the last one that is counted came.
    stopped: Option<Duration>,
}

impl Tally {
    fn add(&mut self, asked: Asked<'_>) {
        match asked {
            Asked::Context => self.contexts += 1,
            Asked::Module => self.modules += 1,
            Asked::Allocation { bytes } => self.allocations.add(bytes),
            Asked::Operation(operation) => self.add_operation(operation),
            Asked::GraphLaunch => self.graph_launches += 1,
            Asked::GraphNode => self.graph_nodes += 1,
            Asked::Wait(wait) => *self.waits.entry(wait).or_default() += 1,
        }
    }

    fn add_operation(&mut self, operation: &Operation) {
        match operation {
            Operation::Launch(launch) => {
                let name = launch.name();
                self.updates += u64::from(name.starts_with(UPDATE));
                *self.launches.entry(name.to_owned()).or_default() += 1;
            }
            Operation::Library { name, .. } if name.starts_with("cublas") => {
                *self.products.entry(name).or_default() += 1;
            }
            Operation::Library { .. } => self.draws += 1,
            Operation::Set { pattern, count, .. } => self.fills.add(pattern.len() as u64 * count),
            Operation::CopyIn { bytes, .. } => self.host_to_device.add(*bytes as u64),
            Operation::CopyOut { bytes, .. } => self.device_to_host.add(*bytes as u64),
            Operation::Copy { bytes, .. } => self.device_to_device.add(*bytes),
            Operation::Call { .. } => self.host_functions += 1,
        }
    }

    fn json(&self, wall: Duration) -> String {
        let copies = [
            ("host_to_device", self.host_to_device.json()),
            ("device_to_host", self.device_to_host.json()),
            ("device_to_device", self.device_to_device.json()),
        ];
        let waits = Wait::ALL.map(|wait| (wait.key(), self.waits.get(&wait).unwrap_or(&0)));
        let launches: u64 = self.launches.values().sum();
        let products: u64 = self.products.values().sum();
        let entries = [
            ("contexts", self.contexts.to_string()),
            ("modules", self.modules.to_string()),
            ("allocations", self.allocations.json()),
            ("copies", object(copies)),
            ("fills", self.fills.json()),
            ("kernel_launches", launches.to_string()),
            ("kernel_launches_by_name", object(&self.launches)),
            ("products", products.to_string()),
            ("products_by_name", object(&self.products)),
            ("random_draws", self.draws.to_string()),
            ("host_functions", self.host_functions.to_string()),
            ("graph_launches", self.graph_launches.to_string()),
            ("graph_nodes", self.graph_nodes.to_string()),
            ("synchronisations", object(waits)),
            ("wall_seconds", format!("{:.6}", wall.as_secs_f64())),
        ];
        let lines = entries.map(|(key, value)| format!("  \"{key}\": {value}"));
        format!("{{\n{}\n}}\n", lines.join(",\n"))
    }
}

/// An object of JSON on one line. Names of PTX and of C need no escapes.
fn object<K: Display, V: Display>(entries: impl IntoIterator<Item = (K, V)>) -> String {
    let entries = entries.into_iter();
    let entries: Vec<_> = entries
        .map(|(key, value)| format!("\"{key}\": {value}"))
        .collect();
    format!("{{{}}}", entries.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_steps_is_read_and_nothing_else_is_one() {
        assert_eq!(parse_until(OsStr::new("3")), Ok(3));
        for text in ["", "0", "-1", "two"] {
            let error = parse_until(OsStr::new(text)).unwrap_err();
            assert!(error.contains(&format!("found `{text}`")), "{error}");
        }
    }
}
