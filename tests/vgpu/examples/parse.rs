//! Says of PTX files whether the virtual GPU executes all that they hold: `cargo run -p vgpu --example parse -- *.ptx`.

use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for path in std::env::args().skip(1) {
        let started = Instant::now();
        let parsed = std::fs::read_to_string(&path).map_err(|e| e.to_string());
        match parsed.and_then(|text| vgpu::ptx::parse(&text).map_err(|e| e.to_string())) {
            Ok(module) => {
                let kernels = module.functions.iter().filter(|f| f.entry).count();
                println!(
                    "{path}: {kernels} kernels, {} ms",
                    started.elapsed().as_millis()
                );
            }
            Err(error) => {
                println!("{path}: {error}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
