// compute: 75
// Attention on plain CUDA cores, for any head size up to 128 and any type: the path of fp32, and what the kernels on
// tensor cores are held against on the device.
//
// A block of 16 x 16 threads keeps a tile of rows (queries; keys in the backward of keys and values) and walks over
// tiles of the other side. Thread (y, x) has rows y, y + 16, ... and columns x, x + 16, ... of whatever is computed: a
// row's threads are half a warp, so rows are reduced by shuffles and need no barrier.
#include "attention.cuh"

constexpr int SIDE = 16, THREADS = SIDE * SIDE;

// A tile's rows of one operand as fp32, zero outside of the matrix. The pitch is odd: a column's elements lie in
// different banks.
template <int TILE, int WIDTH> struct Operand {
    float at[TILE][WIDTH + 1];

    template <typename T>
    __device__ void fill(const T *from, int64_t stride, int first, const AttentionShape &shape) {
        for (int e = threadIdx.x; e < TILE * WIDTH; e += THREADS) {
            const int row = first + e / WIDTH, column = e % WIDTH;
            const bool inside = row < shape.positions && column < shape.head_size;
            at[e / WIDTH][column] = inside ? to_float(from[row * stride + column]) : 0.0f;
        }
    }
};

template <typename T, int TILE_, int WIDTH_> struct SimpleBlock {
    static constexpr int TILE = TILE_, WIDTH = WIDTH_;
    static constexpr int PER_SIDE = TILE / SIDE, PER_WIDTH = WIDTH / SIDE;
    using Rows = Operand<TILE, WIDTH>;
    using Weights = Operand<TILE, TILE>;
    using Scores = float[PER_SIDE][PER_SIDE];
    using Sums = float[PER_SIDE][PER_WIDTH];

    const AttentionShape &shape;
    const int first; // of this block's rows
    const int x = threadIdx.x % SIDE, y = threadIdx.x / SIDE;

    // to = a b^T, of two operands in shared memory.
    __device__ void multiply(Scores &to, const Rows &a, const Rows &b) const {
#pragma unroll
        for (int i = 0; i < PER_SIDE; ++i)
#pragma unroll
            for (int j = 0; j < PER_SIDE; ++j) to[i][j] = 0.0f;
        for (int c = 0; c < WIDTH; ++c)
#pragma unroll
            for (int i = 0; i < PER_SIDE; ++i)
#pragma unroll
                for (int j = 0; j < PER_SIDE; ++j)
                    to[i][j] = fmaf(a.at[y + SIDE * i][c], b.at[x + SIDE * j][c], to[i][j]);
    }
    // to += weights b. `weights` is this block's scratch: what a row's threads put there, they alone read.
    __device__ void accumulate(Sums &to, Weights &scratch, const Scores &weights, const Rows &b) const {
        __syncwarp();
#pragma unroll
        for (int i = 0; i < PER_SIDE; ++i)
#pragma unroll
            for (int j = 0; j < PER_SIDE; ++j) scratch.at[y + SIDE * i][x + SIDE * j] = weights[i][j];
        __syncwarp();
        for (int k = 0; k < TILE; ++k)
#pragma unroll
            for (int i = 0; i < PER_SIDE; ++i)
#pragma unroll
                for (int c = 0; c < PER_WIDTH; ++c)
                    to[i][c] = fmaf(scratch.at[y + SIDE * i][k], b.at[k][x + SIDE * c], to[i][c]);
    }
    __device__ void store(T *to, int64_t stride, const Sums &sums, const float (&factor)[PER_SIDE]) const {
#pragma unroll
        for (int i = 0; i < PER_SIDE; ++i)
#pragma unroll
            for (int c = 0; c < PER_WIDTH; ++c) {
                const int row = first + y + SIDE * i, column = x + SIDE * c;
                if (row < shape.positions && column < shape.head_size)
                    to[row * stride + column] = from_float<T>(sums[i][c] * factor[i]);
            }
    }
};

// The factor of one weight, one draw for each of them.
__device__ float dropout_factor(const Dropout &dropout, const Head &head, int query, int key) {
    float factor[1] = {1.0f};
    if (dropout.on) head.mask(dropout, query).factors(key, factor);
    return factor[0];
}

