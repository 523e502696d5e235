// The forward on tensor cores, with FlashAttention-2's schedule (Dao 2023): a block keeps a tile of queries and walks
// over the keys that they see, with a running maximum and sum per row.
//
// Four warps, each with whole rows, so that a row's maximum takes two shuffles and no barrier. Weights go from the
// first product to the second in registers. Keys and values come by in tiles through two buffers: while one is
// multiplied, the other fills.
#pragma once
#include <type_traits>

#include "attention_dropout.cuh"
#include "attention_rows.cuh"

// Up to 64, a warp has 32 rows: each fragment of K and V that it reads is multiplied twice, and on cards from A100 on
// reading them would else take as long as multiplying. Wider heads leave registers for 16. With 48 KiB of shared
// memory, two blocks fit an SM of an RTX 3060, too.
template <typename T_, int D_> struct ForwardTile {
    using T = T_;
    static constexpr int D = D_, WARPS = 4, THREADS = WARPS * WARP;
    static constexpr int WARP_ROWS = D <= 64 ? 32 : 16, QUERIES = WARPS * WARP_ROWS, KEYS = D <= 64 ? 64 : 32;
    static constexpr int M_TILES = WARP_ROWS / MMA_M, KEY_TILES = KEYS / MMA_N, WIDTH_TILES = D / MMA_N;
    using Queries = RowTile<T, D, QUERIES>;
    using Keys = RowTile<T, D, KEYS>; // and values
    static constexpr int STAGE_BYTES = 2 * Keys::BYTES;
    static constexpr int SHARED_BYTES = Queries::BYTES + 2 * STAGE_BYTES;
    static_assert(Keys::reads_without_conflicts(), "ldmatrix at full speed");
    static_assert(SHARED_BYTES <= 48 * 1024, "as much as every launch may ask for");
};

// The softmax of a warp's rows, so far. Of row 16 i + lane / 4 + 8 half, and of this lane's columns alone where sums
// are concerned.
template <class Tile> struct RunningSoftmax {
    float top[Tile::M_TILES][2]; // the largest score, before its scaling
    float total[Tile::M_TILES][2];

    __device__ __forceinline__ RunningSoftmax() {
#pragma unroll
        for (int i = 0; i < Tile::M_TILES; ++i)
#pragma unroll
            for (int half = 0; half < 2; ++half) top[i][half] = -INFINITY, total[i][half] = 0.0f;
    }
    // Turns scores into exp(scale (score - top)), and scales `out` down if a larger score turned up. Key 0 is in the
    // first tile, and every row sees it: `top` is a number ever after.
    __device__ __forceinline__ void add(Sums<Tile::M_TILES, Tile::KEY_TILES> &s,
                                        Sums<Tile::M_TILES, Tile::WIDTH_TILES> &out, float scale2) {
#pragma unroll
        for (int i = 0; i < Tile::M_TILES; ++i)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float new_top = top[i][half];
#pragma unroll
                for (int j = 0; j < Tile::KEY_TILES; ++j)
                    new_top = fmaxf(new_top, fmaxf(s[i][j][2 * half], s[i][j][2 * half + 1]));
                new_top = fmaxf(new_top, __shfl_xor_sync(~0u, new_top, 1));
                new_top = fmaxf(new_top, __shfl_xor_sync(~0u, new_top, 2));
                const float shrink = exp2_fast((top[i][half] - new_top) * scale2), shift = new_top * scale2;
                top[i][half] = new_top;
                float sum = total[i][half] * shrink;
#pragma unroll
                for (int j = 0; j < Tile::KEY_TILES; ++j)
#pragma unroll
                    for (int e = 2 * half; e < 2 * half + 2; ++e) {
                        s[i][j][e] = exp2_fast(fmaf(s[i][j][e], scale2, -shift));
                        sum += s[i][j][e];
                    }
                total[i][half] = sum;
#pragma unroll
                for (int j = 0; j < Tile::WIDTH_TILES; ++j)
                    out[i][j][2 * half] *= shrink, out[i][j][2 * half + 1] *= shrink;
            }
    }
    // The sums of whole rows.
    __device__ __forceinline__ void finish() {
#pragma unroll
        for (int i = 0; i < Tile::M_TILES; ++i)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                total[i][half] += __shfl_xor_sync(~0u, total[i][half], 1);
                total[i][half] += __shfl_xor_sync(~0u, total[i][half], 2);
            }
    }
};

// Scores of keys after the query become minus infinity. `ahead`: the first row's query less the first column's key.
template <int M_TILES, int N_TILES>
__device__ __forceinline__ void hide_later_keys(Sums<M_TILES, N_TILES> &s, int ahead) {
    const int lane = threadIdx.x % WARP;
    const int most = ahead + lane / 4 - lane % 4 * 2; // of this lane's element [0][0][0]; negative: hidden
#pragma unroll
    for (int i = 0; i < M_TILES; ++i)
#pragma unroll
        for (int j = 0; j < N_TILES; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e)
                if (most + i * MMA_M + e / 2 * 8 < j * MMA_N + e % 2) s[i][j][e] = -INFINITY;
}

