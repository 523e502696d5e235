// compute: 75 80
// Softmax cross-entropy of a chunk of logits (R, V): losses, and in place of the logits their gradients.
// A block takes a row.
#include <cfloat>

#include "element.cuh"
#include "reduce.cuh"

constexpr int MOST_THREADS = 1024; // src/ops/cuda/cross_entropy.rs says so, too
// Chunks of a row that a thread keeps in registers: with 1,024 threads, rows of 57,344 logits of 16 bits.
constexpr int HELD = 7;

// A row as the 16-byte chunks of memory that it lies in. A row of odd width begins within a chunk: the first and the
// last may be shared with the neighbours, and are then accessed element by element.
template <typename T> struct LogitRow {
    static constexpr int N = WIDE<T>;
    T *const row;
    const int vocab;
    const int lead; // elements of the first chunk that are not in the row
    const int chunks;

    __device__ __forceinline__ LogitRow(T *row, int vocab)
        : row(row), vocab(vocab), lead(int(reinterpret_cast<uint64_t>(row) % 16 / sizeof(T))),
          chunks(ceil_div(lead + vocab, N)) {}

    __device__ __forceinline__ int column(int chunk) const { return chunk * N - lead; }
    __device__ __forceinline__ bool is_whole(int chunk) const {
        return column(chunk) >= 0 && column(chunk) + N <= vocab;
    }
    __device__ __forceinline__ bool is_inside(int column) const { return column >= 0 && column < vocab; }

    // Minus infinity where the row is not.
    __device__ __forceinline__ Chunk<T, N> read(int chunk) const {
        if (is_whole(chunk)) return Chunk<T, N>::load(row + column(chunk));
        float x[N];
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const int c = column(chunk) + i;
            x[i] = is_inside(c) ? to_float(row[c]) : -INFINITY;
        }
        return Chunk<T, N>::pack(x);
    }
    __device__ __forceinline__ void write(int chunk, const float (&x)[N]) const {
        if (is_whole(chunk)) return store(row + column(chunk), x);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const int c = column(chunk) + i;
            if (is_inside(c)) row[c] = from_float<T>(x[i]);
        }
    }
};

// The largest of some logits, and the sum of exp(logit - largest), both of one thread.
struct Softmax {
    float top = -FLT_MAX, total = 0.0f;

    template <int N> __device__ __forceinline__ void add(const float (&x)[N]) {
        float higher = top;
#pragma unroll
        for (int i = 0; i < N; ++i) higher = fmaxf(higher, x[i]);
        total *= __expf(top - higher);
        top = higher;
#pragma unroll
        for (int i = 0; i < N; ++i) total += __expf(x[i] - top);
    }
    // Of the whole block.
    __device__ __forceinline__ Softmax over_block() const {
        __shared__ float memory[MOST_WARPS], sums[1][MOST_WARPS];
        Softmax whole;
        whole.top = block_max(top, memory);
        float sum[1] = {total * __expf(top - whole.top)};
        block_sums(sum, sums);
        whole.total = sum[0];
        return whole;
    }
};

// Calls `body(i, chunk)` for the thread's chunks, `i` counting them.
template <bool HOLD, class Body> __device__ __forceinline__ void each_chunk(int chunks, Body body) {
    if constexpr (HOLD) {
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            const int chunk = i * blockDim.x + threadIdx.x;
            if (chunk < chunks) body(i, chunk);
        }
    } else {
        for (int chunk = threadIdx.x; chunk < chunks; chunk += blockDim.x) body(0, chunk);
    }
}

// With HOLD the row is read once; else a second time, of which L2 serves what it still has. Where `scale` is null,
// the logits stay as they are.
template <typename T, bool HOLD>
__device__ __forceinline__ void cross_entropy(const LogitRow<T> &row, int target, float *loss, const float *scale) {
    constexpr int N = WIDE<T>;
    Chunk<T, N> held[HOLD ? HELD : 1];
    Softmax softmax;
    each_chunk<HOLD>(row.chunks, [&](int i, int chunk) {
        float x[N];
        held[i] = row.read(chunk);
        held[i].unpack(x);
        softmax.add(x);
    });
    // Before the barriers within, after which others write it.
    const float target_logit = threadIdx.x == 0 ? to_float(row.row[target]) : 0.0f;
    softmax = softmax.over_block();
    if (threadIdx.x == 0) *loss = logf(softmax.total) - (target_logit - softmax.top);
    if (scale == nullptr) return;

    const float one = *scale, factor = one / softmax.total;
    each_chunk<HOLD>(row.chunks, [&](int i, int chunk) {
        float x[N];
        if (!HOLD) held[i] = row.read(chunk);
        held[i].unpack(x);
#pragma unroll
        for (int k = 0; k < N; ++k) {
            const float hot = row.column(chunk) + k == target ? one : 0.0f;
            x[k] = fmaf(__expf(x[k] - softmax.top), factor, -hot);
        }
        row.write(chunk, x);
    });
}

#define KERNELS(SUFFIX, T)                                                                                            \
    extern "C" __global__ void __launch_bounds__(MOST_THREADS)                                                        \
        cross_entropy_##SUFFIX(T *logits, const uint32_t *targets, float *losses, const float *scale, int vocab) {    \
        const LogitRow<T> row(logits + int64_t(blockIdx.x) * vocab, vocab);                                           \
        const int target = targets[blockIdx.x];                                                                       \
        float *loss = losses + blockIdx.x;                                                                            \
        if (row.chunks <= HELD * int(blockDim.x)) cross_entropy<T, true>(row, target, loss, scale);                   \
        else cross_entropy<T, false>(row, target, loss, scale);                                                       \
    }
FOR_EACH_TYPE(KERNELS)