template <class Block, typename T>
__device__ void forward(const T *qkv, T *out, float *lse, const AttentionShape &shape, const Dropout &dropout) {
    constexpr int TILE = Block::TILE, PER_SIDE = Block::PER_SIDE, PER_WIDTH = Block::PER_WIDTH;
    __shared__ typename Block::Rows q, k, v;
    __shared__ typename Block::Weights scratch;
    // From the last queries on: a grid of fewer blocks computes those alone.
    const Block block{shape, ((shape.positions - 1) / TILE - int(blockIdx.x)) * TILE};
    const Head head{shape};
    const int64_t stride = head.packed_stride();
    q.fill(qkv + head.packed(0), stride, block.first, shape);
    typename Block::Sums sums = {};
    float top[PER_SIDE], total[PER_SIDE] = {}; // of a row: the largest score so far, the sum of exponentials
#pragma unroll
    for (int i = 0; i < PER_SIDE; ++i) top[i] = -INFINITY;
    // Every row sees key 0, so `top` is a number from the first tile on.
    for (int first = 0; first <= block.first; first += TILE) {
        __syncthreads();
        k.fill(qkv + head.packed(1), stride, first, shape);
        v.fill(qkv + head.packed(2), stride, first, shape);
        __syncthreads();
        typename Block::Scores s;
        block.multiply(s, q, k);
#pragma unroll
        for (int i = 0; i < PER_SIDE; ++i) {
            const int query = block.first + block.y + SIDE * i;
            float new_top = top[i];
#pragma unroll
            for (int j = 0; j < PER_SIDE; ++j) {
                const int key = first + block.x + SIDE * j;
                if (key > query) s[i][j] = -INFINITY;
                new_top = fmaxf(new_top, s[i][j] * shape.scale);
            }
#pragma unroll
            for (int distance = SIDE / 2; distance > 0; distance /= 2)
                new_top = fmaxf(new_top, __shfl_xor_sync(~0u, new_top, distance));
            const float shrink = expf(top[i] - new_top);
            top[i] = new_top;
            total[i] *= shrink;
#pragma unroll
            for (int c = 0; c < PER_WIDTH; ++c) sums[i][c] *= shrink;
#pragma unroll
            for (int j = 0; j < PER_SIDE; ++j) {
                // One rounding; that of `new_top` is the whole row's, and leaves no trace in its weights.
                s[i][j] = expf(fmaf(s[i][j], shape.scale, -new_top));
                total[i] += s[i][j];
                s[i][j] *= dropout_factor(dropout, head, query, first + block.x + SIDE * j);
            }
        }
        block.accumulate(sums, scratch, s, v);
    }
    float inverse[PER_SIDE];
#pragma unroll
    for (int i = 0; i < PER_SIDE; ++i) {
#pragma unroll
        for (int distance = SIDE / 2; distance > 0; distance /= 2)
            total[i] += __shfl_xor_sync(~0u, total[i], distance);
        inverse[i] = 1.0f / total[i];
        const int query = block.first + block.y + SIDE * i;
        if (block.x == 0 && query < shape.positions) lse[head.scalars() + query] = top[i] + logf(total[i]);
    }
    block.store(out + head.rows(), head.columns(), sums, inverse);
}

// Turns the scores of one pair into P', and its dP' into dS, without the scale of S, which the sums get at the end.
__device__ void differentiate(float &weight, float &gradient, int query, int key, const RowStatistics &row,
                              float factor, float scale) {
    const float p = key <= query ? exp2f(fmaf(weight, scale * LOG2_E, -row.lse2)) : 0.0f;
    gradient = p * (gradient * factor - row.dot);
    weight = p * factor;
}

// A query beyond the last has no statistics, and no dO: whatever its weights are, they add zero.
__device__ RowStatistics statistics_of(const RowStatistics *statistics, int query, int positions) {
    return query < positions ? statistics[query] : RowStatistics{0.0f, 0.0f};
}

// dK = scale dS^T Q and dV = P'^T dO: a block has keys for rows and walks over the queries that see them.
template <class Block, typename T>
__device__ void backward_keys(const T *qkv, const T *dout, const RowStatistics *statistics, T *dqkv,
                              const AttentionShape &shape, const Dropout &dropout) {
    constexpr int TILE = Block::TILE, PER_SIDE = Block::PER_SIDE;
    __shared__ typename Block::Rows q, k, v, d;
    __shared__ typename Block::Weights scratch;
    const Block block{shape, int(blockIdx.x) * TILE};
    const Head head{shape};
    const int64_t stride = head.packed_stride();
    k.fill(qkv + head.packed(1), stride, block.first, shape);
    v.fill(qkv + head.packed(2), stride, block.first, shape);
    typename Block::Sums dk = {}, dv = {};
    for (int first = block.first; first < shape.positions; first += TILE) {
        __syncthreads();
        q.fill(qkv + head.packed(0), stride, first, shape);
        d.fill(dout + head.rows(), head.columns(), first, shape);
        __syncthreads();
        typename Block::Scores p, ds;
        block.multiply(p, k, q);
        block.multiply(ds, v, d);
#pragma unroll
        for (int j = 0; j < PER_SIDE; ++j) {
            const int query = first + block.x + SIDE * j;
            const RowStatistics row = statistics_of(statistics + head.scalars(), query, shape.positions);
#pragma unroll
            for (int i = 0; i < PER_SIDE; ++i) {
                const int key = block.first + block.y + SIDE * i;
                const float factor = dropout_factor(dropout, head, query, key);
                differentiate(p[i][j], ds[i][j], query, key, row, factor, shape.scale);
            }
        }
        block.accumulate(dv, scratch, p, d);
        block.accumulate(dk, scratch, ds, q);
    }
    float one[PER_SIDE], scale[PER_SIDE];
#pragma unroll
    for (int i = 0; i < PER_SIDE; ++i) one[i] = 1.0f, scale[i] = shape.scale;
    block.store(dqkv + head.packed(1), stride, dk, scale);
    block.store(dqkv + head.packed(2), stride, dv, one);
}

