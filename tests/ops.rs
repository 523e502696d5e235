//! Every operation against its candle twin: forward, and every gradient against candle's autograd,
//! in f32 and f64, at odd shapes. And what no oracle can say: masks, and the same bits at any
//! number of threads.

mod common;

use candle_core::{Device, Tensor};
use common::{Kind, assert_close, noise, tensor, tokens, values, variable};
use taper::device::Avx512Bf16;
use taper::ops::adamw::{AdamW, adamw_ref, norm};
use taper::ops::attention::{QUERY_BLOCK, Shape, WeightDropout, Work, attention_ref};
use taper::ops::backend::Sum;
use taper::ops::cross_entropy::cross_entropy_ref;
use taper::ops::dropout::{Dropout, Site, factors};
use taper::ops::embedding::embedding_ref;
use taper::ops::gelu::gelu_ref;
use taper::ops::gemm::cpu::Sequential;
use taper::ops::gemm::{Cpu, Products};
use taper::ops::layer_norm::{layer_norm_ref, partials_len};
use taper::ops::linear::linear_ref;
use taper::ops::{Element, attention, cross_entropy, dropout, embedding, gelu, layer_norm, linear};
use taper::rng::Seed;
use taper::terms::{Gelu, Inputs};

const DROPOUT: Dropout = Dropout {
    p: 0.3,
    seed: Seed(11),
    step: 4,
    first_sample: 2,
};

/// The gradients of `sum(out * dout)` with respect to `inputs`.
fn gradients<T: Element>(out: &Tensor, dout: &[T], inputs: &[&candle_core::Var]) -> Vec<Vec<T>> {
    let dout = tensor(dout, out.dims());
    let store = (out * dout).unwrap().sum_all().unwrap().backward().unwrap();
    let of = |var: &&candle_core::Var| values(store.get(var).expect("a gradient"));
    inputs.iter().map(of).collect()
}

fn check_layer_norm<T: Element>(rows: usize, c: usize, with_bias: bool) {
    let (x, w, b) = (noise::<T>(rows * c, 1), noise::<T>(c, 2), noise::<T>(c, 3));
    let bias = with_bias.then_some(&b[..]);
    let (mut out, mut mean, mut rstd) = (
        vec![T::ZERO; rows * c],
        vec![T::ZERO; rows],
        vec![T::ZERO; rows],
    );
    let stats = layer_norm::Stats {
        mean: &mut mean,
        rstd: &mut rstd,
    };
    layer_norm::forward(&x, &w, bias, &mut out, stats);
    let (xv, wv, bv) = (
        variable(&x, &[rows, c]),
        variable(&w, &[c]),
        variable(&b, &[c]),
    );
    let want = layer_norm_ref(&xv, &wv, with_bias.then_some(bv.as_tensor())).unwrap();
    assert_close("layer_norm", &out, &values::<T>(&want), Kind::Forward);

    let dout = noise::<T>(rows * c, 4);
    // Gradients are added to what is there already.
    let (start_x, start_w) = (noise::<T>(rows * c, 5), noise::<T>(c, 6));
    let (mut dx, mut dw, mut db) = (start_x.clone(), start_w.clone(), start_w.clone());
    let saved = layer_norm::Saved {
        x: &x,
        weight: &w,
        mean: &mean,
        rstd: &rstd,
    };
    let mut partials = vec![T::of(f64::NAN); partials_len(rows, c)];
    let dbias = with_bias.then_some(&mut db[..]);
    let into = (&mut dw[..], dbias);
    layer_norm::backward(&dout, saved, &mut dx, into, Sum::Begun, &mut partials);
    let mut inputs = vec![&xv, &wv];
    if with_bias {
        inputs.push(&bv);
    }
    let want = gradients(&want, &dout, &inputs);
    let add = |a: &[T], b: &[T]| a.iter().zip(b).map(|(&a, &b)| a + b).collect::<Vec<_>>();
    assert_close("dx", &dx, &add(&start_x, &want[0]), Kind::Gradient);
    assert_close("dweight", &dw, &add(&start_w, &want[1]), Kind::Gradient);
    if with_bias {
        assert_close("dbias", &db, &add(&start_w, &want[2]), Kind::Gradient);
    }
}

#[test]
fn layer_norm_matches_its_twin() {
    for (rows, c) in [(1, 1), (3, 7), (65, 33), (100, 128), (37, 200)] {
        for with_bias in [true, false] {
            check_layer_norm::<f32>(rows, c, with_bias);
            check_layer_norm::<f64>(rows, c, with_bias);
        }
    }
}

