// What a step comes to, in the memory of the GPU; the same struct is in src/ops/cuda/outcome.rs.
#pragma once
#include <cstdint>

struct Outcome {
    double loss;          // the sum over all tokens so far
    double gradient_norm; // of the step, before clipping
    float gradient_scale; // what AdamW multiplies the gradients by: clipping, and the loss scale undone
    uint32_t is_finite;   // else the weights stay as they are
};
static_assert(sizeof(Outcome) == 24, "src/ops/cuda/outcome.rs says so, too");
