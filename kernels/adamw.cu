// compute: 75 80
// AdamW (Loshchilov and Hutter 2019) over the flat parameters in one pass: fp32 weights and both moments in place, and
// the weights once more in the type that the model computes in. Every operation is rounded where src/ops/cpu/adamw.rs
// rounds it, so that f32 results have the same bits.
#include "chunks.cuh"
#include "outcome.cuh"

// The numbers of one update, in memory, so that a captured graph serves all; the same struct is in
// src/ops/cuda/adamw.rs.
struct Rule {
    float keep;         // 1 - learning rate * weight decay, where weights decay
    float step_size;    // learning rate / (1 - beta1^t)
    float inverse_root; // 1 / sqrt(1 - beta2^t)
    float beta1, rest1, beta2, rest2, eps;
};

// Where decay ends and begins, ascending: an element decays if an even number of `edges` is not beyond it.
struct Decay {
    const uint64_t *edges;
    int count;

    // How many edges are not beyond `element`.
    __device__ __forceinline__ int before(uint64_t element) const {
        int low = 0, high = count;
        while (low < high) {
            const int middle = (low + high) / 2;
            if (edges[middle] <= element) low = middle + 1;
            else high = middle;
        }
        return low;
    }
};

template <typename T>
__device__ __forceinline__ void update(float *weights, float *m, float *v, const float *gradients, T *copy,
                                       int64_t count, const Decay &decay, const Rule &rule, float scale) {
    const auto body = [&](int64_t at, auto width) {
        constexpr int N = decltype(width)::value;
        float w[N], first[N], second[N], g[N];
        load(weights + at, w);
        load(m + at, first);
        load(v + at, second);
        load(gradients + at, g);
        int edge = decay.before(at);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            while (i > 0 && edge < decay.count && decay.edges[edge] <= at + i) ++edge;
            const float keep = edge % 2 == 0 ? rule.keep : 1.0f;
            const float scaled = __fmul_rn(g[i], scale);
            first[i] = fmaf(first[i], rule.beta1, __fmul_rn(rule.rest1, scaled));
            second[i] = fmaf(second[i], rule.beta2, __fmul_rn(__fmul_rn(rule.rest2, scaled), scaled));
            const float denominator = fmaf(__fsqrt_rn(second[i]), rule.inverse_root, rule.eps);
            const float step = __fdiv_rn(__fmul_rn(rule.step_size, first[i]), denominator);
            w[i] = __fsub_rn(__fmul_rn(w[i], keep), step);
        }
        store(weights + at, w);
        store(m + at, first);
        store(v + at, second);
        if (copy) store(copy + at, w);
    };
    // Four of fp32 are 16 bytes.
    if (is_wide<float>(0, weights, m, v, gradients, copy)) for_elements<WIDE<float>>(count, body);
    else for_elements<1>(count, body);
}

// Changes nothing after a step whose loss or gradients are not finite. `copy` may be null.
#define KERNELS(SUFFIX, T)                                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                             \
        adamw_##SUFFIX(float *weights, float *m, float *v, const float *gradients, T *copy, int64_t count,            \
                       const uint64_t *edges, int edge_count, const Rule *rule, const Outcome *outcome) {             \
        if (!outcome->is_finite) return;                                                                              \
        const Decay decay = {edges, edge_count};                                                                      \
        update(weights, m, v, gradients, copy, count, decay, *rule, outcome->gradient_scale);                         \
    }
FOR_EACH_TYPE(KERNELS)
