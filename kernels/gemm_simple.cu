// compute: 75
// Any shape, stride, type and transpose: what the other kernels are checked against on the device, and what is
// left when nothing else can run. A block makes 64 x 64 of C; each of its 256 threads 4 x 4, in fp32.
#include "gemm_epilogue.cuh"

constexpr int TILE = 64, DEPTH = 16, PER_THREAD = 4, THREADS = 256;
constexpr int STEP = TILE / PER_THREAD; // a thread's rows are 16 apart, so that a warp's reads are neighbours

// One operand's part of the block's tile: index [k][m or n], as fp32, zero outside of the matrix.
template <typename T>
__device__ void fill(float (&tile)[DEPTH][TILE + 1], const T *from, int64_t stride, bool k_contiguous, int first,
                     int end, int k0, int k_end) {
    for (int e = threadIdx.x; e < TILE * DEPTH; e += THREADS) {
        // Neighbouring threads read neighbours in memory.
        const int k = k_contiguous ? e % DEPTH : e / TILE;
        const int i = k_contiguous ? e / DEPTH : e % TILE;
        const int64_t row = k_contiguous ? first + i : k0 + k, column = k_contiguous ? k0 + k : first + i;
        const bool inside = first + i < end && k0 + k < k_end;
        tile[k][i] = inside ? to_float(from[row * stride + column]) : 0.0f;
    }
}

template <typename T> __device__ void gemm(const GemmArguments &p) {
    __shared__ float a[DEPTH][TILE + 1], b[DEPTH][TILE + 1], c[TILE][TILE + 1];
    const int tiles_n = ceil_div(p.n, TILE);
    const int m0 = blockIdx.x / tiles_n * TILE, n0 = blockIdx.x % tiles_n * TILE;
    const int x = threadIdx.x % STEP, y = threadIdx.x / STEP;
    const bool a_transposed = p.transposed & 1, b_transposed = p.transposed & 2;
    float sum[PER_THREAD][PER_THREAD] = {};
    for (int k0 = 0; k0 < p.k; k0 += DEPTH) {
        fill(a, static_cast<const T *>(p.a), p.row_a, !a_transposed, m0, p.m, k0, p.k);
        fill(b, static_cast<const T *>(p.b), p.row_b, b_transposed, n0, p.n, k0, p.k);
        __syncthreads();
#pragma unroll
        for (int k = 0; k < DEPTH; ++k)
#pragma unroll
            for (int i = 0; i < PER_THREAD; ++i)
#pragma unroll
                for (int j = 0; j < PER_THREAD; ++j)
                    sum[i][j] = fmaf(a[k][y + STEP * i], b[k][x + STEP * j], sum[i][j]);
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i)
#pragma unroll
        for (int j = 0; j < PER_THREAD; ++j) c[y + STEP * i][x + STEP * j] = sum[i][j];
    __syncthreads();
    // One copy of the epilogue's code, not one for each sum.
#pragma unroll 1
    for (int e = threadIdx.x; e < TILE * TILE; e += THREADS) {
        const int i = e / TILE, j = e % TILE;
        float one[1] = {c[i][j]};
        if (m0 + i >= p.m || n0 + j >= p.n) continue;
        if (p.output_float32) finish<T, float>(p, m0 + i, n0 + j, one);
        else finish<T, T>(p, m0 + i, n0 + j, one);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) gemm_f32_simple(const __grid_constant__ GemmArguments p) {
    gemm<float>(p);
}
extern "C" __global__ void __launch_bounds__(THREADS) gemm_bf16_simple(const __grid_constant__ GemmArguments p) {
    gemm<__nv_bfloat16>(p);
}
extern "C" __global__ void __launch_bounds__(THREADS) gemm_f16_simple(const __grid_constant__ GemmArguments p) {
    gemm<__half>(p);
}
