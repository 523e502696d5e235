//! Modules, functions and launches, with kernels small enough to read.

mod on_card;

use std::ffi::{CString, c_void};
use std::io::Write;
use std::ptr::{null, null_mut};

use on_card::{OnCard, PER_THREAD, check, on, tiny};
use vgpu::driver::capture::cuStreamBeginCapture_v2;
use vgpu::driver::context::cuCtxSynchronize;
use vgpu::driver::function::*;
use vgpu::driver::graph::{cuGraphInstantiateWithFlags, cuGraphLaunch, cuStreamEndCapture};
use vgpu::driver::launch::*;
use vgpu::driver::module::*;
use vgpu::driver::occupancy::*;
use vgpu::driver::result::CuResult;

/// `increment(p, n)` adds one to p[i] for i < n, `misaligned(p, n)` reads a word at p + 1, `stage(p, n)` has
/// 1 KiB of its own and some dynamic shared memory, `offset` is a variable.
const PTX: &str = r#"
.version 7.5
.target sm_75
.address_size 64

.global .align 4 .u32 offset = 41;
.extern .shared .align 16 .b8 dynamic[];

.visible .entry increment(.param .u64 increment_p, .param .u32 increment_n)
{
    .reg .pred %p<2>;
    .reg .b32 %r<7>;
    .reg .b64 %rd<5>;
    ld.param.u64 %rd1, [increment_p];
    ld.param.u32 %r1, [increment_n];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p1, %r5, %r1;
    @%p1 bra DONE;
    cvta.to.global.u64 %rd2, %rd1;
    mul.wide.u32 %rd3, %r5, 4;
    add.s64 %rd4, %rd2, %rd3;
    ld.global.u32 %r6, [%rd4];
    add.s32 %r6, %r6, 1;
    st.global.u32 [%rd4], %r6;
DONE:
    ret;
}

.visible .entry misaligned(.param .u64 misaligned_p, .param .u32 misaligned_n)
{
    .reg .b32 %r<2>;
    .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [misaligned_p];
    ld.global.u32 %r1, [%rd1+1];
    st.global.u32 [%rd1], %r1;
    ret;
}

.visible .entry stage(.param .u64 stage_p, .param .u32 stage_n)
.maxntid 256, 1, 1
{
    .shared .align 4 .b8 tile[1024];
    .reg .b32 %r<3>;
    .reg .b64 %rd<3>;
    ld.param.u64 %rd1, [stage_p];
    mov.u32 %r1, 7;
    st.shared.u32 [dynamic], %r1;
    st.shared.u32 [tile], %r1;
    ld.shared.u32 %r2, [tile];
    st.global.u32 [%rd1], %r2;
    ret;
}
"#;

fn load(text: &str) -> Result<usize, CuResult> {
    let text = CString::new(text).unwrap();
    let mut module = 0;
    let result = unsafe { cuModuleLoadData(&mut module, text.as_ptr()) };
    (result == CuResult::SUCCESS)
        .then_some(module)
        .ok_or(result)
}

fn function(module: usize, name: &str) -> Result<usize, CuResult> {
    let name = CString::new(name).unwrap();
    let mut function = 0;
    let result = unsafe { cuModuleGetFunction(&mut function, module, name.as_ptr()) };
    (result == CuResult::SUCCESS)
        .then_some(function)
        .ok_or(result)
}

/// Launches a kernel that takes a pointer and a number.
fn launch(function: usize, shape: [u32; 3], pointer: u64, number: u32) -> CuResult {
    let [grid, block, shared] = shape;
    let (pointer, number): (*const u64, *const u32) = (&pointer, &number);
    let parameters: [*const c_void; 2] = [pointer.cast(), number.cast()];
    let parameters = parameters.as_ptr();
    unsafe {
        cuLaunchKernel(
            function,
            grid,
            1,
            1,
            block,
            1,
            1,
            shared,
            PER_THREAD,
            parameters,
            null(),
        )
    }
}

