// compute: 75 80
// fp32 weights in the type that the model computes in.
#include "chunks.cuh"

#define KERNELS(SUFFIX, T)                                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                             \
        cast_##SUFFIX(const float *x, T *out, int64_t count) {                                                        \
        const auto body = [&](int64_t at, auto width) {                                                               \
            float v[decltype(width)::value];                                                                          \
            load(x + at, v);                                                                                          \
            store(out + at, v);                                                                                       \
        };                                                                                                            \
        if (is_wide<float>(0, x, out)) for_elements<WIDE<float>>(count, body);                                        \
        else for_elements<1>(count, body);                                                                            \
    }
FOR_EACH_TYPE(KERNELS)
