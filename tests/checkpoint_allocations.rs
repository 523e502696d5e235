//! What a checkpoint takes beside the model. Alone in its process: it replaces the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use taper::checkpoint::{Snapshot, TrainState, open, save};
use taper::model::ParamLayout;
use taper::ops::backend::{CHUNK, Values, ValuesMut};
use taper::terms::{Gelu, ModelDims};

static LIVE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: `System` does the work; `realloc` and `alloc_zeroed` come to `alloc` by default.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(live, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The most bytes that `work` holds at once beside what was held before.
fn most_held(work: impl FnOnce()) -> usize {
    let before = LIVE.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    work();
    MOST.load(Ordering::Relaxed) - before
}

/// Values that the host cannot see.
struct Elsewhere(Vec<f32>);

impl Values for Elsewhere {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn read(&self, start: usize, to: &mut [f32]) -> io::Result<()> {
        self.0.read(start, to)
    }
}

impl ValuesMut for Elsewhere {
    fn write(&mut self, start: usize, from: &[f32]) -> io::Result<()> {
        self.0.write(start, from)
    }
}

/// The most that a save and a load hold, in bytes.
fn save_and_load<B: ValuesMut>(dims: &ModelDims, buffer: impl Fn() -> B) -> [usize; 2] {
    let out = tempfile::tempdir().unwrap();
    let [mut weights, mut m, mut v] = [(); 3].map(|()| buffer());
    let state = r#"{"step":3,"seed":1,"sequences_per_step":4,"tokens_seen":9}"#;
    let state: TrainState = serde_json::from_str(state).unwrap();
    let saved = most_held(|| {
        let snapshot = Snapshot {
            dims,
            weights: &weights,
            m: &m,
            v: &v,
            state: &state,
            config_toml: "",
            extra_files: &[],
        };
        save(out.path(), &snapshot).unwrap();
    });
    let checkpoint = open(&out.path().join("ckpt-00000003")).unwrap().checkpoint;
    let loaded = most_held(|| {
        checkpoint
            .load_into(dims, &mut weights, &mut m, &mut v)
            .unwrap();
    });
    [saved, loaded]
}

#[test]
fn a_checkpoint_takes_chunks_and_one_matrix_where_the_host_has_none() {
    let dims = ModelDims {
        n_layer: 8,
        n_head: 4,
        n_embd: 256,
        block_size: 64,
        vocab_size: 300,
        bias: true,
        dropout: 0.0,
        gelu: Gelu::Tanh,
    };
    let len = ParamLayout::new(&dims).len;
    let (matrix, chunk) = (4 * 4 * dims.n_embd * dims.n_embd, 4 * CHUNK);
    // Two files are written at a time, one is read; names, headers and threads take less than a chunk.
    let held = save_and_load(&dims, || vec![0.0; len]);
    assert!(held[0] <= 4 * chunk && held[1] <= 3 * chunk, "{held:?}");
    let held = save_and_load(&dims, || Elsewhere(vec![0.0; len]));
    let copies = held.map(|held| held.saturating_sub(matrix));
    assert!(copies[0] <= 5 * chunk && copies[1] <= 3 * chunk, "{held:?}");
}
