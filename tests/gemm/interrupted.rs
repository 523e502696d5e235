//! Searches that somebody ends.

use std::cell::Cell;

use taper::ops::gemm::cache::{Cache, Header, Table};
use taper::ops::gemm::{Dispatch, Watch};
use tempfile::tempdir;

use super::dispatch::{LIMITED, gemms, lines, product, right};
use super::fake::{Fake, takes};
use super::problems;

/// Interrupts a search when it is looked at for the time `patience` + 1.
struct Impatient {
    patience: usize,
    looks: Cell<usize>,
}

impl Watch for Impatient {
    fn begin(&self, _: usize) {}

    fn reach(&self, _: usize, _: &str) {}

    fn end(&self) {}

    fn is_interrupted(&self) -> bool {
        self.looks.set(self.looks.get() + 1);
        self.looks.get() > self.patience
    }
}

#[test]
fn an_interrupted_search_leaves_only_whole_results() {
    let whole = |patience| {
        let folder = tempdir().unwrap();
        let cache = Cache::new(folder.path(), "fake", Header::new());
        let fake = Fake::new([takes("fallback", 1e-3), takes("fast", 5e-4)]);
        let dispatch = Dispatch::new(fake, LIMITED, Some(cache.clone()), Table::default());
        let dispatch = dispatch.watched_by(Box::new(Impatient {
            patience,
            looks: Cell::default(),
        }));
        dispatch.prepare(&gemms(), None);
        let decided = dispatch.table().0.len();
        // Each of them is a result of a whole search, and nothing is told of the others.
        assert_eq!(cache.load().0.0.len(), decided);
        for entry in dispatch.table().0 {
            assert_eq!(entry.candidates, ["fast", "fallback"]);
        }
        assert!(lines(&dispatch).is_empty() || decided == gemms().len());
        // The work that is not given up is right.
        let problem = problems()[7];
        assert_eq!(product(&dispatch, &problem).unwrap(), right(&problem));
        decided
    };
    let decided: Vec<usize> = (0..60).step_by(3).map(whole).collect();
    assert_eq!(decided[0], 0);
    assert!(decided.is_sorted(), "{decided:?}");
    assert!(decided.iter().any(|count| (1..8).contains(count)));
    assert_eq!(whole(usize::MAX), gemms().len());
}
