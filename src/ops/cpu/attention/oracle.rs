//! Oracle of attention: the same function in differentiable candle operations.

use candle_core::{D, Result, Tensor};

/// Attention's output (B, T, C) of `qkv` (B, T, 3C). `factors` (B, H, T, T) are those of the weights' dropout.
pub fn attention_ref(qkv: &Tensor, heads: usize, factors: Option<&Tensor>) -> Result<Tensor> {
    let (sequences, positions, packed) = qkv.dims3()?;
    let (columns, size) = (packed / 3, packed / 3 / heads);
    let part = |i: usize| {
        qkv.narrow(2, i * columns, columns)?
            .reshape((sequences, positions, heads, size))?
            .transpose(1, 2)?
            .contiguous()
    };
    let scores = (part(0)?.matmul(&part(1)?.t()?)? * (1.0 / (size as f64).sqrt()))?;
    let hidden: Vec<u8> = (0..positions)
        .flat_map(|query| (0..positions).map(move |key| u8::from(key > query)))
        .collect();
    let hidden = Tensor::from_vec(hidden, (positions, positions), qkv.device())?
        .broadcast_as(scores.shape())?;
    let minus_infinity = Tensor::new(f64::NEG_INFINITY, qkv.device())?
        .to_dtype(qkv.dtype())?
        .broadcast_as(scores.shape())?;
    let scores = hidden.where_cond(&minus_infinity, &scores)?;
    let mut weights = candle_nn::ops::softmax(&scores, D::Minus1)?;
    if let Some(factors) = factors {
        weights = (weights * factors)?;
    }
    weights
        .matmul(&part(2)?)?
        .transpose(1, 2)?
        .reshape((sequences, positions, columns))
}