fn check_linear<T: Element>(rows: usize, inputs: usize, outputs: usize, with_bias: bool) {
    let (x, w) = (
        noise::<T>(rows * inputs, 1),
        noise::<T>(outputs * inputs, 2),
    );
    let b = noise::<T>(outputs, 3);
    let mut y = vec![T::of(f64::NAN); rows * outputs];
    let (products, bias) = (
        Products::untuned(Cpu::default()),
        with_bias.then_some(&b[..]),
    );
    linear::forward(&products, &x, &w, bias, &mut y, inputs);
    let (xv, wv, bv) = (
        variable(&x, &[rows, inputs]),
        variable(&w, &[outputs, inputs]),
        variable(&b, &[outputs]),
    );
    let want = linear_ref(&xv, &wv, with_bias.then_some(bv.as_tensor())).unwrap();
    assert_close("linear", &y, &values::<T>(&want), Kind::Forward);

    let dy = noise::<T>(rows * outputs, 4);
    let mut dx = vec![T::of(f64::NAN); rows * inputs];
    let nothing = T::of(f64::NAN);
    let (mut dw, mut db) = (vec![nothing; outputs * inputs], vec![nothing; outputs]);
    linear::backward_input(&products, &dy, &w, &mut dx, inputs);
    // Twice: gradients accumulate.
    for sum in [Sum::Empty, Sum::Begun] {
        let into = (&mut dw[..], with_bias.then_some(&mut db[..]));
        linear::backward_weight(&products, &dy, &x, into, sum, inputs);
    }
    let mut vars = vec![&xv, &wv];
    if with_bias {
        vars.push(&bv);
    }
    let want = gradients(&want, &dy, &vars);
    let twice = |v: &[T]| v.iter().map(|&x| x + x).collect::<Vec<T>>();
    assert_close("dx", &dx, &want[0], Kind::Gradient);
    assert_close("dweight", &dw, &twice(&want[1]), Kind::Gradient);
    if with_bias {
        assert_close("dbias", &db, &twice(&want[2]), Kind::Gradient);
    }

    // The activation goes with the product, and is what it is on its own.
    for form in [Gelu::Tanh, Gelu::Erf] {
        let nan = T::of(f64::NAN);
        let (mut sum, mut activated) = (vec![nan; y.len()], vec![nan; y.len()]);
        let written = (&mut sum[..], &mut activated[..]);
        linear::forward_gelu(&products, form, &x, &w, bias, written, inputs);
        assert!(sum == y);
        let mut want = vec![nan; y.len()];
        gelu::forward(form, &y, &mut want);
        assert!(activated == want);

        let mut sloped = vec![nan; dx.len()];
        linear::backward_gelu_input(&products, form, &dy, &w, &x, &mut sloped, inputs);
        let mut want = dx.clone();
        gelu::backward(form, &x, &mut want);
        assert!(sloped == want);
    }
}

#[test]
fn linear_matches_its_twin_and_accumulates() {
    for (rows, inputs, outputs) in [(1, 1, 1), (5, 3, 7), (130, 65, 200), (67, 48, 33)] {
        for with_bias in [true, false] {
            check_linear::<f32>(rows, inputs, outputs, with_bias);
            check_linear::<f64>(rows, inputs, outputs, with_bias);
        }
    }
}

fn check_gelu<T: Element>(form: Gelu, len: usize) {
    let x: Vec<T> = noise::<T>(len, 1).iter().map(|&x| x * T::of(8.0)).collect();
    let mut out = vec![T::ZERO; len];
    gelu::forward(form, &x, &mut out);
    let xv = variable(&x, &[len]);
    let want = gelu_ref(form, &xv).unwrap();
    assert_close("gelu", &out, &values::<T>(&want), Kind::Forward);
    let mut d = noise::<T>(len, 2);
    let want = gradients(&want, &d, &[&xv]);
    gelu::backward(form, &x, &mut d);
    assert_close("dx", &d, &want[0], Kind::Gradient);
}

#[test]
fn gelu_matches_its_twin_in_both_forms() {
    for form in [Gelu::Tanh, Gelu::Erf] {
        for len in [5, 31, 40_001] {
            check_gelu::<f32>(form, len);
            check_gelu::<f64>(form, len);
        }
    }
}

