// compute: 75 80
// Dropout by itself, and with the residual add: (R, C) arrays, `positions` rows to a sample.
#include "chunks.cuh"
#include "dropout.cuh"

// out = dropout(x); of out itself where x is null.
template <typename T, int N>
__device__ void mask(const T *x, T *out, int rows, int columns, int positions, const Dropout &dropout) {
    for_chunks<N>(rows, columns, [&](uint64_t at, uint32_t row, uint32_t column) {
        float v[N], factor[N];
        load(x + at, v);
        MaskRow(dropout, row / positions, row % positions, columns).factors(column, factor);
#pragma unroll
        for (int i = 0; i < N; ++i) v[i] *= factor[i];
        store(out + at, v);
    });
}

// out = x + dropout(branch)
template <typename T, int N>
__device__ void residual(const T *x, const T *branch, T *out, int rows, int columns, int positions,
                         const Dropout &dropout) {
    for_chunks<N>(rows, columns, [&](uint64_t at, uint32_t row, uint32_t column) {
        float sum[N], b[N], factor[N];
        load(x + at, sum);
        load(branch + at, b);
#pragma unroll
        for (int i = 0; i < N; ++i) factor[i] = 1.0f;
        if (dropout.on) MaskRow(dropout, row / positions, row % positions, columns).factors(column, factor);
#pragma unroll
        for (int i = 0; i < N; ++i) sum[i] = fmaf(b[i], factor[i], sum[i]);
        store(out + at, sum);
    });
}

#define KERNELS(SUFFIX, T)                                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                             \
        mask_##SUFFIX(const T *x, T *out, int rows, int columns, int positions, const uint32_t *header,               \
                      DropoutRule rule) {                                                                             \
        const Dropout dropout(header, rule);                                                                          \
        if (x == nullptr) x = out;                                                                                    \
        if (is_wide<T>(columns, x, out)) mask<T, WIDE<T>>(x, out, rows, columns, positions, dropout);                 \
        else mask<T, 1>(x, out, rows, columns, positions, dropout);                                                   \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                             \
        residual_##SUFFIX(const T *x, const T *branch, T *out, int rows, int columns, int positions,                  \
                          const uint32_t *header, DropoutRule rule) {                                                 \
        const Dropout dropout(header, rule);                                                                          \
        if (is_wide<T>(columns, x, branch, out))                                                                      \
            residual<T, WIDE<T>>(x, branch, out, rows, columns, positions, dropout);                                  \
        else residual<T, 1>(x, branch, out, rows, columns, positions, dropout);                                       \
    }
FOR_EACH_TYPE(KERNELS)
