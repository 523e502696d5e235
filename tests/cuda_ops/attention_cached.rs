//! Attention of generation over cached keys and values, and its embedding.

use taper::ops::backend::Shape;
use taper::ops::cpu::attention::cached as cpu;
use taper::ops::cpu::embedding as cpu_embedding;
use taper::ops::cuda::attention_cached::{copy, forward, store};
use taper::ops::cuda::embedding::{EmbeddingTableViews, forward_at};
use taper::ops::launch::Gpu;

use crate::common::gpu::*;
use crate::common::{Kind, tokens};

fn slots(head_size: usize) -> Shape {
    Shape {
        sequences: 3,
        positions: 41,
        heads: 2,
        head_size,
    }
}

/// Places of positions of a slot.
fn places(slots: Shape, slot: usize, positions: std::ops::Range<usize>) -> Vec<u32> {
    positions
        .map(|at| (slot * slots.positions + at) as u32)
        .collect()
}

fn check<T: Rounded>(gpu: &Gpu, head_size: usize) {
    let slots = slots(head_size);
    let columns = slots.heads * head_size;
    let cache_len = 2 * slots.sequences * slots.positions * columns;
    let mut cache = up(gpu, &vec![T::round(0.0); cache_len]);
    let mut want_cache = vec![0.0; cache_len];
    let mut scratch = vec![0.0; cpu::scratch_len(slots.positions, 1)];
    // Two prompts of other lengths at once, one of which fills its slot; then a row of each, and of a copy.
    let prompts = [places(slots, 1, 0..41), places(slots, 0, 0..6)].concat();
    let copied = [places(slots, 0, 0..6), places(slots, 2, 0..6)];
    let next = [
        places(slots, 2, 6..7),
        places(slots, 0, 6..7),
        places(slots, 1, 40..41),
    ]
    .concat();
    for (salt, places) in [(1, prompts), (2, next)] {
        let qkv = rounded_noise::<T>(places.len() * 3 * columns, salt);
        let mut want = vec![f64::NAN; places.len() * columns];
        let wide = T::widen_all(&qkv);
        cpu::store(&wide, &places, &mut want_cache, slots);
        cpu::forward(&wide, &places, &want_cache, &mut want, slots, &mut scratch);
        let (qkv, places) = (up(gpu, &qkv), up(gpu, &places));
        let (qkv, places) = (&qkv.as_view(), &places.as_view());
        store(gpu, slots, qkv, places, &mut cache.as_view_mut()).unwrap();
        let mut out = unwritten::<T>(gpu, want.len());
        let out_view = &mut out.as_view_mut();
        forward(gpu, slots, qkv, places, &cache.as_view(), out_view).unwrap();
        assert_near("attention", &down(gpu, &out), &want, Kind::Forward);
        let [from, to] = &copied;
        cpu::copy(&mut want_cache, from, to, slots);
        let (from, to) = (up(gpu, from), up(gpu, to));
        let between = [&from.as_view(), &to.as_view()];
        copy(gpu, slots, between, &mut cache.as_view_mut()).unwrap();
        assert_eq!(T::widen_all(&down(gpu, &cache)), want_cache);
    }
}

#[test]
fn rows_of_several_sequences_attend_as_on_the_cpu() {
    let Some(gpu) = gpu() else { return };
    for head_size in [1, 9, 64, 128] {
        for_each_type!(gpu, check(head_size));
    }
}

fn check_embedding<T: Rounded>(gpu: &Gpu, columns: usize) {
    let (vocab, positions) = (11, 5);
    let (ids, places) = (tokens(7, vocab, 1), [0, 9, 14, 3, 5, 4, 10]);
    let wte = rounded_noise::<T>(vocab * columns, 2);
    let wpe = rounded_noise::<T>(positions * columns, 3);
    let mut want = vec![f64::NAN; ids.len() * columns];
    let (wide_wte, wide_wpe) = (T::widen_all(&wte), T::widen_all(&wpe));
    cpu_embedding::forward_at(
        &ids, &places, &wide_wte, &wide_wpe, &mut want, positions, columns,
    );
    let (ids, places) = (up(gpu, &ids), up(gpu, &places));
    let (wte, wpe) = (up(gpu, &wte), up(gpu, &wpe));
    let tables = EmbeddingTableViews {
        wte: &wte.as_view(),
        wpe: &wpe.as_view(),
    };
    let mut out = unwritten::<T>(gpu, want.len());
    let rows = [&ids.as_view(), &places.as_view()];
    forward_at(gpu, rows, tables, &mut out.as_view_mut(), positions).unwrap();
    assert_near("embedding", &down(gpu, &out), &want, Kind::Forward);
}

#[test]
fn rows_at_any_places_have_their_positions() {
    let Some(gpu) = gpu() else { return };
    for columns in [1, 7, 264] {
        for_each_type!(gpu, check_embedding(columns));
    }
}