fn check_embedding<T: Element>(b: usize, t: usize, c: usize, vocab: usize) {
    let ids = tokens(b * t, vocab, 1);
    let (wte, wpe) = (noise::<T>(vocab * c, 2), noise::<T>((t + 3) * c, 3));
    let mut out = vec![T::ZERO; b * t * c];
    embedding::forward(&ids, &wte, &wpe, &mut out, (0, t), c);
    let (wte_var, wpe_var) = (variable(&wte, &[vocab, c]), variable(&wpe, &[t + 3, c]));
    let id_tensor = Tensor::from_slice(&ids, (b, t), &Device::Cpu).unwrap();
    let want = embedding_ref(&id_tensor, &wte_var, &wpe_var).unwrap();
    assert_close("embedding", &out, &values::<T>(&want), Kind::Forward);
    let dout = noise::<T>(b * t * c, 4);
    let (mut dwte, mut dwpe) = (vec![T::ZERO; vocab * c], vec![T::of(f64::NAN); (t + 3) * c]);
    embedding::backward(&ids, &dout, &mut dwte, (&mut dwpe, Sum::Empty), t, c);
    let want = gradients(&want, &dout, &[&wte_var, &wpe_var]);
    assert_close("dwte", &dwte, &want[0], Kind::Gradient);
    assert_close("dwpe", &dwpe, &want[1], Kind::Gradient);
}

#[test]
fn embedding_matches_its_twin() {
    for (b, t, c, vocab) in [(1, 1, 1, 1), (3, 5, 7, 11), (2, 70, 33, 4)] {
        check_embedding::<f32>(b, t, c, vocab);
        check_embedding::<f64>(b, t, c, vocab);
    }
}

#[test]
fn rows_by_token_are_sorted_and_keep_their_order() {
    let ids = tokens(500, 23, 1);
    let (mut starts, mut order) = (vec![7; 23], vec![0; 500]);
    embedding::rows_by_token(&ids, &mut starts, &mut order);
    let mut want: Vec<u32> = (0..500).collect();
    want.sort_by_key(|&row| ids[row as usize]);
    assert_eq!(order, want);
}

fn weight_dropout(with_dropout: bool) -> Option<WeightDropout> {
    with_dropout.then_some(WeightDropout {
        dropout: DROPOUT,
        layer: 3,
    })
}

/// The gradient of attention's output that is differentiated.
fn attention_gradient<T: Element>(shape: Shape) -> Vec<T> {
    noise(
        shape.sequences * shape.positions * shape.heads * shape.head_size,
        2,
    )
}

fn packed<T: Element>(shape: Shape) -> Vec<T> {
    noise(
        3 * shape.sequences * shape.positions * shape.heads * shape.head_size,
        1,
    )
}

/// Attention of [`packed`], and its gradient.
fn attention_by<T: Element>(products: Sequential, shape: Shape, with_dropout: bool) -> [Vec<T>; 2] {
    let (b, t, h) = (shape.sequences, shape.positions, shape.heads);
    let dropout = weight_dropout(with_dropout);
    let (qkv, dout) = (packed::<T>(shape), attention_gradient::<T>(shape));
    let nan = T::of(f64::NAN);
    let (mut out, mut lse) = (vec![nan; dout.len()], vec![nan; b * h * t]);
    let mut scratch = vec![nan; shape.scratch_len(2)];
    let scratch = &mut scratch;
    let work = Work { scratch, products };
    attention::forward(&qkv, &mut out, &mut lse, shape, 0..t, dropout, work);
    scratch.fill(nan);
    let mut dqkv = vec![nan; qkv.len()];
    let saved = attention::Saved {
        qkv: &qkv,
        out: &out,
        lse: &lse,
    };
    let work = Work { scratch, products };
    attention::backward(&dout, saved, &mut dqkv, shape, dropout, work);
    [out, dqkv]
}

