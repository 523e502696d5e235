// The backward on tensor cores: dQ, dK and dV from Q, K, V, dO and two numbers per query.
//
// P = exp(S - lse), dV = P'^T dO, dP' = dO V^T, dS = P (dropout(dP') - dot), dQ = scale dS K, dK = scale dS^T Q.
//
// One kernel keeps keys and walks over the queries that see them (dK, dV); another keeps queries and walks over the
// keys that they see (dQ). Each sums in registers, in a fixed order: no atomics, no partial sums in memory, and the
// same bits in every run. The price is that scores and dP are computed twice, seven products for five.
//
// In both, rows that stay are rows of the products, and rows that pass are columns. So weights and dS are, as they
// leave the first products, what the second ones take for A: they never leave registers.
#pragma once
#include <type_traits>

#include "attention_dropout.cuh"

// As in attention_forward.cuh: up to 64, a warp has 32 rows, and fragments of rows that pass are multiplied twice. The
// sums of dK and dV then take half of all registers.
template <typename T_, int D_> struct BackwardTile {
    using T = T_;
    static constexpr int D = D_, WARPS = 4, THREADS = WARPS * WARP;
    static constexpr int WARP_ROWS = D <= 64 ? 32 : 16, STAYING = WARPS * WARP_ROWS, PASSING = 32;
    static constexpr int M_TILES = WARP_ROWS / MMA_M, N_TILES = PASSING / MMA_N, WIDTH_TILES = D / MMA_N;
    using Staying = RowTile<T, D, STAYING>; // two of them
    using Passing = RowTile<T, D, PASSING>; // two of them, twice
    static constexpr int STATISTICS_BYTES = PASSING * int(sizeof(RowStatistics));
    static constexpr int STAGE_BYTES = 2 * Passing::BYTES + STATISTICS_BYTES;
    static constexpr int SHARED_BYTES = 2 * Staying::BYTES + 2 * STAGE_BYTES;
    static_assert(Passing::reads_without_conflicts(), "ldmatrix at full speed");
    static_assert(SHARED_BYTES <= 99 * 1024, "what a block can have on an RTX 3060");
    using Loader = RowLoader<Passing, T, THREADS>;
    using Scores = Sums<M_TILES, N_TILES>;
    using Gradient = Sums<M_TILES, WIDTH_TILES>;
    using Weights = Held<M_TILES, PASSING / 16>;
};

// Turns scores into P, for keys at or before the query. `hidden(i, j, e)` is asked of tiles that cross the diagonal
// alone; lse2(i, j, e) is the query's.
template <int M_TILES, int N_TILES, class Hidden, class Lse2>
__device__ __forceinline__ void weigh(Sums<M_TILES, N_TILES> &s, float scale2, bool crosses, Hidden hidden, Lse2 lse2) {
#pragma unroll
    for (int i = 0; i < M_TILES; ++i)
#pragma unroll
        for (int j = 0; j < N_TILES; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const float p = exp2_fast(fmaf(s[i][j][e], scale2, -lse2(i, j, e)));
                s[i][j][e] = crosses && hidden(i, j, e) ? 0.0f : p;
            }
}

// Turns dP' into dS, but for its scale. Weights that were dropped are marked.
template <bool DROPOUT, int M_TILES, int N_TILES, class Dot>
__device__ __forceinline__ void differentiate(Sums<M_TILES, N_TILES> &dp, const Sums<M_TILES, N_TILES> &p, float keep,
                                              Dot dot) {
#pragma unroll
    for (int i = 0; i < M_TILES; ++i)
#pragma unroll
        for (int j = 0; j < N_TILES; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const float weight = p[i][j][e], d = dp[i][j][e];
                if (DROPOUT) dp[i][j][e] = fabsf(weight) * ((weight < 0.0f ? 0.0f : d * keep) - dot(i, j, e));
                else dp[i][j][e] = weight * (d - dot(i, j, e));
            }
}

// Two tiles that stay, of one head: rows `first` and on of `a` and `b`.
template <class Tile, typename T = typename Tile::T>
__device__ __forceinline__ void fetch_staying(uint32_t to, const T *a, int stride_a, const T *b, int stride_b,
                                              int first, int positions) {
    RowLoader<typename Tile::Staying, T, Tile::THREADS>{a, stride_a, positions}.fetch(to, first);
    RowLoader<typename Tile::Staying, T, Tile::THREADS>{b, stride_b, positions}.fetch(to + Tile::Staying::BYTES, first);
}

// The same factor for all rows.
template <int M_TILES> struct RowFactor {
    float of[M_TILES][2];
    __device__ __forceinline__ explicit RowFactor(float factor) {
#pragma unroll
        for (int i = 0; i < M_TILES; ++i) of[i][0] = of[i][1] = factor;
    }
};