template <class Tile, bool DROPOUT, typename T = typename Tile::T>
__device__ __forceinline__ void attention_forward(const T *qkv, T *out, float *lse, const AttentionShape &shape,
                                                  const WeightDropout &dropout) {
    constexpr int D = Tile::D, M_TILES = Tile::M_TILES, KEYS = Tile::KEYS;
    using Kept = std::conditional_t<DROPOUT, Kept<QueriesByKeys, M_TILES, Tile::KEY_TILES>, KeptAll>;
    extern __shared__ __align__(128) uint8_t shared[];
    const Head head{shape};
    // The last queries see the most keys: they go first, so that a card ends evenly. Blocks of a head are neighbours,
    // and share its keys and values in L2.
    const int first_query = (gridDim.x - 1 - blockIdx.x) * Tile::QUERIES;
    const int warp_row = threadIdx.x / WARP * Tile::WARP_ROWS, warp_query = first_query + warp_row;
    const int key_end = min(first_query + Tile::QUERIES, shape.positions);

    const uint32_t q_tile = shared_address(shared), stages = q_tile + Tile::Queries::BYTES;
    const int stride = head.packed_stride();
    const RowLoader<typename Tile::Queries, T, Tile::THREADS> q{qkv + head.packed(0), stride, shape.positions};
    const RowLoader<typename Tile::Keys, T, Tile::THREADS> k{qkv + head.packed(1), stride, shape.positions};
    const FragmentReader<typename Tile::Keys> reader; // tiles differ in their number of rows alone

    auto fetch = [&](uint32_t stage, int first_key) {
        k.fetch(stage, first_key);
        k.fetch(stage + Tile::Keys::BYTES, first_key, head.columns()); // the values
        commit_copies();
    };
    q.fetch(q_tile, first_query);
    fetch(stages, 0);
    await_copies();
    Held<M_TILES, D / 16> queries;
    Shared<typename Tile::Keys>{reader, q_tile + warp_row * Tile::Queries::PITCH}.hold(queries);

    const float scale2 = shape.scale * LOG2_E;
    Sums<M_TILES, Tile::WIDTH_TILES> sums = {};
    RunningSoftmax<Tile> softmax;
    uint32_t stage = 0;
#pragma unroll 1
    for (int first_key = 0; first_key < key_end; first_key += KEYS) {
        const uint32_t next = Tile::STAGE_BYTES - stage;
        if (first_key + KEYS < key_end) fetch(stages + next, first_key + KEYS);
        // A warp whose queries all come before the tile has nothing to do but wait.
        if (first_key < warp_query + Tile::WARP_ROWS) {
            const Kept kept(dropout, head, warp_query, first_key);
            Sums<M_TILES, Tile::KEY_TILES> s;
            multiply<T, D>(s, queries, reader, stages + stage);
            if (first_key + KEYS > warp_query + 1) hide_later_keys(s, warp_query - first_key);
            softmax.add(s, sums, scale2);
            Held<M_TILES, KEYS / 16> weights;
            kept.mark(s);
            to_fragments<T>(weights, s, [](float p) { return DROPOUT ? after_dropout(p) : p; });
            accumulate<T, D>(sums, weights, reader, stages + stage + Tile::Keys::BYTES);
        }
        await_copies();
        stage = next;
    }

    softmax.finish();
    const int lane = threadIdx.x % WARP;
    float factor[M_TILES][2];
#pragma unroll
    for (int i = 0; i < M_TILES; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float total = softmax.total[i][half];
            factor[i][half] = (DROPOUT ? dropout.rule.keep : 1.0f) / total;
            const int query = warp_query + i * MMA_M + 8 * half + lane / 4;
            if (lane % 4 == 0 && query < shape.positions)
                lse[head.scalars() + query] = fmaf(softmax.top[i][half], shape.scale, logf(total));
        }
    // The queries' rows in shared memory were read by their own warp alone, which is done with them.
    store_rows<typename Tile::Queries>(sums, factor, shared, warp_row,
                                       out + head.rows() + int64_t(warp_query) * head.columns(), head.columns(),
                                       shape.positions - warp_query);
}

#define ATTENTION_FORWARD(TYPE, T, D)                                                                                  \
    extern "C" __global__ void __launch_bounds__(ForwardTile<T, D>::THREADS, 2) attention_forward_##D##_##TYPE(        \
        const T *qkv, T *out, float *lse, const __grid_constant__ AttentionShape shape, const uint32_t *header,        \
        const __grid_constant__ DropoutRule rule) {                                                                    \
        attention_forward<ForwardTile<T, D>, false>(qkv, out, lse, shape, {header, rule});                      \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(ForwardTile<T, D>::THREADS, 2)                                        \
        attention_forward_dropout_##D##_##TYPE(const T *qkv, T *out, float *lse,                                       \
                                               const __grid_constant__ AttentionShape shape, const uint32_t *header,   \
                                               const __grid_constant__ DropoutRule rule) {                             \
        attention_forward<ForwardTile<T, D>, true>(qkv, out, lse, shape, {header, rule});                       \
    }
