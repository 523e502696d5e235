// Elements of f32, bf16 and f16: in memory as they are, in registers as fp32, moved 16 bytes at a time.
#pragma once
#include <cstdint>
#include <cstring>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }

template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ __nv_bfloat16 from_float(float x) { return __float2bfloat16_rn(x); }
template <> __device__ __forceinline__ __half from_float(float x) { return __float2half_rn(x); }

// Two neighbours in one word, the first in its low half.
template <typename T> __device__ __forceinline__ uint32_t pack(float first, float second);
template <> __device__ __forceinline__ uint32_t pack<__nv_bfloat16>(float first, float second) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
    return reinterpret_cast<const uint32_t &>(pair);
}
template <> __device__ __forceinline__ uint32_t pack<__half>(float first, float second) {
    const __half2 pair = __floats2half2_rn(first, second);
    return reinterpret_cast<const uint32_t &>(pair);
}

template <int BYTES> struct Word;
template <> struct Word<2> { using Type = uint16_t; };
template <> struct Word<4> { using Type = uint32_t; };
template <> struct Word<8> { using Type = uint2; };
template <> struct Word<16> { using Type = uint4; };
// Two instructions of 16 bytes.
template <> struct Word<32> {
    struct Type {
        uint4 half[2];
    };
};

// N neighbours, as they lie in memory, loaded and stored by instructions as wide as there are (16 bytes).
template <typename T, int N> struct Chunk {
    static constexpr int BYTES = N * int(sizeof(T));
    typename Word<BYTES>::Type word;

    static __device__ __forceinline__ Chunk load(const T *from) {
        return {*reinterpret_cast<const decltype(word) *>(from)};
    }
    __device__ __forceinline__ void store(T *to) const { *reinterpret_cast<decltype(word) *>(to) = word; }

    __device__ __forceinline__ void unpack(float (&x)[N]) const {
        T element[N];
        memcpy(element, &word, BYTES);
#pragma unroll
        for (int i = 0; i < N; ++i) x[i] = to_float(element[i]);
    }
    static __device__ __forceinline__ Chunk pack(const float (&x)[N]) {
        Chunk chunk;
        if constexpr (sizeof(T) == 2 && N % 2 == 0) {
            uint32_t pair[N / 2];
#pragma unroll
            for (int i = 0; i < N / 2; ++i) pair[i] = ::pack<T>(x[2 * i], x[2 * i + 1]);
            memcpy(&chunk.word, pair, BYTES);
        } else {
            T element[N];
#pragma unroll
            for (int i = 0; i < N; ++i) element[i] = from_float<T>(x[i]);
            memcpy(&chunk.word, element, BYTES);
        }
        return chunk;
    }
};

template <typename T, int N> __device__ __forceinline__ void load(const T *from, float (&x)[N]) {
    Chunk<T, N>::load(from).unpack(x);
}
template <typename T, int N> __device__ __forceinline__ void store(T *to, const float (&x)[N]) {
    Chunk<T, N>::pack(x).store(to);
}

// Elements of 16 bytes.
template <typename T> constexpr int WIDE = 16 / int(sizeof(T));

// Whether rows of `columns` elements can be moved 16 bytes at a time. The parameters of a model lie in one buffer
// without gaps, so their addresses say something, too.
template <typename T, typename... Pointer> __device__ __forceinline__ bool is_wide(int columns, Pointer... pointer) {
    return ((uint64_t(columns) * sizeof(T)) | (reinterpret_cast<uint64_t>(pointer) | ...)) % 16 == 0;
}

__host__ __device__ constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Defines a kernel for every type that a card of this compute capability trains in: KERNEL(name's end, type).
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define FOR_EACH_TYPE(KERNEL) KERNEL(f32, float) KERNEL(f16, __half) KERNEL(bf16, __nv_bfloat16)
#else
#define FOR_EACH_TYPE(KERNEL) KERNEL(f32, float) KERNEL(f16, __half)
#endif
