//! Embeddings of tokens and positions.

use candle_core::{Device, Tensor};
use taper::ops::backend::{GradientWrite, rows_by_token};
use taper::ops::cpu::embedding::{self, embedding_ref};
use taper::ops::loops::Element;

use crate::common::{Kind, assert_close, noise, tokens, values, variable};
use crate::gradients;

fn check_embedding<T: Element>(b: usize, t: usize, c: usize, vocab: usize) {
    let ids = tokens(b * t, vocab, 1);
    let (wte, wpe) = (noise::<T>(vocab * c, 2), noise::<T>((t + 3) * c, 3));
    let mut out = vec![T::ZERO; b * t * c];
    embedding::forward(&ids, &wte, &wpe, &mut out, 0..t, c);
    let (wte_var, wpe_var) = (variable(&wte, &[vocab, c]), variable(&wpe, &[t + 3, c]));
    let id_tensor = Tensor::from_slice(&ids, (b, t), &Device::Cpu).unwrap();
    let want = embedding_ref(&id_tensor, &wte_var, &wpe_var).unwrap();
    assert_close("embedding", &out, &values::<T>(&want), Kind::Forward);
    let dout = noise::<T>(b * t * c, 4);
    let (mut dwte, mut dwpe) = (vec![T::ZERO; vocab * c], vec![T::of(f64::NAN); (t + 3) * c]);
    embedding::backward(
        &ids,
        &dout,
        &mut dwte,
        &mut dwpe,
        GradientWrite::Overwrite,
        t,
        c,
    );
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
    rows_by_token(&ids, &mut starts, &mut order);
    let mut want: Vec<u32> = (0..500).collect();
    want.sort_by_key(|&row| ids[row as usize]);
    assert_eq!(order, want);
}