fn check_attention<T: Element>(shape: Shape, with_dropout: bool) {
    let (b, t, h) = (shape.sequences, shape.positions, shape.heads);
    let c = h * shape.head_size;
    let [out, dqkv] = attention_by::<T>(Sequential::default(), shape, with_dropout);
    let mask: Vec<T> = (0..b * h)
        .flat_map(|i| {
            let site = Site::Attention {
                layer: 3,
                head: i % h,
            };
            factors::<T>(DROPOUT, site, i / h, t, t)
        })
        .collect();
    let mask = with_dropout.then(|| tensor(&mask, &[b, h, t, t]));
    let qkv_var = variable(&packed::<T>(shape), &[b, t, 3 * c]);
    let want = attention_ref(&qkv_var, h, mask.as_ref()).unwrap();
    assert_close("attention", &out, &values::<T>(&want), Kind::Forward);
    let dout = attention_gradient::<T>(shape);
    let want = gradients(&want, &dout, &[&qkv_var]);
    assert_close("dqkv", &dqkv, &want[0], Kind::Gradient);
}

#[test]
fn attention_matches_its_twin_with_and_without_dropout() {
    for (sequences, positions, heads, head_size) in [
        (1, 1, 1, 1),
        (2, 5, 3, 4),
        (1, QUERY_BLOCK, 2, 16),
        (2, QUERY_BLOCK + 1, 1, 5),
        (1, 2 * QUERY_BLOCK + 37, 2, 24),
        (1, 10 * QUERY_BLOCK - 3, 1, 8),
    ] {
        let shape = Shape {
            sequences,
            positions,
            heads,
            head_size,
        };
        for with_dropout in [false, true] {
            check_attention::<f32>(shape, with_dropout);
            check_attention::<f64>(shape, with_dropout);
        }
    }
}

/// Of values below 1, rounded to 8 bits before they are multiplied.
#[test]
fn attention_in_bfloat16_is_that_in_float32_but_for_its_rounding() {
    if Avx512Bf16::probe().is_none() {
        eprintln!("skipped: this CPU does not multiply in bf16");
        return;
    }
    let in_bfloat16 = Products::<f32>::untuned(Cpu::new(Inputs::Float32AsBfloat16)).sequential();
    for (positions, head_size) in [(QUERY_BLOCK + 1, 5), (600, 24), (1000, 64)] {
        let shape = Shape {
            sequences: 1,
            positions,
            heads: 2,
            head_size,
        };
        for with_dropout in [false, true] {
            let [want, want_gradient] = attention_by(Sequential::default(), shape, with_dropout);
            let [got, gradient] = attention_by(in_bfloat16, shape, with_dropout);
            for (got, want) in [(got, want), (gradient, want_gradient)] {
                let error = relative_error(&got, &want);
                assert!((1e-4..1e-2).contains(&error), "{shape:?}: {error:e}");
            }
        }
    }
}

/// Of the norms of vectors.
fn relative_error(got: &[f32], want: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x).powi(2);
    let errors = got.iter().zip(want).map(|(got, want)| square(got - want));
    let norm: f64 = want.iter().map(|&want| square(want)).sum();
    (errors.sum::<f64>() / norm).sqrt()
}

#[test]
fn attention_of_one_new_query_equals_that_row_of_the_whole() {
    let shape = Shape {
        sequences: 1,
        positions: 70,
        heads: 2,
        head_size: 8,
    };
    let qkv = noise::<f32>(70 * 48, 1);
    let mut scratch = vec![0.0; shape.scratch_len(1)];
    let mut whole = (vec![0.0; 70 * 16], vec![0.0; 140]);
    let mut last = whole.clone();
    let (out, lse) = (&mut whole.0, &mut whole.1);
    attention::forward(
        &qkv,
        out,
        lse,
        shape,
        0..70,
        None,
        Work {
            scratch: &mut scratch,
            products: Sequential::default(),
        },
    );
    let (out, lse) = (&mut last.0, &mut last.1);
    attention::forward(
        &qkv,
        out,
        lse,
        shape,
        69..70,
        None,
        Work {
            scratch: &mut scratch,
            products: Sequential::default(),
        },
    );
    assert_close(
        "row",
        &last.0[69 * 16..],
        &whole.0[69 * 16..],
        Kind::Forward,
    );
}

fn check_cross_entropy<T: Element>(rows: usize, vocab: usize) {
    let logits = noise::<T>(rows * vocab, 1);
    let targets = tokens(rows, vocab, 3);
    let nan = T::of(f64::NAN);
    let (mut evaluated, mut losses) = (vec![nan; rows], vec![nan; rows]);
    cross_entropy::losses(&mut logits.clone(), &targets, &mut evaluated);
    let (mut gradient, scale) = (logits.clone(), T::of(0.25));
    cross_entropy::losses_and_gradients(&mut gradient, &targets, scale, &mut losses);

    let variable = variable(&logits, &[rows, vocab]);
    let targets = Tensor::from_slice(&targets, rows, &Device::Cpu).unwrap();
    let want = cross_entropy_ref(&variable, &targets).unwrap();
    assert_eq!(evaluated, losses, "evaluation and training agree");
    assert_close("loss", &losses, &values::<T>(&want), Kind::Forward);
    let want = gradients(&want, &vec![scale; rows], &[&variable]);
    assert_close("gradient", &gradient, &want[0], Kind::Gradient);
}

