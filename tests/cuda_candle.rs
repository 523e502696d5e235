//! candle's own tensor operations, those that taper uses: a GPU agrees with the CPU within rounding.
//!
//! Without a GPU, run this on the virtual one:
//! `scripts/vgpu rtx3060 -- cargo test --release --features cuda --test cuda_candle`.
#![cfg(feature = "cuda")]

use candle_core::{D, DType, Device, Result, Tensor};

/// The GPU, or nothing where there is none. On the virtual card there is one.
fn gpu() -> Option<Device> {
    match Device::new_cuda(0) {
        Ok(device) => Some(device),
        Err(error) if std::env::var_os("VGPU_CARD").is_none() => {
            eprintln!("skipped, for there is no GPU ({error}): use scripts/vgpu");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// What two devices may differ by: relative to the larger of one and the expected value.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e-10,
        DType::F32 => 4e-6,
        DType::F16 => 4e-3,
        DType::BF16 => 3e-2,
        _ => 0.0,
    }
}

/// Reproducible values between -4 and 4, not all of them whole; whole and small for integers.
fn values(shape: &[usize], dtype: DType) -> Tensor {
    let count: usize = shape.iter().product();
    let value = |index: usize| {
        let mixed = (index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        let value = (mixed % 4096) as f64 / 512.0 - 4.0;
        if dtype.is_int() {
            value.abs().floor()
        } else {
            value
        }
    };
    let values: Vec<f64> = (0..count).map(value).collect();
    let values = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
    values.to_dtype(dtype).unwrap()
}

/// Runs an operation on both devices, if there are both, and compares every element.
#[track_caller]
fn agrees(name: &str, inputs: &[Tensor], operation: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let Some(device) = gpu() else { return };
    agrees_on(&device, name, inputs, operation);
}

#[track_caller]
fn agrees_on(
    device: &Device,
    name: &str,
    inputs: &[Tensor],
    operation: impl Fn(&[Tensor]) -> Result<Tensor>,
) {
    agrees_in_sums(device, name, 1, inputs, operation);
}

/// As `agrees_on`, where elements are sums of so many terms: every term may be off by a rounding, and
/// devices add in different orders.
#[track_caller]
fn agrees_in_sums(
    device: &Device,
    name: &str,
    terms: u32,
    inputs: &[Tensor],
    operation: impl Fn(&[Tensor]) -> Result<Tensor>,
) {
    let moved = inputs.iter().map(|input| input.to_device(device));
    let moved: Vec<Tensor> = moved.collect::<Result<_>>().unwrap();
    let expected = operation(inputs).unwrap_or_else(|error| panic!("{name} on the CPU: {error}"));
    let found = operation(&moved).unwrap_or_else(|error| panic!("{name} on the GPU: {error}"));
    assert_eq!(found.dims(), expected.dims(), "{name}");
    assert_eq!(found.dtype(), expected.dtype(), "{name}");
    let allowed = tolerance(expected.dtype()) * f64::from(terms);
    let (found, expected) = (host(&found), host(&expected));
    for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let same = found == expected || (found.is_nan() && expected.is_nan());
        let near = (found - expected).abs() <= allowed * expected.abs().max(1.0);
        assert!(
            same || near,
            "{name}: element {index} is {found}, not {expected}"
        );
    }
}

fn host(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor.to_device(&Device::Cpu).unwrap();
    let tensor = tensor.to_dtype(DType::F64).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

const FLOATS: [DType; 3] = [DType::F16, DType::F32, DType::F64];
const ALL: [DType; 6] = [
    DType::U8,
    DType::U32,
    DType::I64,
    DType::F16,
    DType::F32,
    DType::F64,
];

#[test]
fn tensors_come_back_from_the_gpu_as_they_went() {
    for dtype in ALL {
        agrees("move", &[values(&[3, 5, 7], dtype)], |x| Ok(x[0].clone()));
    }
}

#[test]
fn filling() {
    for dtype in ALL {
        agrees("ones", &[values(&[2, 3], dtype)], |x| x[0].ones_like());
        agrees("zeros", &[values(&[2, 3], dtype)], |x| x[0].zeros_like());
    }
    agrees("full", &[values(&[1], DType::F32)], |x| {
        Tensor::full(1.5f32, (4, 1000), x[0].device())
    });
    agrees("arange", &[values(&[1], DType::U32)], |x| {
        Tensor::arange(0u32, 100, x[0].device())
    });
}

#[test]
fn casting() {
    for from in ALL {
        for to in ALL {
            // candle has no such kernel.
            if [(DType::I64, DType::F16), (DType::F16, DType::I64)].contains(&(from, to)) {
                continue;
            }
            // A float below zero has no unsigned value.
            let x = values(&[4, 33], from)
                .abs()
                .unwrap_or_else(|_| values(&[4, 33], from));
            agrees(&format!("cast {from:?} to {to:?}"), &[x], |x| {
                x[0].to_dtype(to)
            });
        }
    }
    agrees("cast transposed", &[values(&[5, 7], DType::F32)], |x| {
        x[0].t()?.to_dtype(DType::F16)
    });
}

#[test]
fn copying() {
    for dtype in ALL {
        let x = values(&[4, 6, 5], dtype);
        agrees("transpose", std::slice::from_ref(&x), |x| {
            x[0].transpose(0, 2)?.contiguous()
        });
        agrees("permute", std::slice::from_ref(&x), |x| {
            x[0].permute((1, 2, 0))?.contiguous()
        });
        agrees("narrow", std::slice::from_ref(&x), |x| {
            x[0].narrow(1, 2, 3)?.contiguous()
        });
        agrees("broadcast", std::slice::from_ref(&x), |x| {
            x[0].narrow(1, 0, 1)?.broadcast_as((4, 6, 5))?.contiguous()
        });
        for dimension in 0..3 {
            agrees("cat", &[x.clone(), x.clone()], |x| {
                Tensor::cat(x, dimension)
            });
        }
        agrees("slice_set", &[x.clone(), values(&[4, 2, 5], dtype)], |x| {
            let target = x[0].copy()?;
            target.slice_set(&x[1], 1, 3)?;
            Ok(target)
        });
    }
}

#[test]
fn affine() {
    for dtype in FLOATS {
        let x = values(&[3, 50], dtype);
        agrees("affine", std::slice::from_ref(&x), |x| {
            x[0].affine(2.5, -1.0)
        });
        agrees("affine transposed", std::slice::from_ref(&x), |x| {
            x[0].t()?.affine(0.5, 3.0)
        });
        agrees("powf", &[x.abs().unwrap()], |x| x[0].powf(1.5));
        agrees("elu", std::slice::from_ref(&x), |x| x[0].elu(1.0));
    }
}

type Unary = fn(&Tensor) -> Result<Tensor>;

#[test]
fn unary() {
    let anywhere: [(&str, Unary); 17] = [
        ("neg", Tensor::neg),
        ("recip", Tensor::recip),
        ("exp", Tensor::exp),
        ("sin", Tensor::sin),
        ("cos", Tensor::cos),
        ("tanh", Tensor::tanh),
        ("abs", Tensor::abs),
        ("sqr", Tensor::sqr),
        ("erf", Tensor::erf),
        ("gelu", Tensor::gelu),
        ("gelu_erf", Tensor::gelu_erf),
        ("relu", Tensor::relu),
        ("silu", Tensor::silu),
        ("ceil", Tensor::ceil),
        ("floor", Tensor::floor),
        ("round", Tensor::round),
        ("sign", Tensor::sign),
    ];
    let Some(device) = gpu() else { return };
    for dtype in FLOATS {
        // No zero among them.
        let x = (values(&[7, 65], dtype) + 1.0 / 1024.0).unwrap();
        for (name, operation) in anywhere {
            let name = format!("{name} {dtype:?}");
            agrees_on(&device, &name, std::slice::from_ref(&x), |x| {
                operation(&x[0])
            });
            agrees_on(&device, &name, std::slice::from_ref(&x), |x| {
                operation(&x[0].t()?)
            });
        }
        let positive = x.abs().unwrap();
        let above_zero: [(&str, Unary); 2] = [("sqrt", Tensor::sqrt), ("log", Tensor::log)];
        for (name, operation) in above_zero {
            agrees_on(&device, name, std::slice::from_ref(&positive), |x| {
                operation(&x[0])
            });
        }
        agrees_on(&device, "sigmoid", std::slice::from_ref(&x), |x| {
            candle_nn::ops::sigmoid(&x[0])
        });
    }
}

type Binary = fn(&Tensor, &Tensor) -> Result<Tensor>;

#[test]
fn binary() {
    let Some(device) = gpu() else { return };
    let arithmetic: [(&str, Binary); 6] = [
        ("add", |a, b| a.broadcast_add(b)),
        ("sub", |a, b| a.broadcast_sub(b)),
        ("mul", |a, b| a.broadcast_mul(b)),
        ("div", |a, b| a.broadcast_div(b)),
        ("maximum", |a, b| a.broadcast_maximum(b)),
        ("minimum", |a, b| a.broadcast_minimum(b)),
    ];
    let comparisons: [(&str, Binary); 6] = [
        ("eq", |a, b| a.broadcast_eq(b)),
        ("ne", |a, b| a.broadcast_ne(b)),
        ("lt", |a, b| a.broadcast_lt(b)),
        ("le", |a, b| a.broadcast_le(b)),
        ("gt", |a, b| a.broadcast_gt(b)),
        ("ge", |a, b| a.broadcast_ge(b)),
    ];
    for dtype in ALL {
        let a = values(&[6, 35], dtype);
        let mut operations = comparisons.to_vec();
        if !dtype.is_int() {
            operations.extend(arithmetic);
        }
        for shape in [vec![6, 35], vec![1, 35], vec![6, 1]] {
            let b = a.flip(&[1]).unwrap().contiguous().unwrap();
            let b = b
                .narrow(0, 0, shape[0])
                .unwrap()
                .narrow(1, 0, shape[1])
                .unwrap();
            let b = (b.contiguous().unwrap() + 0.0).unwrap();
            for (name, operation) in &operations {
                let name = format!("{name} {dtype:?} {shape:?}");
                agrees_on(&device, &name, &[a.clone(), b.clone()], |x| {
                    operation(&x[0], &x[1])
                });
            }
        }
    }
}

#[test]
fn reducing() {
    let Some(device) = gpu() else { return };
    for dtype in FLOATS {
        let x = values(&[3, 70, 33], dtype);
        let x = std::slice::from_ref(&x);
        for dimension in 0..3 {
            let name = |what: &str| format!("{what} {dtype:?} {dimension}");
            let terms = x[0].dims()[dimension] as u32;
            agrees_in_sums(&device, &name("sum"), terms, x, |x| x[0].sum(dimension));
            agrees_on(&device, &name("mean"), x, |x| x[0].mean(dimension));
            agrees_on(&device, &name("max"), x, |x| x[0].max(dimension));
            agrees_on(&device, &name("min"), x, |x| x[0].min(dimension));
        }
        let all = x[0].elem_count() as u32;
        agrees_in_sums(&device, "sum of all", all, x, |x| x[0].sum_all());
    }
    // Values that occur once only: where equal ones are, devices may differ.
    let order: Vec<f32> = (0..300).map(|index| (index * 7 % 301) as f32).collect();
    let x = Tensor::from_vec(order, (3, 100), &Device::Cpu).unwrap();
    agrees_on(&device, "argmax", std::slice::from_ref(&x), |x| {
        x[0].argmax(D::Minus1)
    });
    agrees_on(&device, "argmin", std::slice::from_ref(&x), |x| {
        x[0].argmin(0)
    });
}

#[test]
fn normalising() {
    let Some(device) = gpu() else { return };
    // candle normalises no f64 on the CPU.
    for dtype in [DType::F16, DType::F32] {
        let x = values(&[5, 96], dtype);
        let (scale, shift) = (values(&[96], dtype), values(&[96], dtype));
        agrees_on(&device, "softmax", std::slice::from_ref(&x), |x| {
            candle_nn::ops::softmax_last_dim(&x[0])
        });
        let inputs = [x, scale, shift];
        agrees_on(&device, "layer norm", &inputs, |x| {
            candle_nn::ops::layer_norm(&x[0], &x[1], &x[2], 1e-5)
        });
        agrees_on(&device, "rms norm", &inputs, |x| {
            candle_nn::ops::rms_norm(&x[0], &x[1], 1e-5)
        });
    }
}

#[test]
fn indexing() {
    let Some(device) = gpu() else { return };
    let rows = Tensor::new(&[3u32, 0, 6, 6, 1], &Device::Cpu).unwrap();
    for dtype in FLOATS {
        let x = values(&[7, 20], dtype);
        let rows_and = [x.clone(), rows.clone()];
        agrees_on(&device, "index_select", &rows_and, |x| {
            x[0].index_select(&x[1], 0)
        });
        agrees_on(&device, "embedding", &rows_and, |x| x[0].embedding(&x[1]));
        agrees_on(&device, "index_select of columns", &rows_and, |x| {
            x[0].index_select(&x[1], 1)
        });
        let add = [x.clone(), rows.clone(), values(&[5, 20], dtype)];
        agrees_on(&device, "index_add", &add, |x| {
            x[0].index_add(&x[1], &x[2], 0)
        });
        let targets: Vec<u32> = (0..7).map(|row| row * 3 % 20).collect();
        let targets = Tensor::from_vec(targets, (7, 1), &Device::Cpu).unwrap();
        let gathered = [x.clone(), targets.clone()];
        agrees_on(&device, "gather", &gathered, |x| x[0].gather(&x[1], 1));
        let scattered = [x.clone(), targets, values(&[7, 1], dtype)];
        agrees_on(&device, "scatter_add", &scattered, |x| {
            x[0].scatter_add(&x[1], &x[2], 1)
        });
        let condition = values(&[7, 20], DType::U8).ge(2u8).unwrap();
        let chosen = [condition, x.clone(), x.neg().unwrap()];
        agrees_on(&device, "where", &chosen, |x| x[0].where_cond(&x[1], &x[2]));
    }
}

#[test]
fn multiplying() {
    let Some(device) = gpu() else { return };
    for dtype in [DType::F32, DType::F64] {
        let (m, n, k) = (17, 9, 40);
        for (turn_a, turn_b) in [(false, false), (false, true), (true, false), (true, true)] {
            let a = values(if turn_a { &[3, 40, 17] } else { &[3, 17, 40] }, dtype);
            let b = values(if turn_b { &[3, 9, 40] } else { &[3, 40, 9] }, dtype);
            let turned = |x: &Tensor, turn| {
                if turn {
                    x.transpose(1, 2)
                } else {
                    Ok(x.clone())
                }
            };
            let name = format!("{m} x {n} x {k} {dtype:?} {turn_a} {turn_b}");
            agrees_in_sums(&device, &name, k as u32, &[a, b], |x| {
                turned(&x[0], turn_a)?.matmul(&turned(&x[1], turn_b)?)
            });
        }
        let x = values(&[64, 48], dtype);
        agrees_in_sums(&device, "with itself", 48, &[x], |x| {
            x[0].matmul(&x[0].t()?)
        });
    }
    // f16 sums in f32 here; the CPU's is compared after rounding.
    let (a, b) = (values(&[8, 16], DType::F16), values(&[16, 8], DType::F16));
    agrees_in_sums(&device, "f16", 16, &[a, b], |x| x[0].matmul(&x[1]));
}

#[test]
fn random_numbers_have_their_moments() {
    let Some(device) = gpu() else { return };
    let normal = Tensor::randn(1f32, 2f32, 20_001, &device).unwrap();
    let uniform = Tensor::rand(-1f64, 3f64, 20_000, &device).unwrap();
    for (name, drawn, mean, variance) in [
        ("normal", normal, 1.0, 4.0),
        ("uniform", uniform, 1.0, 16.0 / 12.0),
    ] {
        let drawn = host(&drawn);
        let found = drawn.iter().sum::<f64>() / drawn.len() as f64;
        let squares = drawn.iter().map(|value| (value - found).powi(2));
        let spread = squares.sum::<f64>() / drawn.len() as f64;
        assert!((found - mean).abs() < 0.06, "{name}: mean {found}");
        assert!(
            (spread - variance).abs() < 0.15,
            "{name}: variance {spread}"
        );
    }
}
