//! Modules as text: what is read, and what is refused with its place.

mod common;

use common::{Program, kernel};
use vgpu::ptx::{Param, parse};

fn refusal(text: &str) -> (u32, u32, String) {
    match parse(text) {
        Ok(_) => panic!("taken:\n{text}"),
        Err(error) => (error.line, error.column, error.what),
    }
}

#[test]
fn a_module_tells_what_its_kernels_need() {
    let text = "// A comment\n.version 8.4\n.target sm_90a, texmode_independent\n.address_size 64\n/* more\n */\n\
        .extern .shared .align 16 .b8 dynamic[];\n.shared .align 4 .b8 unused[4000];\n.file 1 \"a.cu\"\n\
        .weak .entry k(\n.param .u8 a,\n.param .align 8 .b8 b[12],\n.param .u64 .ptr .global .align 4 c\n)\n.maxntid 64, 2, 1\n.minnctapersm 2\n{\n\
        .reg .b32 %r<3>;\n.reg .b64 %rd<2>;\n.shared .align 8 .b8 used[100];\n.loc 1 2 3\n\
        mov.u32 %r1, used;\nmov.u32 %r2, dynamic;\n.pragma \"nounroll\";\nret;\n}\n.section .debug_str { .b8 1, 2 }\n";
    let module = parse(text).unwrap();
    assert_eq!((module.version, module.target), ((8, 4), 90));
    let k = module.function("k").unwrap();
    let param = |offset, size, align| Param {
        offset,
        size,
        align,
    };
    assert_eq!(k.params, [param(0, 1, 1), param(8, 12, 8), param(24, 8, 8)]);
    assert_eq!((k.param_bytes, k.max_threads), (32, Some(128)));
    assert_eq!(
        k.static_shared, 112,
        "100 bytes, then dynamic memory aligned to 16"
    );
    assert_eq!(k.registers, 3 + 2 * 2);
    assert!(module.function("j").is_none());
}

#[test]
fn errors_have_a_line_a_column_and_a_reason() {
    let (line, column, what) = refusal(".version 8.0\n.target sm_80\n  .nonsense\n");
    assert_eq!((line, column), (3, 3));
    assert!(what.contains("`.nonsense`"));
    let (_, _, what) = refusal(&kernel(&[], "bra NOWHERE;"));
    assert!(what.contains("label `NOWHERE`"), "{what}");
    let (_, _, what) = refusal(&kernel(&[], "add.s32 %r1, %r2;"));
    assert!(what.contains("3 operands were expected, 2 found"), "{what}");
    let (_, _, what) = refusal(&kernel(&[], "add.s32 %x1, %r2, %r3;"));
    assert!(what.contains("%x1"), "{what}");
    let (_, _, what) = refusal(&kernel(&[], "call.uni nobody;"));
    assert!(what.contains("`nobody`"), "{what}");
    let (_, _, what) = refusal(&kernel(&[], "st.const.u32 [%rd1], %r1;"));
    assert!(what.contains("constant"), "{what}");
    refusal(&kernel(&[], "add.s32 %r1, %r2, %r3")[..80]);
    refusal("add.s32 ^");
}

#[test]
fn a_text_may_end_in_nul_and_be_cut_anywhere_without_harm() {
    let text = kernel(
        &[".u64 a"],
        ".pragma \"x\";\n{ .reg .b32 %x; mov.u32 %x, 0x10; }\nmov.f32 %r1, 0f3F800000;\nmov.b64 {%r1, _}, %rd1;",
    );
    assert!(parse(&format!("{text}\0")).is_ok());
    for end in 0..text.len() {
        let _ = parse(&text[..end]);
    }
}

#[test]
fn labels_belong_to_their_braces() {
    let twice = "{\nbra END;\nst.global.u32 [%rd1], 1;\nEND:\n}\n{\nbra END;\ntrap;\nEND:\nbra OUT;\n}\ntrap;\nOUT:\n\
                 st.global.u32 [%rd1], 7;";
    let program = Program::new(&kernel(
        &[".u64 out"],
        &format!("ld.param.u64 %rd1, [out];\n{twice}"),
    ));
    let out = program.put(&[0u32]);
    program.run("k", 1, 1, &[out]);
    assert_eq!(program.get::<u32>(out, 1), [7]);
    let nowhere = kernel(&[], "{\nEND:\n}\nbra END;");
    assert!(vgpu::ptx::parse(&nowhere).is_err());
}
