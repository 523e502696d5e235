// compute: 75 80
// Attention of generation: rows of many sequences over cached keys and values. src/ops/cpu/attention/cached.rs is the
// definition.
//
// The cache is (slots, 2, H, T, D), keys before values; the place of a row is slot * T + position. Every warp of a block
// walks over some of the keys of one head of one row, and keeps its own maximum, sum of exponentials, and sum of values.
#include "attention.cuh"
#include "chunks.cuh"
#include "reduce.cuh"

constexpr int WARPS = 4;
constexpr int MOST_HEAD_SIZE = 128, PER_LANE = MOST_HEAD_SIZE / WARP_LANES;

// Of the keys (part 0) or values (1) of a place and head, in the cache.
__device__ __forceinline__ int64_t cached(const AttentionShape &shape, uint32_t place, int part, int head) {
    const uint32_t slot = place / shape.positions, position = place % shape.positions;
    const int64_t matrix = (int64_t(slot) * 2 + part) * shape.heads + head;
    return (matrix * shape.positions + position) * shape.head_size;
}

// Calls `body(row, part, head, element)` for all keys and values of rows.
template <class Body> __device__ __forceinline__ void for_cached(int rows, const AttentionShape &shape, Body body) {
    const int columns = shape.heads * shape.head_size;
    for_chunks<1>(rows, 2 * columns, [&](uint64_t, uint32_t row, uint32_t column) {
        const int part = column / columns, in_part = column % columns;
        body(row, part, in_part / shape.head_size, in_part % shape.head_size);
    });
}

template <typename T>
__device__ __forceinline__ void store(const T *qkv, const uint32_t *places, T *cache, int rows,
                                      const AttentionShape &shape) {
    const int columns = shape.heads * shape.head_size;
    for_cached(rows, shape, [&](int row, int part, int head, int element) {
        const int64_t from = (int64_t(row) * 3 + 1 + part) * columns + head * shape.head_size;
        cache[cached(shape, places[row], part, head) + element] = qkv[from + element];
    });
}

template <typename T>
__device__ __forceinline__ void copy(const uint32_t *from, const uint32_t *to, T *cache, int rows,
                                     const AttentionShape &shape) {
    for_cached(rows, shape, [&](int row, int part, int head, int element) {
        cache[cached(shape, to[row], part, head) + element] = cache[cached(shape, from[row], part, head) + element];
    });
}

// What a warp has of a row: the largest score, and sums of exp(score - top), alone and times the values.
struct Part {
    float top = -INFINITY, total = 0.0f, sum[PER_LANE] = {};
};

template <typename T>
__device__ __forceinline__ Part walk(const T *query, const T *keys, const T *values, int seen,
                                     const AttentionShape &shape) {
    const int warp = threadIdx.x / WARP_LANES, lane = threadIdx.x % WARP_LANES, size = shape.head_size;
    float q[PER_LANE] = {};
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i)
        if (lane + i * WARP_LANES < size) q[i] = to_float(query[lane + i * WARP_LANES]) * shape.scale;
    Part part;
    for (int64_t key = warp; key < seen; key += WARPS) {
        float score = 0.0f;
#pragma unroll
        for (int i = 0; i < PER_LANE; ++i)
            if (lane + i * WARP_LANES < size)
                score = fmaf(q[i], to_float(keys[key * size + lane + i * WARP_LANES]), score);
        score = warp_sum(score);
        const float higher = fmaxf(part.top, score);
        const float shrink = __expf(part.top - higher), weight = __expf(score - higher);
        part.top = higher;
        part.total = fmaf(part.total, shrink, weight);
#pragma unroll
        for (int i = 0; i < PER_LANE; ++i)
            if (lane + i * WARP_LANES < size)
                part.sum[i] = fmaf(weight, to_float(values[key * size + lane + i * WARP_LANES]), part.sum[i] * shrink);
    }
    return part;
}

// Grid: rows, heads.
template <typename T>
__device__ __forceinline__ void forward(const T *qkv, const uint32_t *places, const T *cache, T *out,
                                        const AttentionShape &shape) {
    __shared__ float top[WARPS], total[WARPS], sum[WARPS][MOST_HEAD_SIZE];
    const int row = blockIdx.x, head = blockIdx.y, size = shape.head_size, columns = shape.heads * size;
    const int warp = threadIdx.x / WARP_LANES, lane = threadIdx.x % WARP_LANES;
    const uint32_t place = places[row], position = place % shape.positions, first = place - position;
    const T *query = qkv + int64_t(row) * 3 * columns + head * size;
    const T *keys = cache + cached(shape, first, 0, head), *values = cache + cached(shape, first, 1, head);
    const Part part = walk(query, keys, values, position + 1, shape);
    if (lane == 0) top[warp] = part.top, total[warp] = part.total;
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i)
        if (lane + i * WARP_LANES < size) sum[warp][lane + i * WARP_LANES] = part.sum[i];
    __syncthreads();
    // The first warp has the first key, so its maximum is a number.
    float highest = top[0];
    for (int other = 1; other < WARPS; ++other) highest = fmaxf(highest, top[other]);
    for (int column = threadIdx.x; column < size; column += WARPS * WARP_LANES) {
        float weights = 0.0f, x = 0.0f;
        for (int other = 0; other < WARPS; ++other) {
            const float factor = __expf(top[other] - highest);
            weights = fmaf(total[other], factor, weights);
            x = fmaf(sum[other][column], factor, x);
        }
        out[int64_t(row) * columns + head * size + column] = from_float<T>(x / weights);
    }
}

#define KERNELS(SUFFIX, T)                                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS) attention_cache_store_##SUFFIX(                             \
        const T *qkv, const uint32_t *places, T *cache, int rows, const AttentionShape shape) {                       \
        store(qkv, places, cache, rows, shape);                                                                       \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS) attention_cache_copy_##SUFFIX(                              \
        const uint32_t *from, const uint32_t *to, T *cache, int rows, const AttentionShape shape) {                   \
        copy(from, to, cache, rows, shape);                                                                           \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(WARPS *WARP_LANES) attention_cached_##SUFFIX(                        \
        const T *qkv, const uint32_t *places, const T *cache, T *out, const AttentionShape shape) {                   \
        forward(qkv, places, cache, out, shape);                                                                      \
    }
FOR_EACH_TYPE(KERNELS)
