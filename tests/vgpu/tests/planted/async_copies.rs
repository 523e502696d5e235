//! `cp.async` copies that are not waited for.

use vgpu::fault::What;

use crate::common::Program;

const TENSOR_CORE: &str = include_str!("../fixtures/tensor_core.ptx");

#[test]
fn tiles_that_cp_async_still_fills_may_not_be_read() {
    let waits = |text: &str| {
        (0..2).fold(text.to_string(), |t, i| {
            t.replace(&format!("cp.async.wait_group {i};"), "")
        })
    };
    let program = Program::new(&waits(TENSOR_CORE));
    let (a, c) = (program.put(&vec![0u16; 16 * 32]), program.room::<f32>(128));
    let fault = program
        .launch("gemm_bf16", [1, 1, 1], [32, 1, 1], 0, &[a, a, c, 8, 32])
        .unwrap_err();
    assert!(
        matches!(fault.what, What::StillCopying { how: "read", .. }),
        "{fault}"
    );
    let line = fault.place.unwrap().line as usize;
    assert!(
        TENSOR_CORE
            .lines()
            .nth(line - 1)
            .unwrap()
            .contains("ldmatrix")
    );
}

#[test]
fn waiting_for_too_few_groups_is_caught() {
    let program =
        Program::new(&TENSOR_CORE.replace("cp.async.wait_group 1;", "cp.async.wait_group 2;"));
    let (a, c) = (program.put(&vec![0u16; 16 * 32]), program.room::<f32>(128));
    let fault = program
        .launch("gemm_bf16", [1, 1, 1], [32, 1, 1], 0, &[a, a, c, 8, 32])
        .unwrap_err();
    assert!(matches!(fault.what, What::StillCopying { .. }), "{fault}");
}
