// compute: 75 80
// GELU where no product's epilogue does it: of activations that are computed again.
#include "chunks.cuh"
#include "gelu.cuh"

// out = function(x)
template <typename T, class Function>
__device__ __forceinline__ void map(const T *x, T *out, int64_t count, Function function) {
    const auto body = [&](int64_t at, auto width) {
        float v[decltype(width)::value];
        load(x + at, v);
#pragma unroll
        for (float &value : v) value = function(value);
        store(out + at, v);
    };
    if (is_wide<T>(0, x, out)) for_elements<WIDE<T>>(count, body);
    else for_elements<1>(count, body);
}

// d *= slope(x)
template <typename T, class Slope>
__device__ __forceinline__ void scale(const T *x, T *d, int64_t count, Slope slope) {
    const auto body = [&](int64_t at, auto width) {
        constexpr int N = decltype(width)::value;
        float v[N], product[N];
        load(x + at, v);
        load(d + at, product);
#pragma unroll
        for (int i = 0; i < N; ++i) product[i] *= slope(v[i]);
        store(d + at, product);
    };
    if (is_wide<T>(0, x, d)) for_elements<WIDE<T>>(count, body);
    else for_elements<1>(count, body);
}

#define KERNELS(SUFFIX, T)                                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                             \
        gelu_tanh_forward_##SUFFIX(const T *x, T *out, int64_t count) {                                               \
        map(x, out, count, gelu_tanh);                                                                                \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                             \
        gelu_erf_forward_##SUFFIX(const T *x, T *out, int64_t count) {                                                \
        map(x, out, count, gelu_erf);                                                                                 \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                             \
        gelu_tanh_backward_##SUFFIX(const T *x, T *d, int64_t count) {                                                \
        scale(x, d, count, gelu_tanh_slope);                                                                          \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                             \
        gelu_erf_backward_##SUFFIX(const T *x, T *d, int64_t count) {                                                 \
        scale(x, d, count, gelu_erf_slope);                                                                           \
    }
FOR_EACH_TYPE(KERNELS)
