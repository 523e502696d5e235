// compute: 75 80
// The backward of the layer norm. With g = dout * weight and n = (x - mean) * rstd:
// dx += rstd * (g - mean(g) - n * mean(g * n)), dweight += sum(dout * n), dbias += sum(dout).
//
// A block takes `block_rows` rows, all of its threads one row: a thread stays in its columns, so that the sums of
// dweight and dbias stay in its registers. They leave as the block's line of `partials`, which add_partials adds up.
#include "element.cuh"
#include "reduce.cuh"

constexpr int MOST_THREADS = 512; // src/ops/cuda/layer_norm.rs says so, too
// Rows read before the block waits for their sums.
constexpr int ROWS_AT_ONCE = 2;

// The arrays of one launch.
template <typename T> struct Backward {
    const T *dout, *x, *weight; // (R, C), (R, C), (C)
    const float *mean, *rstd;   // (R)
    T *dx;                      // (R, C)
    float *partials;            // (blocks, 2C): dweight, then dbias
    int rows, columns, block_rows;

    __device__ __forceinline__ int first_row() const { return blockIdx.x * block_rows; }
    __device__ __forceinline__ int end_row() const { return min(rows, first_row() + block_rows); }
    __device__ __forceinline__ float *partial() const { return partials + int64_t(blockIdx.x) * 2 * columns; }

    // Rows of at most N * blockDim.x columns: a thread has N of them. Every array is read once.
    template <int N> __device__ __forceinline__ void in_registers() const {
        __shared__ float memory[2][2 * ROWS_AT_ONCE][MOST_WARPS];
        const float scale = 1.0f / float(columns);
        const int column = threadIdx.x * N;
        const bool inside = column < columns;
        float w[N] = {}, dweight[N] = {}, dbias[N] = {};
        if (inside) load(weight + column, w);
        int turn = 0;
        for (int row = first_row(); row < end_row(); row += ROWS_AT_ONCE, turn ^= 1) {
            Chunk<T, N> dout_chunk[ROWS_AT_ONCE] = {}, x_chunk[ROWS_AT_ONCE] = {}, dx_chunk[ROWS_AT_ONCE] = {};
            float centre[ROWS_AT_ONCE] = {}, factor[ROWS_AT_ONCE] = {};
#pragma unroll
            for (int k = 0; k < ROWS_AT_ONCE; ++k)
                if (inside && row + k < end_row()) {
                    const int64_t at = int64_t(row + k) * columns + column;
                    dout_chunk[k] = Chunk<T, N>::load(dout + at);
                    x_chunk[k] = Chunk<T, N>::load(x + at);
                    dx_chunk[k] = Chunk<T, N>::load(dx + at);
                    centre[k] = mean[row + k], factor[k] = rstd[row + k];
                }
            float sums[2 * ROWS_AT_ONCE] = {}; // of g and g * n, by row
#pragma unroll
            for (int k = 0; k < ROWS_AT_ONCE; ++k) {
                float d[N], v[N];
                dout_chunk[k].unpack(d);
                x_chunk[k].unpack(v);
#pragma unroll
                for (int i = 0; i < N; ++i) {
                    const float n = (v[i] - centre[k]) * factor[k], g = d[i] * w[i];
                    sums[2 * k] += g;
                    sums[2 * k + 1] = fmaf(g, n, sums[2 * k + 1]);
                    dweight[i] = fmaf(d[i], n, dweight[i]);
                    dbias[i] += d[i];
                }
            }
            block_sums(sums, memory[turn]);
#pragma unroll
            for (int k = 0; k < ROWS_AT_ONCE; ++k)
                if (inside && row + k < end_row()) {
                    const float mean_g = sums[2 * k] * scale, mean_gn = sums[2 * k + 1] * scale;
                    float d[N], v[N], total[N];
                    dout_chunk[k].unpack(d);
                    x_chunk[k].unpack(v);
                    dx_chunk[k].unpack(total);
#pragma unroll
                    for (int i = 0; i < N; ++i) {
                        const float n = (v[i] - centre[k]) * factor[k];
                        total[i] = fmaf(factor[k], d[i] * w[i] - mean_g - n * mean_gn, total[i]);
                    }
                    store(dx + int64_t(row + k) * columns + column, total);
                }
        }
        if (inside) {
            store(partial() + column, dweight);
            store(partial() + columns + column, dbias);
        }
    }

    // Rows of any width and alignment: the sums stay in `partials`, where a thread has columns of its own, too.
    __device__ __forceinline__ void in_memory() const {
        __shared__ float memory[2][2][MOST_WARPS];
        const float scale = 1.0f / float(columns);
        float *const dweight = partial(), *const dbias = partial() + columns;
        int turn = 0;
        for (int row = first_row(); row < end_row(); ++row, turn ^= 1) {
            const int64_t start = int64_t(row) * columns;
            const float centre = mean[row], factor = rstd[row];
            float sums[2] = {};
            for (int c = threadIdx.x; c < columns; c += blockDim.x) {
                const float d = to_float(dout[start + c]), n = (to_float(x[start + c]) - centre) * factor;
                const float g = d * to_float(weight[c]);
                sums[0] += g;
                sums[1] = fmaf(g, n, sums[1]);
                const bool is_first = row == first_row();
                dweight[c] = fmaf(d, n, is_first ? 0.0f : dweight[c]);
                dbias[c] = d + (is_first ? 0.0f : dbias[c]);
            }
            block_sums(sums, memory[turn]);
            const float mean_g = sums[0] * scale, mean_gn = sums[1] * scale;
            for (int c = threadIdx.x; c < columns; c += blockDim.x) {
                const float n = (to_float(x[start + c]) - centre) * factor;
                const float through = to_float(dout[start + c]) * to_float(weight[c]) - mean_g - n * mean_gn;
                dx[start + c] = from_float<T>(fmaf(factor, through, to_float(dx[start + c])));
            }
        }
    }
};

#define KERNELS(SUFFIX, T)                                                                                            \
    extern "C" __global__ void __launch_bounds__(MOST_THREADS)                                                        \
        layer_norm_backward_##SUFFIX(const T *dout, const T *x, const T *weight, const float *mean,                   \
                                     const float *rstd, T *dx, float *partials, int rows, int columns,                \
                                     int block_rows) {                                                                \
        const Backward<T> backward = {dout, x, weight, mean, rstd, dx, partials, rows, columns, block_rows};          \
        if (is_wide<T>(columns, dout, x, weight, dx) && columns <= int(blockDim.x) * WIDE<T>)                         \
            backward.template in_registers<WIDE<T>>();                                                                \
        else backward.in_memory();                                                                                    \
    }
FOR_EACH_TYPE(KERNELS)
