//! Tensor maps through the driver, and modules for one architecture alone.

mod on_card;

use std::ffi::{CString, c_void};
use std::ptr::{null, null_mut};

use on_card::{check, on};
use vgpu::driver::function::cuModuleGetFunction;
use vgpu::driver::launch::cuLaunchKernel;
use vgpu::driver::module::cuModuleLoadData;
use vgpu::driver::result::CuResult;
use vgpu::driver::tensor_map::cuTensorMapEncodeTiled;

/// A map as a program holds it.
#[repr(C, align(64))]
struct Map([u8; 128]);

const BFLOAT16: u32 = 9;
const SWIZZLE_128: u32 = 3;

/// Encodes rows of `stride` bytes, of which boxes have 64 x 8 elements.
fn encode(address: u64, stride: u64, box_dims: [u32; 2], map: &mut Map) -> CuResult {
    let (dims, strides) = ([64u64, 8], [stride]);
    unsafe {
        cuTensorMapEncodeTiled(
            &mut map.0,
            BFLOAT16,
            2,
            address as *mut c_void,
            dims.as_ptr(),
            strides.as_ptr(),
            box_dims.as_ptr(),
            [1u32, 1].as_ptr(),
            0,
            SWIZZLE_128,
            2,
            0,
        )
    }
}

/// Lane 0 copies a box in and, from there, out again.
const ROUND_TRIP: &str = "
.version 8.0
.target sm_90a
.address_size 64
.visible .entry round_trip(.param .align 64 .b8 from[128], .param .align 64 .b8 to[128])
{
    .reg .pred %p<3>;
    .reg .b64 %rd<5>;
    .reg .b32 %r<4>;
    .shared .align 1024 .b8 tile[1024];
    .shared .align 8 .b8 bar[8];
    elect.sync _|%p1, -1;
    @!%p1 bra DONE;
    mov.u32 %r1, tile;
    mov.u32 %r2, bar;
    mov.b64 %rd1, from;
    cvta.param.u64 %rd1, %rd1;
    mov.b64 %rd2, to;
    cvta.param.u64 %rd2, %rd2;
    prefetch.tensormap [%rd1];
    mbarrier.init.shared::cta.b64 [%r2], 1;
    fence.mbarrier_init.release.cluster;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], 1024;
    cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%rd1, {0, 0}], [%r2];
WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r2], 0;
    @!%p2 bra WAIT;
    cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%rd2, {0, 0}], [%r1];
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group 0;
DONE:
    ret;
}
";

fn load(text: &str) -> Result<usize, CuResult> {
    let (mut module, text) = (0, CString::new(text).unwrap());
    match unsafe { cuModuleLoadData(&mut module, text.as_ptr()) } {
        CuResult::SUCCESS => Ok(module),
        error => Err(error),
    }
}

#[test]
fn a_tensor_map_is_a_parameter_of_a_kernel() {
    let card = on("like = \"h100\"\ncontext_bytes = 0");
    let module = load(ROUND_TRIP).unwrap();
    let mut function = 0;
    check(unsafe { cuModuleGetFunction(&mut function, module, c"round_trip".as_ptr()) });
    let bytes: Vec<u8> = (0..1024u32).map(|i| (i * 7 % 251) as u8).collect();
    let (from, to) = (card.put(&bytes), card.put(&[0xee; 8 * 144]));
    let (mut map_from, mut map_to) = (Map([0; 128]), Map([0; 128]));
    check(encode(from, 128, [64, 8], &mut map_from));
    check(encode(to, 144, [64, 8], &mut map_to));
    let maps: [*const Map; 2] = [&map_from, &map_to];
    let parameters = maps.map(|map| map.cast::<c_void>());
    check(unsafe {
        cuLaunchKernel(
            function,
            1,
            1,
            1,
            32,
            1,
            1,
            0,
            0,
            parameters.as_ptr(),
            null(),
        )
    });
    let out = card.get(to, 8 * 144);
    for (row, found) in out.chunks(144).enumerate() {
        assert_eq!(found[..128], bytes[128 * row..][..128]);
        assert_eq!(found[128..], [0xee; 16]);
    }
}

#[test]
fn maps_that_a_driver_refuses_are_refused_here() {
    let card = on("like = \"h100\"");
    let mut map = Map([0; 128]);
    check(encode(1 << 40, 128, [64, 8], &mut map));
    for (address, stride, boxes) in [
        ((1 << 40) + 8, 128, [64, 8]),
        (1 << 40, 130, [64, 8]),
        (1 << 40, 128, [64, 257]),
        (1 << 40, 128, [128, 8]),
    ] {
        let result = encode(address, stride, boxes, &mut map);
        assert!(result == CuResult::ERROR_INVALID_VALUE);
        assert!(card.last_fault().contains("cuTensorMapEncodeTiled"));
    }
    let none = unsafe {
        let (nothing, no_box) = (null(), null());
        cuTensorMapEncodeTiled(
            &mut map.0,
            9,
            2,
            null_mut(),
            nothing,
            nothing,
            no_box,
            no_box,
            0,
            0,
            0,
            0,
        )
    };
    assert!(none == CuResult::ERROR_INVALID_VALUE);
}

#[test]
fn code_for_one_architecture_runs_on_that_one_alone() {
    for (name, runs) in [("h100", true), ("a100", false), ("rtx3060", false)] {
        let card = on(&format!("like = \"{name}\"\ncontext_bytes = 0"));
        assert_eq!(load(ROUND_TRIP).is_ok(), runs, "{name}");
        if !runs {
            let fault = card.last_fault();
            assert!(fault.contains("sm_90a alone"), "{fault}");
        }
    }
    let newer = on("like = \"h100\"\ncompute_capability = [10, 0]\ncontext_bytes = 0");
    assert_eq!(load(ROUND_TRIP), Err(CuResult::ERROR_INVALID_PTX));
    drop(newer);
}
