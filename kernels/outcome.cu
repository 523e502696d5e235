// compute: 75
// The sum of a micro-step's losses, and the norm of a step's gradients.
#include "chunks.cuh"
#include "outcome.cuh"
#include "reduce.cuh"

// Adds the losses of every sample, (samples, positions), to outcome->loss, one sample after the other. A sample's sum
// depends on its length alone: the micro-batches that the samples come in change no bit. One block of 32 warps.
extern "C" __global__ void __launch_bounds__(1024)
    add_losses_f32(const float *losses, int samples, int positions, Outcome *outcome) {
    __shared__ double memory[MOST_WARPS];
    const int warp = threadIdx.x / WARP_LANES, lane = threadIdx.x % WARP_LANES;
    double total = outcome->loss;
    for (int first = 0; first < samples; first += MOST_WARPS) {
        double sum = 0.0;
        if (first + warp < samples) {
            const float *sample = losses + int64_t(first + warp) * positions;
#pragma unroll 4
            for (int i = lane; i < positions; i += WARP_LANES) sum += double(sample[i]);
        }
        sum = warp_sum(sum);
        if (lane == 0) memory[warp] = sum;
        __syncthreads();
        for (int i = 0; i < MOST_WARPS && first + i < samples; ++i) total += memory[i];
        __syncthreads();
    }
    if (threadIdx.x == 0) outcome->loss = total;
}

// The sum of the squares that a block sees, to partials[block].
extern "C" __global__ void __launch_bounds__(THREADS)
    sum_squares_f32(const float *x, int64_t count, float *partials) {
    __shared__ float memory[1][MOST_WARPS];
    float sum[1] = {};
    const auto body = [&](int64_t at, auto width) {
        float v[decltype(width)::value];
        load(x + at, v);
#pragma unroll
        for (const float value : v) sum[0] = fmaf(value, value, sum[0]);
    };
    if (is_wide<float>(0, x)) for_elements<WIDE<float>>(count, body);
    else for_elements<1>(count, body);
    block_sums(sum, memory);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum[0];
}

// The rest of `outcome`, from the partial sums of gradients that were multiplied by *loss_scale. Their norm is at most
// `clip` after AdamW's scaling (PyTorch's `clip_grad_norm_`, with its 1e-6); 0 turns that off. One block of 32 warps.
extern "C" __global__ void __launch_bounds__(1024)
    finish_outcome_f32(const float *partials, int count, const float *loss_scale, double clip, Outcome *outcome) {
    __shared__ double memory[1][MOST_WARPS];
    double sum[1] = {};
    for (int i = threadIdx.x; i < count; i += blockDim.x) sum[0] += double(partials[i]);
    block_sums(sum, memory);
    if (threadIdx.x != 0) return;
    const double unscale = 1.0 / double(*loss_scale), norm = sqrt(sum[0]) * unscale;
    const double factor = clip == 0.0 ? 1.0 : fmin(clip / (norm + 1e-6), 1.0);
    outcome->gradient_norm = norm;
    outcome->gradient_scale = float(factor * unscale);
    outcome->is_finite = isfinite(norm) && isfinite(outcome->loss);
}
