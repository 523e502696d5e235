//! Matrix products: tuning, its cache, what takes over after a failure, and `taper bench gemm`.

mod bench;
mod cache;
mod cpu;
mod dispatch;
mod fake;
mod interrupted;
mod runs;
mod tune;
mod wrong;

#[path = "../process/mod.rs"]
#[allow(dead_code)]
mod process;

use taper::ops::gemm::{Epilogue, Problem};
use taper::terms::{Gelu, Inputs};

/// One of each kind that training has, with sides that no tile divides.
fn problems() -> Vec<Problem> {
    let [rows, outputs, columns] = [37, 19, 23];
    let forward = |epilogue| Problem::forward(rows, outputs, columns, Inputs::Float32, epilogue);
    let gradient =
        |epilogue| Problem::input_gradient(rows, outputs, columns, Inputs::Float32, epilogue);
    vec![
        forward(Epilogue::None),
        forward(Epilogue::Bias),
        forward(Epilogue::BiasGelu(Gelu::Tanh)),
        forward(Epilogue::BiasGelu(Gelu::Erf)),
        gradient(Epilogue::None),
        gradient(Epilogue::GeluBackward(Gelu::Tanh)),
        gradient(Epilogue::GeluBackward(Gelu::Erf)),
        Problem::weight_gradient(rows, outputs, columns, Inputs::Float32),
    ]
}

fn problem() -> Problem {
    problems()[0]
}
