//! Runs PTX on the virtual GPU: whole programs, or one instruction on many values.
#![allow(dead_code)]

use std::sync::Arc;

use vgpu::exec::{Limits, LoadedModule, launch};
use vgpu::fault::Fault;
use vgpu::memory::Memory;
use vgpu::ptx;

/// A value that memory holds.
pub trait Plain: Copy {
    const BYTES: usize;
    fn put(self, to: &mut Vec<u8>);
    fn get(from: &[u8]) -> Self;
}

macro_rules! plain {
    ($($t:ty),*) => {$(
        impl Plain for $t {
            const BYTES: usize = size_of::<$t>();
            fn put(self, to: &mut Vec<u8>) {
                to.extend(self.to_le_bytes());
            }
            fn get(from: &[u8]) -> Self {
                <$t>::from_le_bytes(from.try_into().unwrap())
            }
        }
    )*};
}
plain!(u8, u16, u32, u64, i32, i64, f32, f64);

pub fn bytes_of<T: Plain>(values: &[T]) -> Vec<u8> {
    let mut bytes = Vec::new();
    values.iter().for_each(|value| value.put(&mut bytes));
    bytes
}

/// A module on a card with a gibibyte.
pub struct Program {
    pub memory: Memory,
    pub module: LoadedModule,
    pub limits: Limits,
}

impl Program {
    pub fn new(text: &str) -> Self {
        let memory = Memory::new(1 << 30, 0);
        let module = ptx::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let module = LoadedModule::new(Arc::new(module), &memory).unwrap();
        Self {
            memory,
            module,
            limits: Limits::default(),
        }
    }

    /// A buffer with these values.
    pub fn put<T: Plain>(&self, values: &[T]) -> u64 {
        let address = self.room::<T>(values.len());
        self.memory.copy_in(address, &bytes_of(values)).unwrap();
        address
    }

    /// A buffer that nobody has written.
    pub fn room<T: Plain>(&self, count: usize) -> u64 {
        self.memory.alloc((count * T::BYTES) as u64).unwrap()
    }

    pub fn get<T: Plain>(&self, address: u64, count: usize) -> Vec<T> {
        let mut bytes = vec![0; count * T::BYTES];
        self.memory.copy_out(address, &mut bytes).unwrap();
        bytes.chunks_exact(T::BYTES).map(T::get).collect()
    }

    /// Parameters are packed as `Function::params` says.
    pub fn launch(
        &self,
        kernel: &str,
        grid: [u32; 3],
        block: [u32; 3],
        shared: u32,
        params: &[u64],
    ) -> Result<(), Fault> {
        let values: Vec<_> = params.iter().map(|p| p.to_le_bytes().to_vec()).collect();
        self.launch_with(kernel, grid, block, shared, &values)
    }

    /// The same with parameters of any size.
    pub fn launch_with(
        &self,
        kernel: &str,
        grid: [u32; 3],
        block: [u32; 3],
        shared: u32,
        params: &[Vec<u8>],
    ) -> Result<(), Fault> {
        let function = self.module.module.function(kernel).unwrap();
        assert_eq!(function.params.len(), params.len());
        let mut buffer = vec![0; function.param_bytes as usize];
        for (param, value) in function.params.iter().zip(params) {
            let (from, size) = (param.offset as usize, param.size as usize);
            buffer[from..from + size].copy_from_slice(&value[..size]);
        }
        launch(
            &self.module,
            kernel,
            grid,
            block,
            shared,
            &buffer,
            self.memory.by_host(),
            &self.limits,
        )
    }

    pub fn run(&self, kernel: &str, grid: u32, block: u32, params: &[u64]) {
        self.launch(kernel, [grid, 1, 1], [block, 1, 1], 0, params)
            .unwrap_or_else(|fault| panic!("{fault}"));
    }
}

/// A kernel `k` with this body between the declaration of registers and `ret`.
pub fn kernel(params: &[&str], body: &str) -> String {
    kernel_for("sm_80", params, body)
}

/// The same for another target.
pub fn kernel_for(target: &str, params: &[&str], body: &str) -> String {
    let params: Vec<String> = params.iter().map(|p| format!(".param {p}")).collect();
    format!(
        ".version 9.0\n.target {target}\n.address_size 64\n.visible .entry k({})\n{{\n\
         .reg .pred %p<8>;\n.reg .b16 %h<8>;\n.reg .b32 %r<32>;\n.reg .b64 %rd<32>;\n{body}\nret;\n}}\n",
        params.join(", ")
    )
}

/// The result `%d` of `instruction` for each row of values of `%a`, `%b`, `%c`, which have these widths.
pub fn run_instruction(instruction: &str, width: u32, from: &[u32], rows: &[Vec<u64>]) -> Vec<u64> {
    let count = from.len();
    let mut body = format!(".reg .b{width} %d;\n.reg .pred %q;\n");
    let mut loads = String::new();
    for (i, (width, name)) in from.iter().zip(["a", "b", "c", "e"]).enumerate() {
        body += &format!(".reg .b{width} %{name};\n");
        loads += &format!("ld.global.b{width} %{name}, [%rd2+{}];\n", 8 * i);
    }
    body += &format!(
        "ld.param.u64 %rd1, [in];\nmov.u32 %r1, %tid.x;\nmov.u32 %r2, %ctaid.x;\nmad.lo.u32 %r1, %r2, 256, %r1;\n\
         ld.param.u32 %r3, [n];\nsetp.ge.u32 %p1, %r1, %r3;\n@%p1 bra DONE;\n\
         mad.wide.u32 %rd2, %r1, {}, %rd1;\n{loads}{instruction}\nld.param.u64 %rd3, [out];\n\
         mad.wide.u32 %rd3, %r1, 8, %rd3;\nst.global.b{width} [%rd3], %d;\nDONE:",
        8 * count
    );
    let program = Program::new(&kernel(&[".u64 out", ".u64 in", ".u32 n"], &body));
    let values: Vec<u64> = rows.iter().flatten().copied().collect();
    let input = program.put(&values);
    let output = program.put(&vec![0u64; rows.len()]);
    program.run(
        "k",
        rows.len().div_ceil(256) as u32,
        256,
        &[output, input, rows.len() as u64],
    );
    program.get(output, rows.len())
}

/// Checks `instruction` against `expected` on every combination of `values`.
pub fn check(
    instruction: &str,
    width: u32,
    from: &[u32],
    values: &[u64],
    expected: impl Fn(&[u64]) -> u64,
) {
    let rows = combinations(values, from.len());
    let results = run_instruction(instruction, width, from, &rows);
    for (row, result) in rows.iter().zip(results) {
        let wanted = expected(row) & (u64::MAX >> (64 - width));
        assert_eq!(
            result, wanted,
            "{instruction} of {row:#x?}: {result:#x}, not {wanted:#x}"
        );
    }
}

fn combinations(values: &[u64], count: usize) -> Vec<Vec<u64>> {
    (0..count).fold(vec![Vec::new()], |rows, _| {
        let extend = |row: &Vec<u64>| {
            let row = row.clone();
            values
                .iter()
                .map(move |&value| [row.clone(), vec![value]].concat())
        };
        rows.iter().flat_map(extend).collect()
    })
}
