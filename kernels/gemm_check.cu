// compute: 75 80
// What operands are filled with to verify products, and how results are compared: src/ops/gemm/check.rs has the same on
// the host.
#include "chunks.cuh"

// SplitMix64's output function (Steele, Lea and Flood 2014, doi:10.1145/2714064.2660195).
__device__ __forceinline__ uint64_t scramble(uint64_t index) {
    uint64_t z = (index + 1) * 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

// An integer from -2 to 2, or a number below 1 of `bits` significant ones where that is not 0.
__device__ __forceinline__ float value(uint64_t index, int operand, int bits) {
    const uint64_t hash = scramble(index << 3 | uint64_t(operand));
    if (bits == 0) return float(int(hash % 5) - 2);
    const uint32_t top = 1u << (bits - 1);
    const float significand = float(top | (uint32_t(hash) & (top - 1)));
    const int exponent = bits + int(hash >> 40) % 5;
    const float scale = __int_as_float((127 - exponent) << 23);
    return hash >> 63 ? -significand * scale : significand * scale;
}

template <typename T> __device__ void fill(T *out, int64_t count, int operand, int bits) {
    for_elements<WIDE<T>>(count, [&](int64_t at, auto width) {
        float x[decltype(width)::value];
#pragma unroll
        for (int i = 0; i < width; ++i) x[i] = value(at + i, operand, bits);
        store(out + at, x);
    });
}

template <typename T> __device__ void gather(const T *from, const int64_t *places, int count, float *out) {
    for (int i = threadIdx.x; i < count; i += THREADS) out[i] = to_float(from[places[i]]);
}

// Of a block, or of a thread: the first element that is too far from what it should be, and the largest difference.
struct Comparison {
    int64_t first;
    float got, want, largest_error;
    uint32_t unused;
};

// How far an element may be from what it should be.
struct Tolerance {
    uint32_t same_bits;
    float absolute, relative, floored, floor;
};

__device__ __forceinline__ void compare(int64_t at, float got, float want, const Tolerance &t, Comparison &found) {
    if (__float_as_uint(got) == __float_as_uint(want)) return;
    const float error = fabsf(got - want), size = fabsf(want);
    const float bound = t.absolute + t.relative * size + t.floored * fmaxf(size, t.floor);
    found.largest_error = fmaxf(found.largest_error, isnan(error) ? INFINITY : error);
    if ((t.same_bits || !(error <= bound)) && at < found.first) {
        found.first = at;
        found.got = got;
        found.want = want;
    }
}

// Every block writes what it found; an element that is too far has an index below INT64_MAX.
template <typename T>
__device__ void compare(const T *got, const T *want, int64_t count, Tolerance tolerance, Comparison *out) {
    Comparison found = {INT64_MAX, 0.0f, 0.0f, 0.0f, 0u};
    for_elements<WIDE<T>>(count, [&](int64_t at, auto width) {
        float x[decltype(width)::value], y[decltype(width)::value];
        load(got + at, x);
        load(want + at, y);
#pragma unroll
        for (int i = 0; i < width; ++i) compare(at + i, x[i], y[i], tolerance, found);
    });
    __shared__ Comparison shared[THREADS];
    shared[threadIdx.x] = found;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x >= half) continue;
        Comparison &mine = shared[threadIdx.x];
        const Comparison &other = shared[threadIdx.x + half];
        const float largest = fmaxf(mine.largest_error, other.largest_error);
        if (other.first < mine.first) mine = other;
        mine.largest_error = largest;
    }
    if (threadIdx.x == 0) out[blockIdx.x] = shared[0];
}

#define GEMM_CHECK(NAME, T)                                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                              \
        gemm_fill_##NAME(T *out, int64_t count, int operand, int bits) {                                               \
        fill(out, count, operand, bits);                                                                               \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                              \
        gemm_gather_##NAME(const T *from, const int64_t *places, int count, float *out) {                              \
        gather(from, places, count, out);                                                                              \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                              \
        gemm_compare_##NAME(const T *got, const T *want, int64_t count, Tolerance tolerance, Comparison *out) {        \
        compare(got, want, count, tolerance, out);                                                                     \
    }
FOR_EACH_TYPE(GEMM_CHECK)
