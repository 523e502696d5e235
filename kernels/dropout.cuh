// Dropout masks, bit for bit those of src/ops/cpu/dropout.rs: whether an element is kept is a function of (seed, step,
// site, sample, row, column). No mask is stored; the backward draws it again.
#pragma once
#include "philox.cuh"

// What is the same in every step; the same struct is in src/ops/cuda/dropout.rs.
struct DropoutRule {
    uint2 key;          // the seed
    uint32_t tag;       // the site. An attention's heads follow each other: tag + head
    uint32_t threshold; // an element is dropped if its draw is below this
    float keep;         // what a kept element is multiplied by
};
static_assert(sizeof(DropoutRule) == 24, "src/ops/cuda/dropout.rs says so, too");

// The dropout of one micro-step. `header` is {step, number of the micro-batch's first sample}, in memory, so that a
// captured graph serves every step; null where nothing is dropped.
struct Dropout {
    DropoutRule rule;
    uint32_t step = 0, first_sample = 0;
    bool on;

    __device__ __forceinline__ Dropout(const uint32_t *header, const DropoutRule &rule) : rule(rule), on(header) {
        if (on) step = header[0], first_sample = header[1];
    }
    __device__ __forceinline__ float factor(uint32_t draw) const { return draw >= rule.threshold ? rule.keep : 0.0f; }
};

// One row of a mask of (rows, width) for every sample.
struct MaskRow {
    const Dropout &dropout;
    uint32_t sample;        // counted from the first sample of the step
    uint32_t first_counter; // a counter yields four elements, and every row starts at one of its own
    uint32_t head;

    // Row `row` of the micro-batch's sample `sample`; of this head, for attention weights.
    __device__ __forceinline__ MaskRow(const Dropout &dropout, uint32_t sample, uint32_t row, uint32_t width,
                                       uint32_t head = 0)
        : dropout(dropout), sample(dropout.first_sample + sample), first_counter(row * ((width + 3) / 4)), head(head) {}

    // The draws of elements 4 * quad and on.
    __device__ __forceinline__ uint4 draws(uint32_t quad) const {
        const DropoutRule &rule = dropout.rule;
        return philox4x32(make_uint4(first_counter + quad, sample, dropout.step, rule.tag + head), rule.key);
    }

    // What elements `column` and on are multiplied by. N is 1 or a multiple of 4, `column` a multiple of N.
    template <int N> __device__ __forceinline__ void factors(uint32_t column, float (&factor)[N]) const {
        if constexpr (N == 1) {
            const uint4 draw = draws(column / 4);
            const uint32_t even = column % 4 < 2 ? draw.x : draw.z, odd = column % 4 < 2 ? draw.y : draw.w;
            factor[0] = dropout.factor(column % 2 ? odd : even);
        } else {
            static_assert(N % 4 == 0, "whole draws");
#pragma unroll
            for (int i = 0; i < N; i += 4) {
                const uint4 draw = draws((column + i) / 4);
                factor[i] = dropout.factor(draw.x), factor[i + 1] = dropout.factor(draw.y);
                factor[i + 2] = dropout.factor(draw.z), factor[i + 3] = dropout.factor(draw.w);
            }
        }
    }
};
