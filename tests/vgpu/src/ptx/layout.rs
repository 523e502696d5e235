//! Where shared variables lie in a block's shared memory: each kernel has those that it, or what it calls, uses.

use super::ir::{Constant, Function, Module, Space};

/// The functions that `kernel` reaches, itself first.
pub(crate) fn reached(module: &Module, kernel: usize) -> Vec<usize> {
    let mut list = vec![kernel];
    let mut at = 0;
    while let Some(&function) = list.get(at) {
        for &called in &module.functions[function].calls {
            if !list.contains(&called) {
                list.push(called);
            }
        }
        at += 1;
    }
    list
}

/// Offsets of the shared variables that `kernel` uses, and the bytes of those whose size is known. Arrays sized
/// by the launch start where the others end.
pub(crate) fn shared(module: &Module, kernel: usize) -> (Vec<(usize, u32)>, u32) {
    let uses = |function: &Function| {
        let variable = |constant: &Constant| match constant {
            Constant::Variable(number, _) if module.variables[*number].space == Space::Shared => {
                Some(*number)
            }
            _ => None,
        };
        function
            .constants
            .iter()
            .filter_map(variable)
            .collect::<Vec<_>>()
    };
    let mut used: Vec<usize> = reached(module, kernel)
        .iter()
        .flat_map(|&f| uses(&module.functions[f]))
        .collect();
    used.sort_unstable();
    used.dedup();
    let (mut offsets, mut end, mut dynamic) = (Vec::new(), 0u32, Vec::new());
    for number in used {
        let variable = &module.variables[number];
        if variable.size == 0 {
            dynamic.push(number);
            continue;
        }
        let offset = end.next_multiple_of(variable.align.max(1));
        offsets.push((number, offset));
        end = offset + variable.size;
    }
    let align = dynamic
        .iter()
        .map(|&n| module.variables[n].align)
        .max()
        .unwrap_or(1);
    let start = end.next_multiple_of(align.max(1));
    offsets.extend(dynamic.into_iter().map(|number| (number, start)));
    (offsets, start)
}

pub(crate) fn static_shared(module: &mut Module) {
    for number in 0..module.functions.len() {
        if module.functions[number].entry {
            module.functions[number].static_shared = shared(module, number).1;
        }
    }
}
