// From sums in registers to C: bias, GELU, accumulation, conversion. All arithmetic is fp32.
#pragma once
#include "gelu.cuh"
#include "gemm_arguments.cuh"

// Elements `column` to `column` + V of a row of C, from their sums. T: type of the inputs, Out: of C.
template <typename T, typename Out, int V>
__device__ __forceinline__ void finish(const GemmArguments &p, int row, int column, float (&x)[V]) {
    const Epilogue epilogue = p.epilogue;
    float side[V];
    if (epilogue == Epilogue::Bias || epilogue == Epilogue::BiasGeluTanh || epilogue == Epilogue::BiasGeluErf) {
        load(static_cast<const T *>(p.bias) + column, side);
#pragma unroll
        for (int i = 0; i < V; ++i) x[i] += side[i];
    }
    T *aux = static_cast<T *>(p.aux) + row * p.row_aux + column;
    if (epilogue == Epilogue::BiasGeluTanh || epilogue == Epilogue::BiasGeluErf) {
        store(aux, x);
        const bool tanh = epilogue == Epilogue::BiasGeluTanh;
#pragma unroll
        for (int i = 0; i < V; ++i) {
            // Of what was stored: an activation that is computed again from aux has the same bits.
            const float stored = to_float(from_float<T>(x[i]));
            x[i] = tanh ? gelu_tanh(stored) : gelu_erf(stored);
        }
    } else if (epilogue == Epilogue::GeluTanhBackward || epilogue == Epilogue::GeluErfBackward) {
        load(aux, side);
        const bool tanh = epilogue == Epilogue::GeluTanhBackward;
#pragma unroll
        for (int i = 0; i < V; ++i) x[i] *= tanh ? gelu_tanh_slope(side[i]) : gelu_erf_slope(side[i]);
    }
    Out *c = static_cast<Out *>(p.c) + row * p.row_c + column;
    if (p.accumulate) {
        load(c, side);
#pragma unroll
        for (int i = 0; i < V; ++i) x[i] += side[i];
    }
    store(c, x);
}
