//! Embeddings, whatever tokens a batch is made of.

use taper::ops::backend::{GradientWrite, rows_by_token};
use taper::ops::cpu::dropout as cpu_dropout;
use taper::ops::cpu::embedding as cpu;
use taper::ops::cuda::dropout::MaskView;
use taper::ops::cuda::embedding::{EmbeddingTableViews, Sorted, backward, forward, heads_len};
use taper::ops::launch::Gpu;

use crate::common::gpu::*;
use crate::common::{Kind, tokens};
use crate::dropout::{DROPOUT, HEADER, SITE};

fn check_forward<T: Rounded>(gpu: &Gpu, (samples, positions): (usize, usize), columns: usize) {
    let (vocab, first) = (11, 2);
    let rows = samples * positions;
    let ids = tokens(rows, vocab, 1);
    let wte = rounded_noise::<T>(vocab * columns, 2);
    let wpe = rounded_noise::<T>((first + positions) * columns, 3);
    let (ids_on_gpu, wte_on_gpu, wpe_on_gpu) = (up(gpu, &ids), up(gpu, &wte), up(gpu, &wpe));
    let header = up(gpu, &HEADER);
    let mask = MaskView {
        p: DROPOUT.p,
        seed: DROPOUT.seed,
        site: SITE,
        header: &header.as_view(),
    };
    for mask in [None, Some(mask)] {
        let mut want = vec![f64::NAN; rows * columns];
        let (wte, wpe) = (T::widen_all(&wte), T::widen_all(&wpe));
        cpu::forward(
            &ids,
            &wte,
            &wpe,
            &mut want,
            first..first + positions,
            columns,
        );
        if mask.is_some() {
            cpu_dropout::mask_in_place(&mut want, columns, positions, DROPOUT, SITE);
        }
        let mut out = unwritten::<T>(gpu, rows * columns);
        let tables = EmbeddingTableViews {
            wte: &wte_on_gpu.as_view(),
            wpe: &wpe_on_gpu.as_view(),
        };
        let (ids, out_view) = (&ids_on_gpu.as_view(), &mut out.as_view_mut());
        forward(gpu, ids, tables, out_view, first..first + positions, mask).unwrap();
        assert_near("embedding", &down(gpu, &out), &want, Kind::Forward);
    }
}

#[test]
fn the_forward_is_that_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    for (shape, columns) in [((1, 1), 1), ((3, 5), 7), ((2, 9), 264)] {
        for_each_type!(gpu, check_forward(shape, columns));
    }
}

fn check_backward<T: Rounded>(gpu: &Gpu, ids: &[u32], positions: usize, columns: usize) {
    let (rows, vocab) = (ids.len(), 50);
    let dout = rounded_noise::<T>(rows * columns, 1);
    let starts = [vocab, positions + 1].map(|rows| rounded_noise::<f32>(rows * columns, 2));
    let [mut dwte_want, mut dwpe_want] = starts.each_ref().map(|start| f32::widen_all(start));
    let wide = T::widen_all(&dout);
    cpu::backward(
        ids,
        &wide,
        &mut dwte_want,
        &mut dwpe_want,
        GradientWrite::Accumulate,
        positions,
        columns,
    );

    let (mut counts, mut order) = (vec![0; vocab], vec![0; rows]);
    rows_by_token(ids, &mut counts, &mut order);
    let (dout, ids, order) = (up(gpu, &dout), up(gpu, ids), up(gpu, &order));
    let run = || {
        let [mut dwte, mut dwpe] = starts.each_ref().map(|start| up(gpu, start));
        let mut heads = unwritten(gpu, heads_len(rows, columns));
        let sorted = Sorted {
            tokens: &ids.as_view(),
            order: &order.as_view(),
        };
        let (dwte_view, dwpe_view) = (&mut dwte.as_view_mut(), &mut dwpe.as_view_mut());
        let heads = &mut heads.as_view_mut();
        backward(
            gpu,
            &dout.as_view(),
            sorted,
            dwte_view,
            dwpe_view,
            positions,
            heads,
        )
        .unwrap();
        (down(gpu, &dwte), down(gpu, &dwpe))
    };
    let (dwte, dwpe) = run();
    assert_near("dwte", &dwte, &dwte_want, Kind::Gradient);
    assert_near("dwpe", &dwpe, &dwpe_want, Kind::Gradient);
    assert!(run() == (dwte, dwpe), "the same bits");
}

#[test]
fn the_backward_is_that_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    for (rows, positions, columns) in [(1, 1, 1), (30, 5, 7), (96, 32, 264), (135, 45, 33)] {
        let ids = tokens(rows, 50, 3);
        for_each_type!(gpu, check_backward(&ids, positions, columns));
    }
}

#[test]
fn a_token_may_be_in_every_row_or_end_anywhere() {
    let Some(gpu) = gpu() else { return };
    // Runs of these lengths, against windows of 32 rows.
    for runs in [
        &[200][..],
        &[1, 198, 1],
        &[32, 64, 104],
        &[31, 33, 97, 39],
        &[40, 24, 136],
    ] {
        let ids = runs.iter().zip(10..);
        let mut ids: Vec<u32> = ids.flat_map(|(&len, token)| vec![token; len]).collect();
        // Their order in memory is another.
        for row in 0..ids.len() {
            ids.swap(row, row * 37 % 200);
        }
        for_each_type!(gpu, check_backward(&ids, 100, 24));
    }
}
