use std::time::Instant;
use taper::config::Gelu;
use taper::memory::Memory;
use taper::model::*;
use taper::optim::OptimizerSettings;
use taper::plan::ModelDims;
use taper::rng::Seed;
use taper::schedule::Schedule;
use taper::step::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let p = |i: usize| a[i].parse::<usize>().unwrap();
    let (l, h, c, t, b, v, iters) = (p(1), p(2), p(3), p(4), p(5), p(6), p(7));
    let dims = ModelDims {
        n_layer: l,
        n_head: h,
        n_embd: c,
        block_size: t,
        vocab_size: v,
        bias: false,
        dropout: a[8].parse().unwrap(),
        gelu: Gelu::Erf,
    };
    let s = StepSettings {
        seed: Seed(1),
        sequences_per_step: b,
        optimizer: OptimizerSettings {
            weight_decay: 0.1,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            grad_clip: 1.0,
        },
        schedule: Schedule {
            learning_rate: 1e-3,
            min_lr: 1e-4,
            warmup_iters: 10,
            lr_decay_iters: 100,
            decay_lr: true,
        },
    };
    let threads = rayon::current_num_threads();
    let rows = (64 << 20) / 4 / v;
    let mut m = Memory::allocating();
    let mut tr = Trainer::<f32>::new(
        &dims,
        Sizes {
            sequences: b,
            logits_rows: rows.min(b * t),
            threads,
        },
        s,
        &mut m,
    )
    .unwrap();
    let layout = tr.layout.clone();
    init_weights(&dims, &layout, Seed(1), &mut tr.weights);
    println!("params {} mem {} MiB", layout.len, m.total_bytes() >> 20);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .unwrap();
    pool.install(|| {
        let mut times = vec![];
        for i in 0..iters {
            let t0 = Instant::now();
            let o = tr
                .step(i as u64, |n, x, y| {
                    for k in 0..x.len() {
                        x[k] = ((n as usize * 31 + k * 7 + i) % v) as u32;
                        y[k] = ((n as usize * 31 + (k + 1) * 7 + i) % v) as u32;
                    }
                    Ok(())
                })
                .unwrap();
            times.push(t0.elapsed().as_secs_f64());
            if i == iters - 1 {
                println!("loss {}", o.loss);
            }
        }
        times.sort_by(|a, b| a.partial_cmp(b).unwrap());
        println!(
            "median {:.2} ms  min {:.2} tok/s {:.0}",
            times[iters / 2] * 1e3,
            times[0] * 1e3,
            (b * t) as f64 / times[iters / 2]
        );
    });
}
