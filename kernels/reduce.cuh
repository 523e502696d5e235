// Sums over the threads of a warp or a block, always in the same order.
#pragma once

constexpr int WARP_LANES = 32;
constexpr int MOST_WARPS = 32;

// Every lane gets the sum.
template <typename Number> __device__ __forceinline__ Number warp_sum(Number x) {
#pragma unroll
    for (int distance = WARP_LANES / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(0xffffffffu, x, distance);
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int distance = WARP_LANES / 2; distance > 0; distance /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, distance));
    return x;
}

// COUNT sums over a block of whole warps; every thread gets them all. `memory` is shared. A block that comes here again
// uses two memories in turns: no thread is then still reading the one that is written.
template <int COUNT, typename Number>
__device__ __forceinline__ void block_sums(Number (&x)[COUNT], Number (&memory)[COUNT][MOST_WARPS]) {
    const int warp = threadIdx.x / WARP_LANES, lane = threadIdx.x % WARP_LANES, warps = blockDim.x / WARP_LANES;
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
        x[i] = warp_sum(x[i]);
        if (lane == 0) memory[i][warp] = x[i];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
        x[i] = 0;
        for (int other = 0; other < warps; ++other) x[i] += memory[i][other];
    }
}

__device__ __forceinline__ float block_max(float x, float (&memory)[MOST_WARPS]) {
    const int warp = threadIdx.x / WARP_LANES, lane = threadIdx.x % WARP_LANES, warps = blockDim.x / WARP_LANES;
    x = warp_max(x);
    if (lane == 0) memory[warp] = x;
    __syncthreads();
    x = memory[0];
    for (int other = 1; other < warps; ++other) x = fmaxf(x, memory[other]);
    return x;
}
