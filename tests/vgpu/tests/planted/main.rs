//! Planted bugs: each is caught, and named with kernel, line, block, thread and address.

mod accesses;
mod async_copies;
mod launches;
mod races;
mod synchronization;

#[path = "../common/mod.rs"]
mod common;

use common::{Program, kernel};
use vgpu::fault::Fault;

const PROGRAMS: &str = include_str!("../fixtures/programs.ptx");

/// Index of this thread in `%r1`, its address in the first buffer in `%rd1`.
const INDEX: &str = "mov.u32 %r2, %ctaid.x;\nmov.u32 %r3, %ntid.x;\nmov.u32 %r4, %tid.x;\n\
    mad.lo.u32 %r1, %r2, %r3, %r4;\nld.param.u64 %rd9, [a];\nmad.wide.u32 %rd1, %r1, 4, %rd9;\n";

/// The line, from 1, of the `nth` time (from 0) that `part` stands in `text`.
fn line_of(text: &str, part: &str, nth: usize) -> u32 {
    text.lines()
        .enumerate()
        .filter(|(_, line)| line.contains(part))
        .nth(nth)
        .unwrap()
        .0 as u32
        + 1
}

/// The text without what stands on a line.
fn without(text: &str, line: u32) -> String {
    let keep = |(i, text): (usize, &str)| {
        if i as u32 + 1 == line {
            String::new()
        } else {
            text.to_string()
        }
    };
    text.lines()
        .enumerate()
        .map(keep)
        .collect::<Vec<_>>()
        .join("\n")
}

/// The fault of `body`, which runs in two blocks of 32 threads; the address of its buffer of 64 words; the kernel's text.
fn fault_of(body: &str) -> (Fault, u64, String) {
    let text = kernel(
        &[".u64 a"],
        &format!(".shared .align 16 .b8 s[256];\n{INDEX}{body}"),
    );
    let program = Program::new(&text);
    let a = program.put(&[7u32; 64]);
    let fault = program
        .launch("k", [2, 1, 1], [32, 1, 1], 0, &[a])
        .expect_err("a fault");
    (fault, a, text)
}