template <class Tile, bool DROPOUT, typename T = typename Tile::T>
__device__ __forceinline__ void backward_keys(const T *qkv, const T *dout, const RowStatistics *statistics, T *dqkv,
                                              const AttentionShape &shape, const WeightDropout &dropout) {
    constexpr int D = Tile::D, M_TILES = Tile::M_TILES, N_TILES = Tile::N_TILES, PASSING = Tile::PASSING;
    using Kept = std::conditional_t<DROPOUT, Kept<KeysByQueries, M_TILES, N_TILES>, KeptAll>;
    extern __shared__ __align__(128) uint8_t shared[];
    const Head head{shape};
    const int stride = head.packed_stride(), lane = threadIdx.x % WARP;
    // The first keys are seen by the most queries: those blocks start first.
    const int first_key = blockIdx.x * Tile::STAYING;
    const int warp_row = threadIdx.x / WARP * Tile::WARP_ROWS, warp_key = first_key + warp_row;

    const uint32_t k_tile = shared_address(shared), v_tile = k_tile + Tile::Staying::BYTES;
    const uint32_t stages = v_tile + Tile::Staying::BYTES;
    const FragmentReader<typename Tile::Passing> reader;
    const Shared<typename Tile::Passing> keys{reader, k_tile + warp_row * Tile::Staying::PITCH};
    const Shared<typename Tile::Passing> values{reader, v_tile + warp_row * Tile::Staying::PITCH};

    const typename Tile::Loader q{qkv + head.packed(0), stride, shape.positions};
    const typename Tile::Loader d{dout + head.rows(), head.columns(), shape.positions};
    auto fetch = [&](uint32_t stage, int query) {
        q.fetch(stage, query);
        d.fetch(stage + Tile::Passing::BYTES, query);
        // A query beyond the last has zeros for dO and `dot`: whatever its weights are, they add nothing.
        if (threadIdx.x < PASSING)
            copy_words(stage + 2 * Tile::Passing::BYTES + threadIdx.x * int(sizeof(RowStatistics)),
                       statistics + head.scalars() + query + threadIdx.x, query + int(threadIdx.x) < shape.positions);
        commit_copies();
    };
    fetch_staying<Tile>(k_tile, qkv + head.packed(1), stride, qkv + head.packed(2), stride, first_key, shape.positions);
    fetch(stages, first_key);
    await_copies();

    const float scale2 = shape.scale * LOG2_E;
    typename Tile::Gradient dk = {}, dv = {};
    uint32_t stage = 0;
#pragma unroll 1
    for (int query = first_key; query < shape.positions; query += PASSING) {
        const uint32_t next = Tile::STAGE_BYTES - stage;
        if (query + PASSING < shape.positions) fetch(stages + next, query + PASSING);
        // A warp whose keys all come after the tile's queries has nothing to do but wait.
        if (query + PASSING > warp_key) {
            const Kept kept(dropout, head, warp_key, query);
            const uint32_t q_tile = stages + stage, d_tile = q_tile + Tile::Passing::BYTES;
            // Of the query of column 8 j + 2 (lane % 4) + e % 2. Read twice: kept, they would take registers.
            const volatile RowStatistics *columns = reinterpret_cast<const volatile RowStatistics *>(
                shared + 2 * Tile::Staying::BYTES + stage + 2 * Tile::Passing::BYTES) + lane % 4 * 2;
            const int ahead = query + lane % 4 * 2 - warp_key - lane / 4;
            typename Tile::Scores p, ds;
            multiply<T, D>(p, keys, reader, q_tile);
            weigh(p, scale2, query < warp_key + Tile::WARP_ROWS - 1,
                  [&](int i, int j, int e) { return ahead + j * MMA_N + e % 2 < i * MMA_M + e / 2 * 8; },
                  [&](int, int j, int e) { return columns[j * MMA_N + e % 2].lse2; });
            kept.mark(p);
            typename Tile::Weights weights;
            to_fragments<T>(weights, p, [](float p) { return DROPOUT ? after_dropout(p) : p; });
            accumulate<T, D>(dv, weights, reader, d_tile);
            multiply<T, D>(ds, values, reader, d_tile);
            differentiate<DROPOUT>(ds, p, dropout.rule.keep,
                          [&](int, int j, int e) { return columns[j * MMA_N + e % 2].dot; });
            to_fragments<T>(weights, ds, [](float x) { return x; });
            accumulate<T, D>(dk, weights, reader, q_tile);
        }
        await_copies();
        stage = next;
    }

    const int rows_left = shape.positions - warp_key;
    T *const to = dqkv + head.packed(1) + int64_t(warp_key) * stride;
    store_rows<typename Tile::Staying>(dk, RowFactor<M_TILES>(shape.scale).of, shared, warp_row, to, stride, rows_left);
    store_rows<typename Tile::Staying>(dv, RowFactor<M_TILES>(DROPOUT ? dropout.rule.keep : 1.0f).of,
                                       shared + Tile::Staying::BYTES, warp_row, to + head.columns(), stride, rows_left);
}

