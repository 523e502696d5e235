//! Launches that never start or never end, and which of their faults is reported.

use vgpu::fault::What;

use crate::common::{Program, kernel};
use crate::{INDEX, PROGRAMS, fault_of};

#[test]
fn endless_loops_traps_and_assertions_end_the_launch() {
    let text = kernel(
        &[".u64 a"],
        &format!("{INDEX}L:\nadd.u32 %r1, %r1, 1;\nbra.uni L;"),
    );
    let mut program = Program::new(&text);
    program.limits.instructions_per_warp = 1_000_000;
    let fault = program
        .launch("k", [1, 1, 1], [32, 1, 1], 0, &[0])
        .unwrap_err();
    assert_eq!(fault.what, What::Endless(1_000_000));
    let (fault, ..) = fault_of("setp.eq.u32 %p1, %r1, 33;\n@%p1 trap;");
    assert_eq!(
        (fault.what, fault.place.unwrap().thread),
        (What::Trap, [1, 0, 0])
    );
}

#[test]
fn a_fault_of_the_lowest_block_is_reported() {
    let body = format!("{INDEX}setp.ge.u32 %p1, %r2, 3;\n@%p1 trap;");
    let program = Program::new(&kernel(&[".u64 a"], &body));
    for _ in 0..20 {
        let fault = program
            .launch("k", [64, 1, 1], [32, 1, 1], 0, &[0])
            .unwrap_err();
        assert_eq!(fault.place.unwrap().block, [3, 0, 0]);
    }
}

#[test]
fn launches_that_no_card_would_start_are_refused() {
    let program = Program::new(PROGRAMS);
    let refusal = |kernel: &str, grid, block, shared| {
        program
            .launch(kernel, grid, block, shared, &[0, 0])
            .unwrap_err()
            .to_string()
    };
    assert!(
        refusal("scan", [1, 1, 1], [1025, 1, 1], 0)
            .contains("1025 threads in a block, 1024 at most")
    );
    assert!(refusal("scan", [0, 1, 1], [32, 1, 1], 0).contains("empty"));
    assert!(refusal("scan", [1, 70_000, 1], [32, 1, 1], 0).contains("no card has these"));
    assert!(
        refusal("scan", [1, 1, 1], [32, 1, 1], 50_000)
            .contains("50000 bytes of shared memory, 49152 at most")
    );
}
