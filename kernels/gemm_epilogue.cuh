// From sums in registers to C: bias, GELU, accumulation, conversion. All arithmetic is fp32.
#pragma once
#include "gemm_arguments.cuh"

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }

template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ __nv_bfloat16 from_float(float x) { return __float2bfloat16_rn(x); }
template <> __device__ __forceinline__ __half from_float(float x) { return __float2half_rn(x); }

// V neighbours in memory, read and written by instructions as wide as there are (16 bytes).
template <typename T, int V> struct Vector {
    static constexpr int BYTES = V * int(sizeof(T));
    static_assert(BYTES <= 16 || BYTES % 16 == 0, "whole instructions of 16 bytes");
    struct alignas(BYTES < 16 ? BYTES : 16) Bits {
        T element[V];
    };

    __device__ __forceinline__ static void load(const T *from, float (&x)[V]) {
        const Bits bits = *reinterpret_cast<const Bits *>(from);
#pragma unroll
        for (int i = 0; i < V; ++i) x[i] = to_float(bits.element[i]);
    }
    __device__ __forceinline__ static void store(T *to, const float (&x)[V]) {
        Bits bits;
#pragma unroll
        for (int i = 0; i < V; ++i) bits.element[i] = from_float<T>(x[i]);
        *reinterpret_cast<Bits *>(to) = bits;
    }
};

// GELU and its slope, as in src/ops/gelu.rs. Erf: x cdf(x) and cdf(x) + x pdf(x), of the standard normal.
// Tanh: x s and s + x s (1 - s) u', with u = 2 sqrt(2 / pi) (x + 0.044715 x^3) and s = sigmoid(u).
__device__ __forceinline__ float gelu_tanh_sigmoid(float x, float square) {
    const float u = 1.5957691216f * x * fmaf(0.044715f, square, 1.0f);
    return 1.0f / (1.0f + expf(-u));
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
    return fmaf(x, 0.39894228040f * expf(-0.5f * x * x), normal_cdf(x));
}

// Elements `column` to `column` + V of a row of C, from their sums. T: type of the inputs, Out: of C.
template <typename T, typename Out, int V>
__device__ __forceinline__ void finish(const GemmArguments &p, int row, int column, float (&x)[V]) {
    const Epilogue epilogue = p.epilogue;
    float side[V];
    if (epilogue == Epilogue::Bias || epilogue == Epilogue::BiasGeluTanh || epilogue == Epilogue::BiasGeluErf) {
        Vector<T, V>::load(static_cast<const T *>(p.bias) + column, side);
#pragma unroll
        for (int i = 0; i < V; ++i) x[i] += side[i];
    }
    T *aux = static_cast<T *>(p.aux) + row * p.row_aux + column;
    if (epilogue == Epilogue::BiasGeluTanh || epilogue == Epilogue::BiasGeluErf) {
        Vector<T, V>::store(aux, x);
        const bool tanh = epilogue == Epilogue::BiasGeluTanh;
#pragma unroll
        for (int i = 0; i < V; ++i) {
            // Of what was stored: an activation that is computed again from aux has the same bits.
            const float stored = to_float(from_float<T>(x[i]));
            x[i] = tanh ? gelu_tanh(stored) : gelu_erf(stored);
        }
    } else if (epilogue == Epilogue::GeluTanhBackward || epilogue == Epilogue::GeluErfBackward) {
        Vector<T, V>::load(aux, side);
        const bool tanh = epilogue == Epilogue::GeluTanhBackward;
#pragma unroll
        for (int i = 0; i < V; ++i) x[i] *= tanh ? gelu_tanh_slope(side[i]) : gelu_erf_slope(side[i]);
    }
    Out *c = static_cast<Out *>(p.c) + row * p.row_c + column;
    if (p.accumulate) {
        Vector<Out, V>::load(c, side);
#pragma unroll
        for (int i = 0; i < V; ++i) x[i] += side[i];
    }
    Vector<Out, V>::store(c, x);
}
