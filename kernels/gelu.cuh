// GELU and its slope, as in src/ops/loops/gelu.rs. Erf: x cdf(x) and cdf(x) + x pdf(x), of the standard normal.
// Tanh: x s and s + x s (1 - s) u', with u = 2 sqrt(2 / pi) (x + 0.044715 x^3) and s = sigmoid(u).
#pragma once

__device__ __forceinline__ float gelu_tanh_sigmoid(float x, float square) {
    const float u = 1.5957691216f * x * fmaf(0.044715f, square, 1.0f);
    // The fast forms err by less than 1e-6, and a memory-bound kernel has no time for the slow ones.
    return __fdividef(1.0f, 1.0f + __expf(-u));
}
__device__ __forceinline__ float gelu_tanh(float x) { return x * gelu_tanh_sigmoid(x, x * x); }
__device__ __forceinline__ float gelu_tanh_slope(float x) {
    const float square = x * x, s = gelu_tanh_sigmoid(x, square);
    const float du = 1.5957691216f * fmaf(3.0f * 0.044715f, square, 1.0f);
    return fmaf(x * s * (1.0f - s), du, s);
}
__device__ __forceinline__ float normal_cdf(float x) { return 0.5f * (1.0f + erff(x * 0.70710678119f)); }
__device__ __forceinline__ float gelu_erf(float x) { return x * normal_cdf(x); }
__device__ __forceinline__ float gelu_erf_slope(float x) {
    return fmaf(x, 0.39894228040f * __expf(-0.5f * x * x), normal_cdf(x));
}
