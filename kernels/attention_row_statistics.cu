// compute: 75
// What the backward needs of every query: one pass over O and dO.
#include "attention.cuh"

constexpr int THREADS = 256;
// Lanes that share a row: together they read 128 bytes at a time, with 16-byte accesses.
constexpr int LANES = 8;

// statistics (B, H, T) from lse (B, H, T), out and dout (B, T, C). A group of lanes takes one query of one head, the
// next group that query of the next head: neighbours in memory. `rows` is B T H.
template <typename T>
__device__ __forceinline__ void row_statistics(const float *lse, const T *out, const T *dout,
                                               RowStatistics *statistics, const AttentionShape &shape, int64_t rows) {
    const int64_t group = (int64_t(blockIdx.x) * THREADS + threadIdx.x) / LANES;
    const int64_t row = min(group, rows - 1); // no lane leaves before the shuffles
    const int lane = threadIdx.x % LANES, size = shape.head_size;
    const T *o = out + row * size, *d = dout + row * size;
    float dot = 0.0f;
    if (size % WIDE<T> == 0) {
        for (int c = lane * WIDE<T>; c < size; c += LANES * WIDE<T>) {
            float x[WIDE<T>], y[WIDE<T>];
            load(o + c, x);
            load(d + c, y);
#pragma unroll
            for (int i = 0; i < WIDE<T>; ++i) dot = fmaf(x[i], y[i], dot);
        }
    } else {
        for (int c = lane; c < size; c += LANES) dot = fmaf(to_float(o[c]), to_float(d[c]), dot);
    }
#pragma unroll
    for (int distance = LANES / 2; distance > 0; distance /= 2) dot += __shfl_xor_sync(~0u, dot, distance);
    if (lane != 0 || group >= rows) return;
    const int64_t position = row / shape.heads, head = row % shape.heads;
    const int64_t at = (position / shape.positions * shape.heads + head) * shape.positions + position % shape.positions;
    statistics[at] = {lse[at] * LOG2_E, dot};
}

#define ROW_STATISTICS(TYPE, T)                                                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                              \
        attention_row_statistics_##TYPE(const float *lse, const T *out, const T *dout, RowStatistics *statistics,      \
                                        const AttentionShape shape, int64_t rows) {                                    \
        row_statistics(lse, out, dout, statistics, shape, rows);                                                       \
    }
ROW_STATISTICS(f32, float)
ROW_STATISTICS(bf16, __nv_bfloat16)
ROW_STATISTICS(f16, __half)
