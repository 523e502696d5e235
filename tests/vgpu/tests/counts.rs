//! All that a program asks of the card is counted, the same in every order, up to its end or to the end of a step.

mod on_card;

use std::env;
use std::ffi::{CStr, CString, c_void};
use std::fs;
use std::process::{Command, Output};
use std::ptr::null;

use on_card::{OnCard, PER_THREAD, check, event, of_environment};
use tempfile::TempDir;
use toml::{Table, Value};
use vgpu::card::CARD_VARIABLE;
use vgpu::driver::capture::cuStreamBeginCapture_v2;
use vgpu::driver::copy::*;
use vgpu::driver::counts::{COUNTS_VARIABLE, UNTIL_VARIABLE};
use vgpu::driver::event::*;
use vgpu::driver::function::cuModuleGetFunction;
use vgpu::driver::graph::*;
use vgpu::driver::launch::cuLaunchKernel;
use vgpu::driver::module::*;
use vgpu::driver::stream::cuStreamSynchronize;
use vgpu::libraries::{blas, blas_status, rand};
use vgpu::order::ORDER_VARIABLE;

const PTX: &CStr = c"
.version 7.5
.target sm_75
.address_size 64
.visible .entry adamw_f32() { ret; }
.visible .entry other() { ret; }
";

/// The things that the program below has on its card.
struct Things {
    card: OnCard,
    module: usize,
    /// One KiB.
    address: u64,
    /// Half a KiB.
    result: u64,
    blas: usize,
}

impl Things {
    fn new() -> Self {
        let card = of_environment();
        let (mut module, mut blas) = (0, 0);
        check(unsafe { cuModuleLoadData(&mut module, PTX.as_ptr()) });
        let created = unsafe { blas::cublasCreate_v2(&mut blas) };
        assert_eq!(created, blas_status::Status::SUCCESS);
        unsafe { blas::cublasSetStream_v2(blas, PER_THREAD) };
        Self {
            address: card.put(&[0; 1024]),
            result: card.alloc_async(512).unwrap(),
            card,
            module,
            blas,
        }
    }

    fn launch(&self, name: &str) {
        let (name, mut function) = (CString::new(name).unwrap(), 0);
        check(unsafe { cuModuleGetFunction(&mut function, self.module, name.as_ptr()) });
        let stream = PER_THREAD;
        let launched =
            unsafe { cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, stream, null(), null()) };
        check(launched);
    }

    fn fill(&self) {
        check(unsafe { cuMemsetD32Async(self.address, 0, 256, PER_THREAD) });
    }

    fn multiply(&self) {
        let scale = 1f32.to_le_bytes();
        let (from, to, scale) = (self.address, self.result, scale.as_ptr());
        let multiplied = unsafe {
            blas::cublasSgemm_v2(
                self.blas, 0, 0, 2, 2, 2, scale, from, 2, from, 2, scale, to, 2,
            )
        };
        assert_eq!(multiplied, blas_status::Status::SUCCESS);
    }

    fn step(&self) {
        self.fill();
        self.launch("other");
        check(unsafe { cuMemcpyDtoDAsync_v2(self.result, self.address, 512, PER_THREAD) });
        self.multiply();
        self.launch("adamw_f32");
        check(unsafe { cuStreamSynchronize(PER_THREAD) });
        self.card.get(self.address, 16);
    }

    fn graph(&self) {
        check(unsafe { cuStreamBeginCapture_v2(PER_THREAD, 1) });
        self.fill();
        self.launch("adamw_f32");
        let (mut graph, mut executable) = (0, 0);
        check(unsafe { cuStreamEndCapture(PER_THREAD, &mut graph) });
        check(unsafe { cuGraphInstantiateWithFlags(&mut executable, graph, 0) });
        for _ in 0..2 {
            check(unsafe { cuGraphLaunch(executable, PER_THREAD) });
        }
    }

    fn draw(&self) {
        let mut generator = 0;
        unsafe {
            rand::curandCreateGenerator(&mut generator, 100);
            rand::curandSetStream(generator, PER_THREAD);
            let drawn = rand::curandGenerateUniform(generator, self.address, 4);
            assert_eq!(drawn, rand::Status::SUCCESS);
        }
    }
}

extern "C" fn nothing(_: *mut c_void) {}

/// Three steps and what else there is to count, in a process of its own that leaves its context behind.
#[test]
#[ignore = "run by other tests"]
fn program() {
    let things = Things::new();
    (0..3).for_each(|_| things.step());
    things.graph();
    things.draw();
    check(unsafe { cuLaunchHostFunc(PER_THREAD, Some(nothing), 0) });
    let event = event();
    check(unsafe { cuEventRecord(event, PER_THREAD) });
    check(unsafe { cuEventSynchronize(event) });
    things.card.free(things.address);
    check(unsafe { cuModuleUnload(things.module) });
}

