//! The observer of a download.

/// Shows a download, and stops it. Nothing here may block.
pub trait Watch {
    /// Transfers begin, of which `done` of `total` bytes were there before.
    fn begin(&self, done: u64, total: u64);

    /// `done` bytes are there now; less than before when a file is started over.
    fn reach(&self, done: u64);

    /// The transfers ended, well or not.
    fn end(&self);

    /// A sentence for people: a retry, a wait.
    fn note(&self, text: &str);

    /// Called many times a second while anything is waited for. True: stop.
    fn is_interrupted(&self) -> bool;
}
