//! Updates that are left out on a GPU, where the host looks at the step before its update.

use half::{bf16, f16};
use taper::memory::Memory;
use taper::ops::launch::GpuElement;
use taper::terms::Recompute;

use crate::toy::{assert_outliers_are_left_out, guarded_trainer_of};
use crate::{Card, backend, dims, open, rung};

fn check<T: GpuElement>(card: &Card, cuda_graph: bool) {
    assert_outliers_are_left_out(|skip| {
        let rungs = vec![rung(4, Recompute::None, 32)];
        let backend = backend::<T>(card, cuda_graph);
        guarded_trainer_of(&dims(0.1), backend, rungs, Memory::default(), skip).unwrap()
    });
}

#[test]
fn the_update_of_an_outlier_is_left_out_in_every_precision_with_and_without_graphs() {
    let Some(card) = open() else { return };
    check::<f32>(&card, false);
    check::<f32>(&card, true);
    check::<bf16>(&card, true);
    check::<f16>(&card, false);
}
