//! Reading windows takes no memory. Alone in its process: it replaces the allocator and looks at
//! the process's size.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs::File;

use taper::config::DataConfig;
use taper::data::Dataset;
use taper::device::resident_bytes;
use tempfile::TempDir;

thread_local! {
    /// By this thread; the test harness has others.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: `System` does the work; `realloc` and `alloc_zeroed` come to `alloc` by default.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn copying_windows_allocates_nothing_and_holds_nothing_of_the_file() {
    const TOKENS: u64 = 64 << 20;
    let folder = TempDir::new().unwrap();
    for name in ["train.bin", "val.bin"] {
        // Zeros that take no room on the disk.
        let file = File::create(folder.path().join(name)).unwrap();
        file.set_len(2 * TOKENS).unwrap();
    }
    let data = Dataset::open(&DataConfig {
        dataset: String::new(),
        data_dir: folder.path().to_owned(),
        train_bin: None,
        val_bin: None,
    })
    .unwrap();
    let (mut inputs, mut targets) = (vec![1; 5000], vec![1; 5000]);
    let resident = resident_bytes();
    let before = ALLOCATIONS.get();
    for index in (0..data.train.window_count(5000)).step_by(50_000) {
        data.train
            .copy_window(index, &mut inputs, &mut targets)
            .unwrap();
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
    assert_eq!((inputs[4999], targets[4999]), (0, 0));
    // 128 MiB were walked through. Where the system does not tell, this part is not checked.
    if let (Some(before), Some(after)) = (resident, resident_bytes()) {
        let grown = after.saturating_sub(before);
        assert!(grown < 4 << 20, "{grown} bytes more are resident");
    }
}
