//! Values whose reading moves a progress bar.

use std::io;

use indicatif::ProgressBar;

use crate::ops::backend::Values;

/// Values that are read once, from first to last. Each moves the bar by the bytes that it takes in a file.
pub(super) struct Counted<'a, V> {
    pub values: V,
    pub bytes_per_value: u64,
    pub bar: &'a ProgressBar,
}

impl<V: Values> Values for Counted<'_, V> {
    fn len(&self) -> usize {
        self.values.len()
    }

    fn read(&self, start: usize, to: &mut [f32]) -> io::Result<()> {
        self.values.read(start, to)?;
        self.bar.inc(self.bytes_per_value * to.len() as u64);
        Ok(())
    }
}
