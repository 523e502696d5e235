//! The card's memory as the host sees it: accounting, bounds, bytes never written; and variables of modules.

use std::sync::Arc;

use proptest::prelude::*;
use vgpu::exec::LoadedModule;
use vgpu::fault::What;
use vgpu::memory::{Memory, OutOfMemory};
use vgpu::ptx;

const NEVER: What = What::NeverWritten { space: "global" };

#[test]
fn memory_is_accounted_in_granules_and_exhausted_exactly() {
    let memory = Memory::new(10 * 512, 2 * 512);
    assert_eq!(memory.free_bytes(), 8 * 512);
    let a = memory.alloc(1).unwrap();
    let b = memory.alloc(513).unwrap();
    assert_eq!(memory.free_bytes(), 5 * 512);
    assert_eq!(
        memory.alloc(5 * 512 + 1),
        Err(OutOfMemory {
            needed: 6 * 512,
            free: 5 * 512
        })
    );
    let c = memory.alloc(5 * 512).unwrap();
    assert_eq!(memory.free_bytes(), 0);
    memory.free(b).unwrap();
    assert_eq!(memory.free_bytes(), 2 * 512);
    // Others take what is left, and more.
    memory.set_used_by_others(1 << 40);
    assert_eq!((memory.free_bytes(), memory.alloc(1).is_err()), (0, true));
    memory.free(a).unwrap();
    memory.free(c).unwrap();
}

#[test]
fn a_card_of_any_size_costs_the_host_only_what_is_written() {
    let memory = Memory::new(1 << 40, 0);
    // Larger than the span of addresses that an allocation has for itself.
    let large = memory.alloc(600 << 30).unwrap();
    let next = memory.alloc(16).unwrap();
    let last = large + (600 << 30) - 4;
    memory.copy_in(last, &[1, 2, 3, 4]).unwrap();
    let mut back = [0; 4];
    memory.copy_out(last, &mut back).unwrap();
    assert_eq!(
        (back, memory.allocation_of(last)),
        ([1, 2, 3, 4], Some((large, 600 << 30)))
    );
    assert!(next >= large + (600 << 30));
    let fault = memory.copy_in(last + 1, &[0; 4]).unwrap_err();
    assert!(matches!(fault.what, What::OutOfBounds { .. }), "{fault}");
}

#[test]
fn wrong_addresses_are_told_apart() {
    let freed = |bytes| What::Freed {
        bytes,
        by: "the host".into(),
    };
    let memory = Memory::new(1 << 20, 0);
    let a = memory.alloc(100).unwrap();
    assert_eq!(a % 256, 0);
    assert_eq!(memory.copy_out(a, &mut [0; 4]).unwrap_err().what, NEVER);
    assert_eq!(
        memory.copy_in(a + 98, &[0; 4]).unwrap_err().what,
        What::OutOfBounds {
            bytes: 4,
            offset: 98,
            size: 100
        }
    );
    assert_eq!(
        memory.copy_in(0, &[0]).unwrap_err().what,
        What::Unmapped { bytes: 1 }
    );
    assert_eq!(memory.free(a + 4).unwrap_err().what, What::NotAnAllocation);
    memory.free(a).unwrap();
    assert_eq!(memory.free(a).unwrap_err().what, freed(100));
    assert_eq!(memory.copy_in(a, &[0]).unwrap_err().what, freed(1));
    assert_eq!(memory.allocation_of(a), None);
}

#[test]
fn sets_and_copies_cross_pages_and_keep_what_was_never_written() {
    let memory = Memory::new(1 << 24, 0);
    let (a, b) = (
        memory.alloc(300_000).unwrap(),
        memory.alloc(300_000).unwrap(),
    );
    memory.set(a + 2, &[1, 2], 100_000).unwrap();
    memory.copy(b, a, 250_000).unwrap();
    let mut back = vec![0; 200_000];
    memory.copy_out(b + 2, &mut back).unwrap();
    assert!(back.chunks(2).all(|pair| pair == [1, 2]));
    assert_eq!(memory.copy_out(b + 1, &mut [0]).unwrap_err().what, NEVER);
    assert_eq!(
        memory.copy_out(b + 200_002, &mut [0]).unwrap_err().what,
        NEVER
    );
    // Copying from bytes that were never written takes the target's away.
    memory.copy(b, a + 200_002, 16).unwrap();
    assert_eq!(memory.copy_out(b + 8, &mut [0]).unwrap_err().what, NEVER);
}

proptest! {
    /// Against a plain array of bytes that may be missing.
    #[test]
    fn copies_agree_with_an_array(operations in prop::collection::vec((0u8..3, 0usize..200, 0usize..200, 0usize..90, any::<u8>()), 1..40)) {
        let memory = Memory::new(1 << 20, 0);
        let a = memory.alloc(300).unwrap();
        let mut model: Vec<Option<u8>> = vec![None; 300];
        for (kind, to, from, count, byte) in operations {
            match kind {
                0 => {
                    let bytes: Vec<u8> = (0..count).map(|i| byte.wrapping_add(i as u8)).collect();
                    memory.copy_in(a + to as u64, &bytes).unwrap();
                    bytes.iter().enumerate().for_each(|(i, &b)| model[to + i] = Some(b));
                }
                1 => {
                    memory.set(a + to as u64, &[byte], count as u64).unwrap();
                    model[to..to + count].fill(Some(byte));
                }
                _ => {
                    memory.copy(a + to as u64, a + from as u64, count as u64).unwrap();
                    model.copy_within(from..from + count, to);
                }
            }
        }
        for (i, byte) in model.iter().enumerate() {
            let mut back = [0];
            let read = memory.copy_out(a + i as u64, &mut back);
            prop_assert_eq!(read.ok().map(|()| back[0]), *byte);
        }
    }
}

#[test]
fn variables_are_placed_initialised_and_freed() {
    let text = ".version 9.0\n.target sm_80\n.address_size 64\n\
        .global .align 4 .u32 numbers[3] = {1, -2, 0x10};\n.const .align 4 .f32 half = 0f3F000000;\n\
        .global .align 8 .u64 pointer = generic(numbers)+4;\n.global .b8 zeros[5];\n.global .align 1 .b8 text[3] = {104, 105};\n";
    let memory = Memory::new(1 << 20, 0);
    let module = LoadedModule::new(Arc::new(ptx::parse(text).unwrap()), &memory).unwrap();
    let bytes = |name: &str| {
        let (address, size) = module.variable(name).unwrap();
        let mut bytes = vec![0; size as usize];
        memory.copy_out(address, &mut bytes).unwrap();
        bytes
    };
    assert_eq!(
        bytes("numbers"),
        [1, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 16, 0, 0, 0]
    );
    assert_eq!(bytes("half"), 0.5f32.to_le_bytes());
    assert_eq!(
        bytes("pointer"),
        (module.variable("numbers").unwrap().0 + 4).to_le_bytes()
    );
    assert_eq!(
        (bytes("zeros"), bytes("text")),
        (vec![0; 5], vec![104, 105, 0])
    );
    assert_eq!(module.variable("nothing"), None);
    module.unload(&memory).unwrap();
    assert_eq!(memory.free_bytes(), 1 << 20);
    // No room: what was placed is given back.
    let small = Memory::new(2 * 512, 0);
    assert!(LoadedModule::new(Arc::new(ptx::parse(text).unwrap()), &small).is_err());
    assert_eq!(small.free_bytes(), 2 * 512);
}
