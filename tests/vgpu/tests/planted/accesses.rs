//! Accesses to what is not there, not aligned, or was never written.

use vgpu::fault::What;

use crate::common::{Program, kernel};
use crate::{INDEX, fault_of, line_of};

#[test]
fn an_index_one_too_far_is_out_of_bounds() {
    let (fault, a, text) = fault_of("st.global.u32 [%rd1+4], %r1;");
    let place = fault.place.clone().unwrap();
    assert_eq!(
        fault.what,
        What::OutOfBounds {
            bytes: 4,
            offset: 256,
            size: 256
        }
    );
    assert_eq!(fault.address, Some(a + 256));
    assert_eq!(
        (place.kernel.as_str(), place.block, place.thread),
        ("k", [1, 0, 0], [31, 0, 0])
    );
    assert_eq!(place.line, line_of(&text, "st.global", 0));
    let shown = fault.to_string();
    assert!(
        shown.contains("256 of an allocation of 256 bytes") && shown.contains("thread (31,0,0)"),
        "{shown}"
    );
}

#[test]
fn an_index_below_zero_is_out_of_bounds() {
    let (fault, a, _) = fault_of("ld.global.u32 %r5, [%rd1-4];");
    assert_eq!(
        fault.what,
        What::OutOfBounds {
            bytes: 4,
            offset: -4,
            size: 256
        }
    );
    assert_eq!(fault.address, Some(a - 4));
}

#[test]
fn a_null_pointer_is_unmapped() {
    let (fault, ..) = fault_of("mov.u64 %rd2, 0;\nld.global.u32 %r5, [%rd2+16];");
    assert_eq!(
        (fault.what, fault.address),
        (What::Unmapped { bytes: 4 }, Some(16))
    );
}

#[test]
fn memory_that_was_freed_is_named_so() {
    let program = Program::new(&kernel(
        &[".u64 a"],
        &format!("{INDEX}ld.global.u32 %r5, [%rd1];"),
    ));
    let a = program.put(&[7u32; 64]);
    program.memory.free(a).unwrap();
    let later = program.put(&[1u32; 64]);
    assert_ne!(a, later, "addresses are not used twice");
    let fault = program
        .launch("k", [2, 1, 1], [32, 1, 1], 0, &[a])
        .unwrap_err();
    assert_eq!(
        (fault.what, fault.address),
        (
            What::Freed {
                bytes: 4,
                by: "the host".into()
            },
            Some(a)
        )
    );
}

#[test]
fn a_vector_access_must_be_aligned_as_a_whole() {
    let (fault, a, _) = fault_of("ld.global.v4.u32 {%r5, %r6, %r7, %r8}, [%rd9+8];");
    assert_eq!(
        (fault.what, fault.address),
        (What::Misaligned { bytes: 16 }, Some(a + 8))
    );
}

#[test]
fn an_unwritten_output_is_found_when_it_is_read() {
    // Thread 40 leaves its element out.
    let body = format!("{INDEX}setp.eq.u32 %p1, %r1, 40;\n@!%p1 st.global.u32 [%rd1], %r1;");
    let program = Program::new(&kernel(&[".u64 a"], &body));
    let a = program.room::<u32>(64);
    program.run("k", 2, 32, &[a]);
    let fault = program.memory.copy_out(a, &mut [0; 256]).unwrap_err();
    assert_eq!(
        (fault.what, fault.address),
        (What::NeverWritten { space: "global" }, Some(a + 160))
    );
    let reader = Program::new(&kernel(
        &[".u64 a"],
        &format!("{INDEX}ld.global.u32 %r5, [%rd1];"),
    ));
    let fault = reader
        .launch("k", [1, 1, 1], [32, 1, 1], 0, &[reader.room::<u32>(32)])
        .unwrap_err();
    assert_eq!(fault.what, What::NeverWritten { space: "global" });
}

#[test]
fn shared_and_local_memory_are_checked_too() {
    let (fault, ..) = fault_of("mov.u32 %r5, s;\nld.shared.u32 %r6, [%r5];");
    assert_eq!(fault.what, What::NeverWritten { space: "shared" });
    let (fault, ..) = fault_of("mov.u32 %r5, s;\nst.shared.u32 [%r5+256], %r6;");
    assert_eq!(
        fault.what,
        What::SharedBounds {
            bytes: 4,
            size: 256
        }
    );
    let (fault, ..) =
        fault_of(".local .align 4 .b8 l[16];\nmov.u64 %rd3, l;\nld.local.u32 %r6, [%rd3];");
    assert_eq!(fault.what, What::NeverWritten { space: "local" });
    let (fault, ..) =
        fault_of(".local .align 4 .b8 l[16];\nmov.u64 %rd3, l;\nst.local.u32 [%rd3+16], %r6;");
    assert_eq!(
        fault.what,
        What::OwnBounds {
            bytes: 4,
            size: 16,
            space: "local"
        }
    );
}