// dQ = scale dS K: a block has queries for rows and walks over the keys that they see.
template <class Block, typename T>
__device__ void backward_queries(const T *qkv, const T *dout, const RowStatistics *statistics, T *dqkv,
                                 const AttentionShape &shape, const Dropout &dropout) {
    constexpr int TILE = Block::TILE, PER_SIDE = Block::PER_SIDE;
    __shared__ typename Block::Rows q, k, v, d;
    __shared__ typename Block::Weights scratch;
    const Block block{shape, int(blockIdx.x) * TILE};
    const Head head{shape};
    const int64_t stride = head.packed_stride();
    q.fill(qkv + head.packed(0), stride, block.first, shape);
    d.fill(dout + head.rows(), head.columns(), block.first, shape);
    typename Block::Sums dq = {};
    for (int first = 0; first <= block.first; first += TILE) {
        __syncthreads();
        k.fill(qkv + head.packed(1), stride, first, shape);
        v.fill(qkv + head.packed(2), stride, first, shape);
        __syncthreads();
        typename Block::Scores p, ds;
        block.multiply(p, q, k);
        block.multiply(ds, d, v);
#pragma unroll
        for (int i = 0; i < PER_SIDE; ++i) {
            const int query = block.first + block.y + SIDE * i;
            const RowStatistics row = statistics_of(statistics + head.scalars(), query, shape.positions);
#pragma unroll
            for (int j = 0; j < PER_SIDE; ++j) {
                const int key = first + block.x + SIDE * j;
                const float factor = dropout_factor(dropout, head, query, key);
                differentiate(p[i][j], ds[i][j], query, key, row, factor, shape.scale);
            }
        }
        block.accumulate(dq, scratch, ds, k);
    }
    float scale[PER_SIDE];
#pragma unroll
    for (int i = 0; i < PER_SIDE; ++i) scale[i] = shape.scale;
    block.store(dqkv + head.packed(0), stride, dq, scale);
}

#define ATTENTION_SIMPLE(TYPE, T, TILE, WIDTH)                                                                         \
    using Block_##TYPE##_##WIDTH = SimpleBlock<T, TILE, WIDTH>;                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                              \
        attention_forward_simple##WIDTH##_##TYPE(const T *qkv, T *out, float *lse, const AttentionShape shape,         \
                                                 const uint32_t *header, const DropoutRule rule) {                     \
        forward<Block_##TYPE##_##WIDTH>(qkv, out, lse, shape, Dropout(header, rule));                                  \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS) attention_backward_keys_simple##WIDTH##_##TYPE(              \
        const T *qkv, const T *dout, const RowStatistics *statistics, T *dqkv, const AttentionShape shape,             \
        const uint32_t *header, const DropoutRule rule) {                                                              \
        backward_keys<Block_##TYPE##_##WIDTH>(qkv, dout, statistics, dqkv, shape, Dropout(header, rule));              \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS) attention_backward_queries_simple##WIDTH##_##TYPE(           \
        const T *qkv, const T *dout, const RowStatistics *statistics, T *dqkv, const AttentionShape shape,             \
        const uint32_t *header, const DropoutRule rule) {                                                              \
        backward_queries<Block_##TYPE##_##WIDTH>(qkv, dout, statistics, dqkv, shape, Dropout(header, rule));           \
    }
// Tiles of wide heads are smaller, so that a block stays within 48 KiB.
#define ATTENTION_SIMPLE_WIDTHS(TYPE, T)                                                                               \
    ATTENTION_SIMPLE(TYPE, T, 32, 64)                                                                                  \
    ATTENTION_SIMPLE(TYPE, T, 16, 128)
ATTENTION_SIMPLE_WIDTHS(f32, float)
ATTENTION_SIMPLE_WIDTHS(bf16, __nv_bfloat16)
ATTENTION_SIMPLE_WIDTHS(f16, __half)