/// Runs the program with these variables.
fn run(variables: &[(&str, &str)]) -> Output {
    Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", "program", "--nocapture"])
        .env(CARD_VARIABLE, "tiny-64MiB")
        .env_remove(COUNTS_VARIABLE)
        .env_remove(UNTIL_VARIABLE)
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The counts of the program, and what it says.
fn counts(variables: &[(&str, &str)]) -> (Table, String) {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("counts.json");
    fs::write(&file, "x".repeat(10_000)).unwrap();
    let named = [variables, &[(COUNTS_VARIABLE, file.to_str().unwrap())]].concat();
    let output = run(&named);
    assert!(output.status.success(), "{}", words(&output));
    let text = fs::read_to_string(&file).unwrap();
    // On one line and with other signs, it is a table that TOML has.
    let line = text.replace("\": ", "\" = ").replace('\n', " ");
    let mut table: Table = format!("counts = {line}").parse().unwrap();
    match table.remove("counts") {
        Some(Value::Table(mut counts)) => {
            let wall = counts.remove("wall_seconds").unwrap();
            assert!(wall.as_float().is_some_and(|wall| wall > 0.0), "{wall}");
            (counts, words(&output))
        }
        other => panic!("{other:?} of {text}"),
    }
}

#[track_caller]
fn assert_counts(found: &Table, expected: &str) {
    let expected: Table = expected.parse().unwrap();
    for (key, expected) in &expected {
        assert_eq!(found.get(key), Some(expected), "{key}");
    }
}

const ALL: &str = r#"
contexts = 1
modules = 1
allocations = { number = 2, bytes = 1536 }
fills = { number = 5, bytes = 5120 }
kernel_launches = 8
kernel_launches_by_name = { adamw_f32 = 5, other = 3 }
products = 3
products_by_name = { cublasSgemm_v2 = 3 }
random_draws = 1
host_functions = 1
graph_launches = 2
graph_nodes = 4
[copies]
host_to_device = { number = 1, bytes = 1024 }
device_to_host = { number = 3, bytes = 48 }
device_to_device = { number = 3, bytes = 1536 }
[synchronisations]
context_synchronize = 1
event_synchronize = 1
stream_synchronize = 3
blocking_copy_host_to_device = 1
blocking_copy_device_to_host = 3
free = 1
module_unload = 1
context_release = 0
"#;

#[test]
fn everything_is_counted_and_in_every_order_the_same() {
    for order in ["eager", "late", "random:1", "random:2"] {
        let (found, said) = counts(&[(ORDER_VARIABLE, order)]);
        assert_counts(&found, ALL);
        let expected: Table = ALL.parse().unwrap();
        assert_eq!(found.len(), expected.len(), "{order}");
        assert!(!said.contains("VGPU"), "{said}");
    }
}

#[test]
fn counts_stop_with_the_kernel_that_ends_a_step() {
    let (found, said) = counts(&[(UNTIL_VARIABLE, "2")]);
    let two = r#"
        allocations = { number = 2, bytes = 1536 }
        fills = { number = 2, bytes = 2048 }
        kernel_launches_by_name = { adamw_f32 = 2, other = 2 }
        products = 2
        graph_launches = 0
        [copies]
        host_to_device = { number = 1, bytes = 1024 }
        device_to_host = { number = 1, bytes = 16 }
        device_to_device = { number = 2, bytes = 1024 }
        [synchronisations]
        context_synchronize = 1
        event_synchronize = 0
        stream_synchronize = 1
        blocking_copy_host_to_device = 1
        blocking_copy_device_to_host = 1
        free = 0
        module_unload = 0
        context_release = 0
    "#;
    assert_counts(&found, two);
    assert!(!said.contains("VGPU"), "{said}");
}

#[test]
fn counts_stop_within_a_graph_too() {
    let (found, _) = counts(&[(UNTIL_VARIABLE, "4"), (ORDER_VARIABLE, "late")]);
    let first_launch = r#"
        fills = { number = 4, bytes = 4096 }
        kernel_launches = 7
        graph_launches = 1
        graph_nodes = 2
        random_draws = 0
    "#;
    assert_counts(&found, first_launch);
}

#[test]
fn a_step_that_never_came_is_said() {
    let (found, said) = counts(&[(UNTIL_VARIABLE, "6")]);
    assert_counts(&found, ALL);
    let expected = "`VGPU_COUNTS_UNTIL` is 6, but there were 5 launches of `adamw...`";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn nothing_is_counted_that_nobody_wants() {
    assert!(run(&[(UNTIL_VARIABLE, "no number")]).status.success());
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("counts.json");
    let name = file.to_str().unwrap();
    let output = run(&[(COUNTS_VARIABLE, name), (UNTIL_VARIABLE, "0")]);
    assert!(!output.status.success() && !file.exists());
    let said = words(&output);
    assert!(said.contains("expected a number of launches, found `0`"));
    let missing = folder.path().join("no folder/counts.json");
    let output = run(&[(COUNTS_VARIABLE, missing.to_str().unwrap())]);
    assert!(output.status.success(), "the counts are no part of the run");
    let said = words(&output);
    assert!(said.contains("the counts cannot be written"), "{said}");
}
