// compute: 75 80
// Layer normalisation, alone and with the residual add before it. A warp takes a row.
#include "dropout.cuh"
#include "element.cuh"
#include "reduce.cuh"

constexpr int ROWS_AT_ONCE = 8; // warps of a block; src/ops/cuda/layer_norm.rs says so, too
constexpr int THREADS = ROWS_AT_ONCE * WARP_LANES;
constexpr float EPSILON = 1e-5f;
// Elements of a row that a lane keeps in registers, packed as in memory.
constexpr int HELD = 64;

// A row that is read once and then held in the registers of a warp.
template <typename T, int N> struct HeldRow {
    static constexpr int WIDTH = N;
    Chunk<T, N> chunk[HELD / N];
    T *const row;
    const int columns;

    __device__ __forceinline__ HeldRow(T *row, int columns) : row(row), columns(columns) {}
    __device__ __forceinline__ static int column(int i) { return (i * WARP_LANES + threadIdx.x % WARP_LANES) * N; }

    // Calls `body(i, column)` for the lane's chunks, `i` counting them.
    template <class Body> __device__ __forceinline__ void each_chunk(Body body) const {
#pragma unroll
        for (int i = 0; i < HELD / N; ++i)
            if (column(i) < columns) body(i, column(i));
    }
    // All loads are under way before the first is waited for.
    __device__ __forceinline__ void fetch() {
        each_chunk([&](int i, int column) { chunk[i] = Chunk<T, N>::load(row + column); });
    }
    __device__ __forceinline__ void get(int i, int, float (&x)[N]) const { chunk[i].unpack(x); }
    // In memory, too.
    __device__ __forceinline__ void set(int i, int column, const float (&x)[N]) {
        chunk[i] = Chunk<T, N>::pack(x);
        chunk[i].store(row + column);
    }
};

// A row that is too wide for that, or not aligned: it is read again, mostly out of L1.
template <typename T, int N> struct StoredRow {
    static constexpr int WIDTH = N;
    T *const row;
    const int columns;

    __device__ __forceinline__ StoredRow(T *row, int columns) : row(row), columns(columns) {}

    template <class Body> __device__ __forceinline__ void each_chunk(Body body) const {
        for (int column = threadIdx.x % WARP_LANES * N; column < columns; column += WARP_LANES * N) body(0, column);
    }
    __device__ __forceinline__ void fetch() {}
    __device__ __forceinline__ void get(int, int column, float (&x)[N]) const { load(row + column, x); }
    __device__ __forceinline__ void set(int, int column, const float (&x)[N]) { store(row + column, x); }
};

// The arrays of one launch. `bias` may be null.
template <typename T> struct LayerNorm {
    const T *weight, *bias; // (C)
    T *out;                 // (R, C)
    float *mean, *rstd;     // (R)
    int columns;

    template <class Row> __device__ __forceinline__ void normalise(const Row &x, int row) const {
        constexpr int N = Row::WIDTH;
        const float scale = 1.0f / float(columns);
        float sum = 0.0f, squares = 0.0f;
        x.each_chunk([&](int i, int column) {
            float v[N];
            x.get(i, column, v);
#pragma unroll
            for (int k = 0; k < N; ++k) sum += v[k];
        });
        const float centre = warp_sum(sum) * scale;
        x.each_chunk([&](int i, int column) {
            float v[N];
            x.get(i, column, v);
#pragma unroll
            for (int k = 0; k < N; ++k) squares = fmaf(v[k] - centre, v[k] - centre, squares);
        });
        const float factor = 1.0f / sqrtf(fmaf(warp_sum(squares), scale, EPSILON));
        T *to = out + int64_t(row) * columns;
        x.each_chunk([&](int i, int column) {
            float v[N], w[N], b[N] = {};
            x.get(i, column, v);
            load(weight + column, w);
            if (bias) load(bias + column, b);
#pragma unroll
            for (int k = 0; k < N; ++k) v[k] = fmaf((v[k] - centre) * factor, w[k], b[k]);
            store(to + column, v);
        });
        if (threadIdx.x % WARP_LANES == 0) mean[row] = centre, rstd[row] = factor;
    }
};

__device__ __forceinline__ int row_of_warp() { return blockIdx.x * ROWS_AT_ONCE + threadIdx.x / WARP_LANES; }

template <class Row, typename T> __device__ __forceinline__ void forward(T *x, const LayerNorm<T> &norm) {
    Row row(x + int64_t(row_of_warp()) * norm.columns, norm.columns);
    row.fetch();
    norm.normalise(row, row_of_warp());
}

// `after` = x + dropout(branch), of which the norm is taken as it is stored: whoever computes it again from `after`
// gets the same bits.
template <class Row, typename T>
__device__ __forceinline__ void residual_forward(T *x, T *branch, T *after, const Dropout &dropout, int positions,
                                                 const LayerNorm<T> &norm) {
    constexpr int N = Row::WIDTH;
    const int row = row_of_warp(), columns = norm.columns;
    const int64_t start = int64_t(row) * columns;
    const MaskRow mask(dropout, row / positions, row % positions, columns);
    Row x_row(x + start, columns), branch_row(branch + start, columns), sums(after + start, columns);
    x_row.fetch();
    branch_row.fetch();
    sums.each_chunk([&](int i, int column) {
        float sum[N], b[N], factor[N];
        x_row.get(i, column, sum);
        branch_row.get(i, column, b);
#pragma unroll
        for (int k = 0; k < N; ++k) factor[k] = 1.0f;
        if (dropout.on) mask.factors(column, factor);
#pragma unroll
        for (int k = 0; k < N; ++k) sum[k] = fmaf(b[k], factor[k], sum[k]);
        sums.set(i, column, sum);
    });
    norm.normalise(sums, row);
}

#define KERNELS(SUFFIX, T)                                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                             \
        layer_norm_forward_##SUFFIX(T *x, const T *weight, const T *bias, T *out, float *mean, float *rstd, int rows, \
                                    int columns) {                                                                    \
        if (row_of_warp() >= rows) return;                                                                            \
        const LayerNorm<T> norm = {weight, bias, out, mean, rstd, columns};                                           \
        if (!is_wide<T>(columns, x, weight, bias, out)) forward<StoredRow<T, 1>>(x, norm);                            \
        else if (columns > HELD * WARP_LANES) forward<StoredRow<T, WIDE<T>>>(x, norm);                                \
        else forward<HeldRow<T, WIDE<T>>>(x, norm);                                                                   \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                             \
        residual_layer_norm_forward_##SUFFIX(T *x, T *branch, T *after, const T *weight, const T *bias, T *out,        \
                                             float *mean, float *rstd, int rows, int columns, int positions,          \
                                             const uint32_t *header, DropoutRule rule) {                              \
        if (row_of_warp() >= rows) return;                                                                            \
        const LayerNorm<T> norm = {weight, bias, out, mean, rstd, columns};                                           \
        const Dropout dropout(header, rule);                                                                          \
        if (!is_wide<T>(columns, x, branch, after, weight, bias, out))                                                \
            residual_forward<StoredRow<T, 1>>(x, branch, after, dropout, positions, norm);                            \
        else if (columns > HELD * WARP_LANES)                                                                         \
            residual_forward<StoredRow<T, WIDE<T>>>(x, branch, after, dropout, positions, norm);                      \
        else residual_forward<HeldRow<T, WIDE<T>>>(x, branch, after, dropout, positions, norm);                       \
    }
FOR_EACH_TYPE(KERNELS)
