// One warp's sums, from registers through shared memory to C: 16 rows at a time, so that lanes next to each other write
// 16 bytes next to each other.
#pragma once
#include <type_traits>

#include "gemm_epilogue.cuh"
#include "mma.cuh"

// T: type of the inputs; WIDTH: columns of a band of sums.
template <typename T, int WIDTH> struct SumWriter {
    // Eight words more than a row, so that the pairs of words that half a warp stores fall into different banks.
    static constexpr int PITCH = WIDTH + 8;
    static constexpr int WARP_BYTES = MMA_M * PITCH * int(sizeof(float));
    using Memory = std::conditional_t<std::is_same_v<T, Tf32>, float, T>;

    float *const rows; // (16, PITCH), of this warp alone
    const int lane = threadIdx.x % WARP;

    // One 16 x WIDTH band of sums to shared memory, as mma and wgmma hold them: PTX ISA, "Matrix fragments for
    // mma.m16n8k16" and "... for wgmma.mma_async.m64nNk16".
    __device__ __forceinline__ void stage(const float (&sums)[WIDTH / MMA_N][4]) const {
#pragma unroll
        for (int j = 0; j < WIDTH / MMA_N; ++j)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float *to = rows + (lane / 4 + 8 * half) * PITCH + j * MMA_N + lane % 4 * 2;
                *reinterpret_cast<float2 *>(to) = make_float2(sums[j][2 * half], sums[j][2 * half + 1]);
            }
    }

    // Hands the band's elements to `put(row, column, x)`, V at a time, and one by one where the matrix ends.
    template <int V, class Put>
    __device__ __forceinline__ void drain(const GemmArguments &p, int row0, int column0, Put put) const {
        constexpr int LANES = WIDTH / V, ROWS_AT_ONCE = WARP / LANES;
        const int column = column0 + lane % LANES * V;
#pragma unroll 1
        for (int i = lane / LANES; i < MMA_M && row0 + i < p.m; i += ROWS_AT_ONCE) {
            const float *from = rows + i * PITCH + lane % LANES * V;
            if (column + V <= p.n) {
                float x[V];
                load(from, x);
                put(row0 + i, column, x);
                continue;
            }
#pragma unroll 1
            for (int j = 0; column + j < p.n; ++j) {
                float x[1] = {from[j]};
                put(row0 + i, column + j, x);
            }
        }
    }

    // `slice`: which part of K the sums are of, if it is cut.
    __device__ __forceinline__ void write(const GemmArguments &p, unsigned slice, int row0, int column0) const {
        if (p.slices > 1) {
            const int pitch = partial_pitch(p);
            float *part = p.partial + int64_t(slice) * p.m * pitch;
            drain<4>(p, row0, column0, [&](int row, int column, auto &x) {
                store(part + int64_t(row) * pitch + column, x);
            });
        } else if (p.output_float32) {
            drain<4>(p, row0, column0, [&](int row, int column, auto &x) {
                finish<Memory, float>(p, row, column, x);
            });
        } else {
            drain<CHUNK_BYTES / int(sizeof(Memory))>(p, row0, column0, [&](int row, int column, auto &x) {
                finish<Memory, Memory>(p, row, column, x);
            });
        }
    }
};