template <class Tile, bool DROPOUT, typename T = typename Tile::T>
__device__ __forceinline__ void backward_queries(const T *qkv, const T *dout, const RowStatistics *statistics, T *dqkv,
                                                 const AttentionShape &shape, const WeightDropout &dropout) {
    constexpr int D = Tile::D, M_TILES = Tile::M_TILES, N_TILES = Tile::N_TILES, PASSING = Tile::PASSING;
    using Kept = std::conditional_t<DROPOUT, Kept<QueriesByKeys, M_TILES, N_TILES>, KeptAll>;
    extern __shared__ __align__(128) uint8_t shared[];
    const Head head{shape};
    const int stride = head.packed_stride(), lane = threadIdx.x % WARP;
    // As in the forward: the last queries see the most keys.
    const int first_query = (gridDim.x - 1 - blockIdx.x) * Tile::STAYING;
    const int warp_row = threadIdx.x / WARP * Tile::WARP_ROWS, warp_query = first_query + warp_row;
    const int key_end = min(first_query + Tile::STAYING, shape.positions);

    const uint32_t q_tile = shared_address(shared), d_tile = q_tile + Tile::Staying::BYTES;
    const uint32_t stages = d_tile + Tile::Staying::BYTES;
    const FragmentReader<typename Tile::Passing> reader;
    const typename Tile::Loader k{qkv + head.packed(1), stride, shape.positions};
    auto fetch = [&](uint32_t stage, int key) {
        k.fetch(stage, key);
        k.fetch(stage + Tile::Passing::BYTES, key, head.columns()); // the values
        commit_copies();
    };
    fetch_staying<Tile>(q_tile, qkv + head.packed(0), stride, dout + head.rows(), head.columns(), first_query,
                        shape.positions);
    fetch(stages, 0);
    RowStatistics rows[M_TILES][2]; // of query 16 i + lane / 4 + 8 half
#pragma unroll
    for (int i = 0; i < M_TILES; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int query = warp_query + i * MMA_M + 8 * half + lane / 4;
            rows[i][half] = query < shape.positions ? statistics[head.scalars() + query] : RowStatistics{0.0f, 0.0f};
        }
    await_copies();
    Held<M_TILES, D / 16> queries, gradients;
    Shared<typename Tile::Passing>{reader, q_tile + warp_row * Tile::Staying::PITCH}.hold(queries);
    Shared<typename Tile::Passing>{reader, d_tile + warp_row * Tile::Staying::PITCH}.hold(gradients);

    const float scale2 = shape.scale * LOG2_E;
    typename Tile::Gradient dq = {};
    uint32_t stage = 0;
#pragma unroll 1
    for (int key = 0; key < key_end; key += PASSING) {
        const uint32_t next = Tile::STAGE_BYTES - stage;
        if (key + PASSING < key_end) fetch(stages + next, key + PASSING);
        if (key < warp_query + Tile::WARP_ROWS) {
            const Kept kept(dropout, head, warp_query, key);
            const uint32_t k_tile = stages + stage, v_tile = k_tile + Tile::Passing::BYTES;
            const int ahead = warp_query + lane / 4 - key - lane % 4 * 2;
            typename Tile::Scores p, ds;
            multiply<T, D>(p, queries, reader, k_tile);
            weigh(p, scale2, key + PASSING > warp_query + 1,
                  [&](int i, int j, int e) { return ahead + i * MMA_M + e / 2 * 8 < j * MMA_N + e % 2; },
                  [&](int i, int, int e) { return rows[i][e / 2].lse2; });
            kept.mark(p);
            multiply<T, D>(ds, gradients, reader, v_tile);
            differentiate<DROPOUT>(ds, p, dropout.rule.keep,
                          [&](int i, int, int e) { return rows[i][e / 2].dot; });
            typename Tile::Weights weights;
            to_fragments<T>(weights, ds, [](float x) { return x; });
            accumulate<T, D>(dq, weights, reader, k_tile);
        }
        await_copies();
        stage = next;
    }

    store_rows<typename Tile::Staying>(dq, RowFactor<M_TILES>(shape.scale).of, shared, warp_row,
                                       dqkv + head.packed(0) + int64_t(warp_query) * stride, stride,
                                       shape.positions - warp_query);
}

#define ATTENTION_BACKWARD_AS(NAME, OPERATION, T, D, DROPOUT)                                                          \
    extern "C" __global__ void __launch_bounds__(BackwardTile<T, D>::THREADS, 2)                                       \
        NAME(const T *qkv, const T *dout, const RowStatistics *statistics, T *dqkv,                                    \
             const __grid_constant__ AttentionShape shape, const uint32_t *header,                                     \
             const __grid_constant__ DropoutRule rule) {                                                               \
        OPERATION<BackwardTile<T, D>, DROPOUT>(qkv, dout, statistics, dqkv, shape, {header, rule});             \
    }
#define ATTENTION_BACKWARD(TYPE, T, D)                                                                                 \
    ATTENTION_BACKWARD_AS(attention_backward_keys_##D##_##TYPE, backward_keys, T, D, false)                            \
    ATTENTION_BACKWARD_AS(attention_backward_keys_dropout_##D##_##TYPE, backward_keys, T, D, true)                     \
    ATTENTION_BACKWARD_AS(attention_backward_queries_##D##_##TYPE, backward_queries, T, D, false)                      \
    ATTENTION_BACKWARD_AS(attention_backward_queries_dropout_##D##_##TYPE, backward_queries, T, D, true)
