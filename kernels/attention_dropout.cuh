// Dropout of scores as mma leaves them: see `Sums` in attention_rows.cuh.
//
// A draw decides four neighbouring keys of one query, and a tile of 16 x 8 scores has four elements per lane: each lane
// draws once per tile, for elements that several lanes hold, and they exchange what they drew, a bit per element. All
// is drawn before the scores are computed, when registers are free; then it takes four bits per tile.
#pragma once
#include "attention_rows.cuh"

// A bit for each of the four keys of a draw.
__device__ __forceinline__ uint32_t kept_bits(const Dropout &dropout, uint4 draw) {
    const uint32_t threshold = dropout.rule.threshold;
    return uint32_t(draw.x >= threshold) | uint32_t(draw.y >= threshold) << 1 | uint32_t(draw.z >= threshold) << 2 |
           uint32_t(draw.w >= threshold) << 3;
}

// Rows are queries, columns are keys. Two neighbouring lanes hold two keys each of the same four, of two rows: the even
// one draws for the upper row, the odd one for the lower.
struct QueriesByKeys {
    __device__ __forceinline__ static uint32_t draw(const Dropout &dropout, const Head &head, int query, int key,
                                                    int lane) {
        const int row = lane / 4 + lane % 2 * 8;
        const uint4 draws = head.mask(dropout, query + row).draws(key / 4 + lane % 4 / 2);
        uint32_t bits = kept_bits(dropout, draws) << lane % 2 * 4;
        bits |= __shfl_xor_sync(~0u, bits, 1);
        return bits >> lane % 2 * 2 & 0x33; // element e of the tile: bit e % 2 + 4 (e / 2)
    }
    // By which eight tiles' bits go into one word.
    __device__ __forceinline__ static constexpr int shift(int t) { return t % 2 * 2 + t / 2 * 8; }
    __device__ __forceinline__ static constexpr int bit(int e) { return e % 2 + e / 2 * 4; }
};

// Rows are keys, columns are queries. Four lanes hold one each of the same four keys, of two queries, and of the four
// keys eight on: each draws for one of the four.
struct KeysByQueries {
    __device__ __forceinline__ static uint32_t draw(const Dropout &dropout, const Head &head, int key, int query,
                                                    int lane) {
        // Which of four keys it holds; and what it draws for: query % 2, then key / 8 % 2.
        const int mine = lane / 4 % 4;
        const int column = lane % 4 * 2 + mine % 2, quad = key / 4 + mine / 2 * 2 + lane / 16;
        uint32_t bits = kept_bits(dropout, head.mask(dropout, query + column).draws(quad)) << mine * 4;
        bits |= __shfl_xor_sync(~0u, bits, 4);
        bits |= __shfl_xor_sync(~0u, bits, 8);
        return bits >> mine & 0x1111; // element e of the tile: bit 4 e
    }
    __device__ __forceinline__ static constexpr int shift(int t) { return t % 4 + t / 4 * 16; }
    __device__ __forceinline__ static constexpr int bit(int e) { return e * 4; }
};

// A kernel's arguments.
struct WeightDropout {
    const uint32_t *header;
    const DropoutRule &rule;
};

// Which of a warp's weights are kept: four bits for each tile, eight tiles to a word.
template <class Layout, int M_TILES, int N_TILES> struct Kept {
    static constexpr int TILES = M_TILES * N_TILES, PER_WORD = 8;
    uint32_t bits[ceil_div(TILES, PER_WORD)];

    // `row`, `column`: the query or key of element [0][0][0] of lane 0.
    __device__ __forceinline__ Kept(const WeightDropout &weights, const Head &head, int row, int column) {
        Dropout dropout(weights.header, weights.rule);
        int lane = threadIdx.x % WARP;
        // Whatever follows from these is computed anew for every tile, and takes no registers in between.
        asm volatile("" : "+r"(dropout.rule.key.x), "+r"(dropout.rule.key.y), "+r"(lane));
#pragma unroll
        for (int word = 0; word < ceil_div(TILES, PER_WORD); ++word) {
            bits[word] = 0;
            // Two at a time: enough to hide latencies.
#pragma unroll 2
            for (int t = 0; t < min(TILES, PER_WORD); ++t) {
                const int tile = word * PER_WORD + t, i = tile / N_TILES, j = tile % N_TILES;
                const uint32_t drawn = Layout::draw(dropout, head, row + i * MMA_M, column + j * MMA_N, lane);
                bits[word] |= drawn << Layout::shift(t);
            }
        }
    }
    // Weights that are dropped change their sign: then they need no bits any more, and are still known.
    __device__ __forceinline__ void mark(Sums<M_TILES, N_TILES> &weights) const {
#pragma unroll
        for (int i = 0; i < M_TILES; ++i)
#pragma unroll
            for (int j = 0; j < N_TILES; ++j)
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    const int tile = i * N_TILES + j, bit = Layout::shift(tile % PER_WORD) + Layout::bit(e);
                    if (!(bits[tile / PER_WORD] >> bit & 1)) weights[i][j][e] = -weights[i][j][e];
                }
    }
};
// Of a weight that may be marked: what is left of it.
__device__ __forceinline__ float after_dropout(float weight) { return fmaxf(weight, 0.0f); }

// Without dropout: no instructions.
struct KeptAll {
    __device__ __forceinline__ KeptAll(const WeightDropout &, const Head &, int, int) {}
    template <class Weights> __device__ __forceinline__ void mark(Weights &) const {}
};
