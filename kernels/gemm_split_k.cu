// compute: 75
// The second half of a product whose K was cut into slices: C from the slices' sums. They are added in the order of
// the slices, so that a product has the same bits every time; atomic additions would not.
#include "gemm_epilogue.cuh"

// V neighbours of C from their partial sums, in the order of the slices.
template <typename T, int V> __device__ __forceinline__ void sum_slices(const GemmArguments &p, int row, int column) {
    const int pitch = partial_pitch(p);
    const float *from = p.partial + int64_t(row) * pitch + column;
    float sum[V] = {}, part[V];
    for (int slice = 0; slice < p.slices; ++slice, from += int64_t(p.m) * pitch) {
        load(from, part);
#pragma unroll
        for (int i = 0; i < V; ++i) sum[i] += part[i];
    }
    if (p.output_float32) finish<T, float>(p, row, column, sum);
    else finish<T, T>(p, row, column, sum);
}

// C from all partial sums. A thread makes four neighbours.
template <typename T> __device__ __forceinline__ void split_k_sum(const GemmArguments &p) {
    const int quads = ceil_div(p.n, 4);
    const int64_t quad = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (quad >= int64_t(p.m) * quads) return;
    const int row = int(quad / quads), column = int(quad % quads) * 4;
    if (column + 4 <= p.n) {
        sum_slices<T, 4>(p, row, column);
    } else {
#pragma unroll 1
        for (int j = column; j < p.n; ++j) sum_slices<T, 1>(p, row, j);
    }
}

extern "C" __global__ void __launch_bounds__(256) gemm_f32_split_k_sum(const __grid_constant__ GemmArguments p) {
    split_k_sum<float>(p);
}
extern "C" __global__ void __launch_bounds__(256) gemm_bf16_split_k_sum(const __grid_constant__ GemmArguments p) {
    split_k_sum<__nv_bfloat16>(p);
}
extern "C" __global__ void __launch_bounds__(256) gemm_f16_split_k_sum(const __grid_constant__ GemmArguments p) {
    split_k_sum<__half>(p);
}
