// The instructions of the tensor cores and of what feeds them: cp.async, ldmatrix, mma.sync.
// Turing (7.5) lacks the first and multiplies half as deep: see `mma` and gemm_loader.cuh.
#pragma once
#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

constexpr int WARP = 32;
// What one lane copies, and a row of the 8x8 matrices of ldmatrix.
constexpr int CHUNK_BYTES = 16;
// Bytes of K that one mma multiplies: 16 x 16 bits or 8 x tf32.
constexpr int MMA_K_BYTES = 32;
constexpr int MMA_M = 16, MMA_N = 8;

// A float that is rounded to tf32 on its way into the tensor core.
struct Tf32 {
    float value;
};

__device__ __forceinline__ uint32_t shared_address(const void *generic) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(generic));
}

// Copies `bytes` (0 to 16) and fills up with zeros; with 0 bytes, `from` is not read.
__device__ __forceinline__ void cp_async(uint32_t to, const void *from, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until all but the last N groups of this thread are there.
template <int N> __device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// Four 8x8 matrices of 16 bits; lanes 8i to 8i + 7 give the rows of matrix i.
template <bool TRANSPOSED> __device__ __forceinline__ void ldmatrix(uint32_t (&to)[4], uint32_t row) {
    if constexpr (TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(row)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(row)
                     : "memory");
}

__device__ __forceinline__ uint32_t ld_shared(uint32_t from) {
    uint32_t word;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(word) : "r"(from) : "memory");
    return word;
}

// Nearest, ties away: the only rounding to tf32 that every card with tf32 has. Without it the tensor core drops
// the low bits, a bias towards zero.
__device__ __forceinline__ uint32_t round_to_tf32(uint32_t float_bits) {
    uint32_t tf32;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(tf32) : "f"(__uint_as_float(float_bits)));
    return tf32;
}

#define TAPER_MMA(SHAPE_AND_TYPES)                                                                                    \
    asm("mma.sync.aligned." SHAPE_AND_TYPES " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"        \
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                              \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))

// d (16, 8) += a (16, 32 bytes) b (32 bytes, 8), fp32 sums.
template <typename T>
__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

template <>
__device__ __forceinline__ void mma<__half>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 800
    TAPER_MMA("m16n8k16.row.col.f32.f16.f16.f32");
#else
    // Registers 0 and 1 of a, and 0 of b, are the first half of K.
#pragma unroll
    for (int half = 0; half < 2; ++half)
        asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[2 * half]), "r"(a[2 * half + 1]), "r"(b[half]));
#endif
}
#if __CUDA_ARCH__ >= 800
template <>
__device__ __forceinline__ void mma<__nv_bfloat16>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    TAPER_MMA("m16n8k16.row.col.f32.bf16.bf16.f32");
}
template <>
__device__ __forceinline__ void mma<Tf32>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    TAPER_MMA("m16n8k8.row.col.f32.tf32.tf32.f32");
}
#endif
#undef TAPER_MMA
