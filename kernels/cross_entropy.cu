// compute: 75 80
// Softmax cross-entropy of a chunk of logits (R, V): losses, and in place of the logits their gradients.
// A block takes a row.
#include <cfloat>

#include "element.cuh"
#include "reduce.cuh"

constexpr int MOST_THREADS = 768; // src/ops/cuda/cross_entropy.rs says so, too
// Chunks of a row that a thread has in registers at a time, as many as do not spill: with 768 threads, rows of 55,296
// logits of 16 bits.
template <typename T> constexpr int HELD = sizeof(T) == 2 ? 9 : 8;

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

    // A chunk that is not whole, with minus infinity where the row is not.
    __device__ __forceinline__ Chunk<T, N> read_part(int chunk) const {
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

// As many chunks as the block has in registers, from chunk `first` on.
template <typename T> struct HeldChunks {
    static constexpr int N = LogitRow<T>::N;
    Chunk<T, N> held[HELD<T>];

    __device__ __forceinline__ static int count() { return HELD<T> * blockDim.x; }
    __device__ __forceinline__ static int place(int first, int i) { return first + i * blockDim.x + threadIdx.x; }

    __device__ __forceinline__ void fetch(const LogitRow<T> &row, int first) {
        // Nothing comes between these loads: all are under way before the first is waited for.
#pragma unroll
        for (int i = 0; i < HELD<T>; ++i) {
            const int chunk = place(first, i);
            if (row.is_whole(chunk)) held[i] = Chunk<T, N>::load(row.row + row.column(chunk));
        }
#pragma unroll
        for (int i = 0; i < HELD<T>; ++i) {
            const int chunk = place(first, i);
            if (chunk < row.chunks && !row.is_whole(chunk)) held[i] = row.read_part(chunk);
        }
    }
    // Calls `body(chunk, x)` for the thread's chunks.
    template <class Body> __device__ __forceinline__ void each(const LogitRow<T> &row, int first, Body body) const {
#pragma unroll
        for (int i = 0; i < HELD<T>; ++i) {
            const int chunk = place(first, i);
            if (chunk >= row.chunks) continue;
            float x[N];
            held[i].unpack(x);
            body(chunk, x);
        }
    }
};

// A row that the registers hold is read once; a larger one a second time, of which L2 serves what it still has. Where
// `scale` is null, the logits stay as they are.
template <typename T>
__device__ __forceinline__ void cross_entropy(const LogitRow<T> &row, int target, float *loss, const float *scale) {
    constexpr int N = LogitRow<T>::N;
    HeldChunks<T> chunks;
    Softmax softmax;
    for (int first = 0; first < row.chunks; first += chunks.count()) {
        chunks.fetch(row, first);
        chunks.each(row, first, [&](int, const float (&x)[N]) { softmax.add(x); });
    }
    // Before the barriers within, after which others write it.
    const float target_logit = threadIdx.x == 0 ? to_float(row.row[target]) : 0.0f;
    softmax = softmax.over_block();
    if (threadIdx.x == 0) *loss = logf(softmax.total) - (target_logit - softmax.top);
    if (scale == nullptr) return;

    const float one = *scale, factor = one / softmax.total;
    for (int first = 0; first < row.chunks; first += chunks.count()) {
        if (row.chunks > chunks.count()) chunks.fetch(row, first);
        chunks.each(row, first, [&](int chunk, float (&x)[N]) {
#pragma unroll
            for (int i = 0; i < N; ++i) {
                const float hot = row.column(chunk) + i == target ? one : 0.0f;
                x[i] = fmaf(__expf(x[i] - softmax.top), factor, -hot);
            }
            row.write(chunk, x);
        });
    }
}

#define KERNELS(SUFFIX, T)                                                                                            \
    extern "C" __global__ void __launch_bounds__(MOST_THREADS)                                                        \
        cross_entropy_##SUFFIX(T *logits, const uint32_t *targets, float *losses, const float *scale, int vocab) {    \
        const LogitRow<T> row(logits + int64_t(blockIdx.x) * vocab, vocab);                                           \
        cross_entropy(row, int(targets[blockIdx.x]), losses + blockIdx.x, scale);                                     \
    }
FOR_EACH_TYPE(KERNELS)
