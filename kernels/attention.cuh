// What all attention kernels share: sizes, places in memory, the mask of dropout.
//
// A block works on one head of one sequence: blockIdx.y and blockIdx.z. S = scale Q K^T for keys at or before the
// query, P = softmax(S), P' = dropout(P), O = P' V. The forward saves lse = log(sum(exp(S))) of every row; from it the
// backward computes P again: P = exp(S - lse). src/ops/attention.rs is the definition.
#pragma once
#include "element.cuh"
#include "philox.cuh"

// As in src/ops/cuda/attention.rs.
struct AttentionShape {
    int32_t positions, heads, head_size; // T, H, D
    float scale;                         // 1 / sqrt(D)
};

// As in src/ops/cuda/attention.rs. `moment` points to what changes from one micro-step to the next: {step, index of
// the first sequence}.
struct AttentionDropout {
    uint32_t threshold; // a random word below it drops
    float keep;         // 1 / (1 - p), the factor of what is kept
    uint32_t key[2];    // of the run
    uint32_t tag;       // of this layer's head 0; the next heads' follow
};

constexpr float LOG2_E = 1.4426950408889634f;

__device__ __forceinline__ int ceil_div(int a, int b) { return (a + b - 1) / b; }

// One head of one sequence. Offsets and strides are in elements.
struct Head {
    const AttentionShape &shape;
    const int sequence = blockIdx.z, head = blockIdx.y;

    __device__ __forceinline__ int columns() const { return shape.heads * shape.head_size; }
    __device__ __forceinline__ int packed_stride() const { return 3 * columns(); }
    // Of row 0 of this head's queries (part 0), keys (1) or values (2), in an array (B, T, 3C).
    __device__ __forceinline__ int64_t packed(int part) const {
        return (int64_t(sequence) * shape.positions * 3 + part) * columns() + head * shape.head_size;
    }
    // Of row 0 of this head, in an array (B, T, C).
    __device__ __forceinline__ int64_t rows() const {
        return int64_t(sequence) * shape.positions * columns() + head * shape.head_size;
    }
    // Of row 0 of this head, in an array (B, H, T).
    __device__ __forceinline__ int64_t scalars() const {
        return (int64_t(sequence) * shape.heads + head) * shape.positions;
    }
};

// The backward's view of a query, made by attention_row_statistics.
struct RowStatistics {
    float lse2; // log2(sum(exp(S)))
    float dot;  // sum(dO * O): what the softmax' gradient subtracts from every dP
};

// Which weights of one head are kept. Element `key` of row `query` is bit `key % 4` of group `key / 4`: see
// src/ops/dropout.rs.
struct KeepMask {
    uint32_t threshold, sample, step, tag, groups_per_row;
    uint2 key;

    __device__ __forceinline__ KeepMask(const AttentionDropout &dropout, const uint32_t *moment, const Head &head)
        : threshold(dropout.threshold), sample(moment[1] + head.sequence), step(moment[0]), tag(dropout.tag + head.head),
          groups_per_row(ceil_div(head.shape.positions, 4)), key(make_uint2(dropout.key[0], dropout.key[1])) {}

    // One bit each for four keys of a row, set where the weight is kept.
    __device__ __forceinline__ uint32_t group(uint32_t query, uint32_t group) const {
        const uint4 words = philox4x32(make_uint4(query * groups_per_row + group, sample, step, tag), key);
        return uint32_t(words.x >= threshold) | uint32_t(words.y >= threshold) << 1 |
               uint32_t(words.z >= threshold) << 2 | uint32_t(words.w >= threshold) << 3;
    }
};
