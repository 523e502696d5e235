// compute: 75 80
// total (N) += the sum over rows of x (R, N), for gradients of biases. First every block sums up some rows of some
// columns into a line of `partials` (lines, N); then add_partials adds the lines, always in the same order.
#include "element.cuh"
#include "reduce.cuh"

constexpr int WARPS = 8;
// Columns of a block: 16 bytes for every lane of a warp.
template <typename T> constexpr int TILE = WARP_LANES * WIDE<T>;

// Block (tile, line): warp w takes rows w, w + WARPS, ... of the line's `line_rows`.
template <typename T, bool IS_WIDE>
__device__ __forceinline__ void column_sums(const T *x, float *partials, int rows, int columns, int line_rows) {
    constexpr int N = WIDE<T>;
    __shared__ float memory[WARPS][TILE<T>];
    const int lane = threadIdx.x % WARP_LANES, warp = threadIdx.x / WARP_LANES;
    const int tile = blockIdx.x * TILE<T>, first = blockIdx.y * line_rows;
    const int end = min(rows, first + line_rows);
    // Where the lane's i-th element is in the tile.
    const auto place = [=](int i) { return IS_WIDE ? lane * N + i : i * WARP_LANES + lane; };
    float sum[N] = {};
#pragma unroll 4
    for (int row = first + warp; row < end; row += WARPS) {
        const T *from = x + int64_t(row) * columns + tile;
        float v[N] = {};
        if constexpr (IS_WIDE) {
            if (tile + place(0) < columns) load(from + place(0), v);
        } else {
#pragma unroll
            for (int i = 0; i < N; ++i)
                if (tile + place(i) < columns) v[i] = to_float(from[place(i)]);
        }
#pragma unroll
        for (int i = 0; i < N; ++i) sum[i] += v[i];
    }
#pragma unroll
    for (int i = 0; i < N; ++i) memory[warp][place(i)] = sum[i];
    __syncthreads();
    for (int column = threadIdx.x; column < TILE<T> && tile + column < columns; column += WARPS * WARP_LANES) {
        float total = 0.0f;
#pragma unroll
        for (int other = 0; other < WARPS; ++other) total += memory[other][column];
        partials[int64_t(blockIdx.y) * columns + tile + column] = total;
    }
}

#define KERNELS(SUFFIX, T)                                                                                            \
    extern "C" __global__ void __launch_bounds__(WARPS *WARP_LANES)                                                   \
        column_sums_##SUFFIX(const T *x, float *partials, int rows, int columns, int line_rows) {                     \
        if (is_wide<T>(columns, x)) column_sums<T, true>(x, partials, rows, columns, line_rows);                      \
        else column_sums<T, false>(x, partials, rows, columns, line_rows);                                            \
    }
FOR_EACH_TYPE(KERNELS)

// first[c] += the sum over lines of partials[line][c], and second[c], if there is one, that of
// partials[line][columns + c]; `pitch` elements from line to line. A block of 32 warps takes 32 columns.
extern "C" __global__ void __launch_bounds__(1024)
    add_partials_f32(const float *partials, float *first, float *second, int lines, int pitch, int columns) {
    // One column more: what lies below each other falls into different banks.
    __shared__ float memory[WARP_LANES][WARP_LANES + 1];
    const int lane = threadIdx.x % WARP_LANES, warp = threadIdx.x / WARP_LANES;
    const int width = second ? 2 * columns : columns;
    const int from = blockIdx.x * WARP_LANES + lane;
    float sum = 0.0f;
    if (from < width) {
#pragma unroll 4
        for (int line = warp; line < lines; line += WARP_LANES) sum += partials[int64_t(line) * pitch + from];
    }
    memory[warp][lane] = sum;
    __syncthreads();
    const int column = blockIdx.x * WARP_LANES + warp;
    const float total = warp_sum(memory[lane][warp]);
    if (lane == 0 && column < width) {
        float *to = column < columns ? first + column : second + (column - columns);
        *to += total;
    }
}