fn words(card: &OnCard, address: u64, count: usize) -> Vec<u32> {
    let bytes = card.get(address, count * 4);
    bytes
        .chunks(4)
        .map(|b| u32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

fn zeros(card: &OnCard, count: usize) -> u64 {
    card.put(&vec![0; count * 4])
}

#[test]
fn a_lazy_module_takes_memory_at_its_first_launch_until_it_is_unloaded() {
    let card = on("like = \"tiny-64MiB\"\nlazy_bytes = \"3MiB\"");
    let address = zeros(&card, 100);
    let before = card.free_bytes();
    let module = load(PTX).unwrap();
    let increment = function(module, "increment").unwrap();
    let loaded = card.free_bytes();
    for _ in 0..2 {
        check(launch(increment, [1, 32, 0], address, 32));
        assert_eq!(card.free_bytes(), loaded - (3 << 20));
    }
    check(unsafe { cuModuleUnload(module) });
    assert_eq!(card.free_bytes(), before);
    let increment = function(load(PTX).unwrap(), "increment").unwrap();
    card.alloc(card.free_bytes() - (2 << 20)).unwrap();
    let full = launch(increment, [1, 32, 0], address, 32);
    assert_eq!(full, CuResult::ERROR_OUT_OF_MEMORY);
    // The context lives on.
    check(unsafe { cuCtxSynchronize() });
}

#[test]
fn a_kernel_is_launched_with_its_parameters() {
    let card = tiny();
    let increment = function(load(PTX).unwrap(), "increment").unwrap();
    let address = zeros(&card, 100);
    check(launch(increment, [3, 32, 0], address, 90));
    check(launch(increment, [1, 32, 0], address, 90));
    let expected: Vec<u32> = (0..100)
        .map(|i| u32::from(i < 90) + u32::from(i < 32))
        .collect();
    assert_eq!(words(&card, address, 100), expected);
    let buffer = [null(); 1];
    let extra =
        unsafe { cuLaunchKernel(increment, 1, 1, 1, 1, 1, 1, 0, 0, null(), buffer.as_ptr()) };
    assert_eq!(extra, CuResult::ERROR_NOT_SUPPORTED);
    let none = unsafe { cuLaunchKernel(increment, 1, 1, 1, 1, 1, 1, 0, 0, null(), null()) };
    assert_eq!(none, CuResult::ERROR_INVALID_VALUE);
}

#[test]
fn a_kernel_that_faults_ends_its_context_and_is_described() {
    let cases = [
        (
            "increment",
            CuResult::ERROR_ILLEGAL_ADDRESS,
            "block (3,0,0) thread (4,0,0)",
        ),
        (
            "misaligned",
            CuResult::ERROR_MISALIGNED_ADDRESS,
            "block (0,0,0) thread (0,0,0)",
        ),
    ];
    for (name, error, place) in cases {
        let card = tiny();
        let function = function(load(PTX).unwrap(), name).unwrap();
        let address = zeros(&card, 100);
        // One block after the end of 100 words: the 101st.
        check(launch(function, [4, 32, 0], address, 128));
        assert_eq!(unsafe { cuCtxSynchronize() }, error);
        assert_eq!(launch(function, [1, 1, 0], address, 1), error);
        let fault = card.last_fault();
        assert!(
            fault.contains(&format!("kernel `{name}` PTX line")),
            "{fault}"
        );
        assert!(fault.contains(place), "{fault}");
    }
}

#[test]
fn planned_failures_of_modules_and_launches_happen() {
    let card = on("like = \"tiny-64MiB\"\nfail = [\"module=2\", \"launch=3\"]");
    let increment = function(load(PTX).unwrap(), "increment").unwrap();
    assert_eq!(load(PTX), Err(CuResult::ERROR_INVALID_PTX));
    load(PTX).unwrap();
    let address = zeros(&card, 1);
    check(launch(increment, [1, 1, 0], address, 1));
    check(launch(increment, [1, 1, 0], address, 1));
    assert_eq!(
        launch(increment, [1, 1, 0], address, 1),
        CuResult::ERROR_LAUNCH_FAILED
    );
    assert_eq!(unsafe { cuCtxSynchronize() }, CuResult::ERROR_LAUNCH_FAILED);
}

#[test]
fn modules_that_the_card_cannot_run_are_refused() {
    let card = on("like = \"t4\"\ndriver = [11, 8]");
    assert_eq!(load("not PTX"), Err(CuResult::ERROR_INVALID_PTX));
    let newer = PTX.replace(".version 7.5", ".version 8.0");
    assert_eq!(load(&newer), Err(CuResult::ERROR_UNSUPPORTED_PTX_VERSION));
    assert!(
        card.last_fault().contains("no more than 7.8"),
        "{}",
        card.last_fault()
    );
    let ampere = PTX.replace("sm_75", "sm_80");
    assert_eq!(load(&ampere), Err(CuResult::ERROR_INVALID_PTX));
    assert!(
        card.last_fault().contains("the card is sm_75"),
        "{}",
        card.last_fault()
    );
    let mut module = 0;
    for binary in [
        &b"\x7fELF\x02\x01"[..],
        &[0x50, 0xed, 0x55, 0xba, 1],
        &[0xb1, 0x43, 0x62, 0x46],
    ] {
        let loaded = unsafe { cuModuleLoadData(&mut module, binary.as_ptr().cast()) };
        assert_eq!(loaded, CuResult::ERROR_NO_BINARY_FOR_GPU);
    }
    assert_eq!(
        unsafe { cuModuleLoadData(&mut module, null()) },
        CuResult::ERROR_INVALID_VALUE
    );
    let missing = unsafe { cuModuleLoad(&mut module, c"/nowhere.ptx".as_ptr()) };
    assert_eq!(missing, CuResult::ERROR_FILE_NOT_FOUND);
}

#[test]
fn a_module_is_loaded_from_a_file_and_has_variables() {
    let card = tiny();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(PTX.as_bytes()).unwrap();
    let path = CString::new(file.path().to_str().unwrap()).unwrap();
    let before = card.free_bytes();
    let (mut module, mut address, mut bytes) = (0, 0, 0);
    check(unsafe { cuModuleLoad(&mut module, path.as_ptr()) });
    assert_eq!(card.free_bytes(), before - 512);
    check(unsafe { cuModuleGetGlobal_v2(&mut address, &mut bytes, module, c"offset".as_ptr()) });
    assert_eq!((bytes, words(&card, address, 1)), (4, vec![41]));
    let other = unsafe { cuModuleGetGlobal_v2(&mut address, null_mut(), module, c"no".as_ptr()) };
    assert_eq!(other, CuResult::ERROR_NOT_FOUND);
    let increment = function(module, "increment").unwrap();
    assert_eq!(
        function(module, "decrement"),
        Err(CuResult::ERROR_NOT_FOUND)
    );
    check(unsafe { cuModuleUnload(module) });
    assert_eq!(card.free_bytes(), before);
    assert_eq!(
        launch(increment, [1, 1, 0], 0, 0),
        CuResult::ERROR_INVALID_HANDLE
    );
    assert_eq!(
        unsafe { cuModuleUnload(module) },
        CuResult::ERROR_INVALID_HANDLE
    );
}

#[test]
fn a_function_says_what_it_uses_and_takes_as_much_shared_memory_as_it_was_given() {
    let card = on("like = \"rtx3060\"");
    let stage = function(load(PTX).unwrap(), "stage").unwrap();
    let ask = |attribute| {
        let mut value = -1;
        check(unsafe { cuFuncGetAttribute(&mut value, attribute, stage) });
        value
    };
    // Threads of a block, static shared memory, parameters, PTX version, dynamic shared memory.
    assert_eq!([0, 1, 2, 5, 8].map(ask), [256, 1024, 12, 75, 47 << 10]);
    let address = zeros(&card, 1);
    check(launch(stage, [1, 1, 47 << 10], address, 0));
    let too_much = CuResult::ERROR_INVALID_VALUE;
    assert_eq!(launch(stage, [1, 1, 48 << 10], address, 0), too_much);
    assert_eq!(unsafe { cuFuncSetAttribute(stage, 8, 99 << 10) }, too_much);
    check(unsafe { cuFuncSetAttribute(stage, 8, 98 << 10) });
    check(launch(stage, [1, 1, 98 << 10], address, 0));
    assert_eq!(words(&card, address, 1), [7]);
    // Without dynamic shared memory its first word is none.
    check(launch(stage, [1, 1, 0], address, 0));
    let fault = unsafe { cuCtxSynchronize() };
    assert_ne!(fault, CuResult::SUCCESS);
}

#[test]
fn shapes_beyond_the_cards_limits_are_refused() {
    let card = tiny();
    let module = load(PTX).unwrap();
    let (increment, stage) = (
        function(module, "increment").unwrap(),
        function(module, "stage").unwrap(),
    );
    let address = zeros(&card, 1);
    let invalid = CuResult::ERROR_INVALID_VALUE;
    for shape in [[0, 1, 0], [1, 0, 0], [1, 1025, 0], [1 << 31, 1, 0]] {
        assert_eq!(launch(increment, shape, address, 0), invalid, "{shape:?}");
    }
    assert_eq!(launch(stage, [1, 257, 4], address, 0), invalid);
    check(launch(increment, [1, 1024, 0], address, 0));
}

#[test]
fn occupancy_follows_from_the_cards_limits() {
    let _card = on("like = \"rtx3060\"");
    let module = load(PTX).unwrap();
    let increment = function(module, "increment").unwrap();
    let stage = function(module, "stage").unwrap();
    let blocks = |function, threads, dynamic| {
        let mut blocks = -1;
        let ask = cuOccupancyMaxActiveBlocksPerMultiprocessor;
        check(unsafe { ask(&mut blocks, function, threads, dynamic) });
        blocks
    };
    // By threads (1536 of an SM), by blocks (16), by shared memory (100 KiB, of which each block loses 1).
    assert_eq!(blocks(increment, 512, 0), 3);
    assert_eq!(blocks(increment, 32, 0), 16);
    assert_eq!(blocks(stage, 32, 18 << 10), 5);
    assert_eq!(blocks(stage, 512, 0), 0);
    let (mut grid, mut block) = (0, 0);
    check(unsafe {
        cuOccupancyMaxPotentialBlockSize(&mut grid, &mut block, increment, None, 0, 0)
    });
    assert_eq!((grid, block), (56, 768));
}

/// A `CUlaunchConfig` with one attribute.
#[repr(C)]
struct Config {
    shape: [u32; 7],
    stream: usize,
    attributes: *const [u64; 9],
    count: u32,
}

#[test]
fn extended_launches_take_hints_and_refuse_what_changes_meaning() {
    let card = tiny();
    let increment = function(load(PTX).unwrap(), "increment").unwrap();
    let address = zeros(&card, 1);
    let (pointer, number): (*const u64, *const u32) = (&address, &1);
    let parameters: [*const c_void; 2] = [pointer.cast(), number.cast()];
    // A priority, and a cluster.
    for (attribute, expected) in [(8, CuResult::SUCCESS), (4, CuResult::ERROR_NOT_SUPPORTED)] {
        let attributes = [attribute, 0, 0, 0, 0, 0, 0, 0, 0];
        let shape = [1, 1, 1, 1, 1, 1, 0];
        let config = Config {
            shape,
            stream: PER_THREAD,
            attributes: &attributes,
            count: 1,
        };
        let config: *const Config = &config;
        let launched =
            unsafe { cuLaunchKernelEx(config.cast(), increment, parameters.as_ptr(), null()) };
        assert_eq!(launched, expected);
    }
    assert_eq!(words(&card, address, 1), [1]);
}

#[test]
fn a_captured_kernel_runs_at_every_launch_with_the_parameters_it_was_captured_with() {
    let card = tiny();
    let increment = function(load(PTX).unwrap(), "increment").unwrap();
    let address = zeros(&card, 4);
    check(unsafe { cuStreamBeginCapture_v2(PER_THREAD, 0) });
    check(launch(increment, [1, 32, 0], address, 3));
    let (mut graph, mut executable) = (0, 0);
    check(unsafe { cuStreamEndCapture(PER_THREAD, &mut graph) });
    check(unsafe { cuGraphInstantiateWithFlags(&mut executable, graph, 0) });
    assert_eq!(words(&card, address, 4), [0; 4]);
    for _ in 0..5 {
        check(unsafe { cuGraphLaunch(executable, PER_THREAD) });
    }
    assert_eq!(words(&card, address, 4), [5, 5, 5, 0]);
}