#[test]
fn cross_entropy_matches_its_twin() {
    for (rows, vocab) in [(1, 2), (10, 65), (70, 257), (65, 50)] {
        check_cross_entropy::<f32>(rows, vocab);
        check_cross_entropy::<f64>(rows, vocab);
    }
}

fn check_adamw<T: Element>(len: usize) {
    let settings = AdamW {
        learning_rate: 1e-2,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        update: 3,
        gradient_scale: 0.7,
    };
    let positive = |v: Vec<T>| v.iter().map(|&x| x * x).collect::<Vec<T>>();
    let (mut w, mut m, mut v) = (noise(len, 1), noise(len, 2), positive(noise(len, 3)));
    let g = noise::<T>(len, 4);
    let state = [&w, &m, &v, &g].map(|x| tensor::<T>(x, &[len]));
    let want = adamw_ref(&settings, state.each_ref()).unwrap();
    settings.update(&mut w, &mut m, &mut v, &g);
    for (what, got, want) in [
        ("w", &w, &want[0]),
        ("m", &m, &want[1]),
        ("v", &v, &want[2]),
    ] {
        assert_close::<T>(what, got, &values(want), Kind::Forward);
    }
}

#[test]
fn adamw_matches_its_twin() {
    for len in [1, 33, 50_000] {
        check_adamw::<f32>(len);
        check_adamw::<f64>(len);
    }
}

#[test]
fn norm_is_the_root_of_the_sum_of_squares() {
    let gradients = vec![0.5f32; 40_000];
    assert!((norm(&gradients) - 100.0).abs() < 1e-9);
    assert!(norm(&[f32::NAN, 1.0]).is_nan());
}

#[test]
fn dropout_keeps_the_asked_for_fraction_and_scales_it() {
    let mask = factors::<f64>(DROPOUT, Site::Embedding, 0, 100, 1000);
    let kept = mask.iter().filter(|&&x| x > 0.0).count() as f64 / mask.len() as f64;
    assert!((kept - 0.7).abs() < 0.005, "kept {kept}");
    assert!(
        mask.iter()
            .all(|&x| x == 0.0 || (x - 1.0 / 0.7).abs() < 1e-12)
    );
}

#[test]
fn dropout_of_a_sequence_does_not_depend_on_its_place_in_the_micro_batch() {
    let (t, c) = (6, 130);
    let branch = noise::<f32>(4 * t * c, 1);
    let x = vec![0f32; 4 * t * c];
    let run = |first: usize, count: usize| {
        let range = first * t * c..(first + count) * t * c;
        let mut out = vec![0f32; count * t * c];
        let dropout = Dropout {
            first_sample: first as u32,
            ..DROPOUT
        };
        let site = Site::MlpOutput { layer: 1 };
        let (x, branch) = (&x[range.clone()], &branch[range]);
        dropout::residual_forward(x, branch, &mut out, c, t, Some((dropout, site)));
        out
    };
    let whole = run(0, 4);
    let halves = [run(0, 2), run(2, 2)].concat();
    assert_eq!(whole, halves);
    let other_step = Dropout { step: 5, ..DROPOUT };
    let site = Site::MlpOutput { layer: 1 };
    assert_ne!(
        factors::<f32>(DROPOUT, site, 0, t, c),
        factors::<f32>(other_step, site, 0, t, c)
    );
}

#[test]
fn rows_of_a_mask_and_sites_never_share_random_numbers() {
    let t = 61;
    let site = |head| Site::Attention { layer: 0, head };
    let rows = factors::<f32>(DROPOUT, site(0), 0, t, t);
    let mut seen: Vec<&[f32]> = rows.chunks_exact(t).collect();
    let other = factors::<f32>(DROPOUT, site(1), 0, t, t);
    seen.extend(other.chunks_exact(t));
    for (i, a) in seen.iter().enumerate() {
        assert!(seen[..i].iter().all(|b| b != a), "row {i} repeats another");
    }
}
