// What all attention kernels share: sizes, and places in memory.
//
// A block works on one head of one sequence: blockIdx.y and blockIdx.z. S = scale Q K^T for keys at or before the
// query, P = softmax(S), P' = dropout(P), O = P' V. The forward saves lse = log(sum(exp(S))) of every row; from it the
// backward computes P again: P = exp(S - lse). src/ops/cpu/attention/mod.rs is the definition.
#pragma once
#include "dropout.cuh"
#include "element.cuh"

// The same struct is in src/ops/cuda/attention.rs.
struct AttentionShape {
    int32_t positions, heads, head_size; // T, H, D
    float scale;                         // 1 / sqrt(D)
};
static_assert(sizeof(AttentionShape) == 16, "src/ops/cuda/attention.rs says so, too");

constexpr float LOG2_E = 1.4426950408889634f;

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
    // Which of a query's weights are kept.
    __device__ __forceinline__ MaskRow mask(const Dropout &dropout, int query) const {
        return MaskRow(dropout, sequence, query, shape.positions, head);
    }
};

// What the backward needs to know of a query, made by attention_row_statistics.
struct RowStatistics {
    float lse2; // log2(sum(exp(S)))
    float dot;  // sum(dO * O), which the softmax' gradient subtracts from every dP
};
