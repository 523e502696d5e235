// compute: 75 80
// Token plus position embedding, and its backward. Arrays of rows are (R, C), `positions` rows to a sample.
#include "chunks.cuh"
#include "dropout.cuh"

// out = dropout(wte[token] + wpe[first_position + position])
template <typename T, int N>
__device__ __forceinline__ void forward(const uint32_t *tokens, const T *wte, const T *wpe, T *out, int rows,
                                        int columns, int positions, int first_position, const Dropout &dropout) {
    for_chunks<N>(rows, columns, [&](uint64_t at, uint32_t row, uint32_t column) {
        const uint32_t position = row % positions;
        float sum[N], place[N], factor[N];
        load(wte + uint64_t(tokens[row]) * columns + column, sum);
        load(wpe + uint64_t(first_position + position) * columns + column, place);
#pragma unroll
        for (int i = 0; i < N; ++i) sum[i] += place[i], factor[i] = 1.0f;
        if (dropout.on) MaskRow(dropout, row / positions, position, columns).factors(column, factor);
#pragma unroll
        for (int i = 0; i < N; ++i) sum[i] *= factor[i];
        store(out + at, sum);
    });
}

// out = wte[token] + wpe[place % positions], of generation
template <typename T, int N>
__device__ __forceinline__ void forward_at(const uint32_t *tokens, const uint32_t *places, const T *wte, const T *wpe,
                                           T *out, int rows, int columns, int positions) {
    for_chunks<N>(rows, columns, [&](uint64_t at, uint32_t row, uint32_t column) {
        float sum[N], place[N];
        load(wte + uint64_t(tokens[row]) * columns + column, sum);
        load(wpe + uint64_t(places[row] % positions) * columns + column, place);
#pragma unroll
        for (int i = 0; i < N; ++i) sum[i] += place[i];
        store(out + at, sum);
    });
}

template <int N> __device__ __forceinline__ void add_to(float *total, const float (&x)[N]) {
    float sum[N];
    load(total, sum);
#pragma unroll
    for (int i = 0; i < N; ++i) sum[i] += x[i];
    store(total, sum);
}

// dwpe[position] += the sum over samples of dout.
template <typename T, int N>
__device__ __forceinline__ void positions_backward(const T *dout, float *dwpe, int samples, int positions,
                                                   int columns) {
    const int64_t sample_len = int64_t(positions) * columns;
    for_chunks<N>(positions, columns, [&](uint64_t at, uint32_t, uint32_t) {
        float sum[N] = {};
#pragma unroll 4
        for (int sample = 0; sample < samples; ++sample) {
            float x[N];
            load(dout + sample * sample_len + at, x);
#pragma unroll
            for (int i = 0; i < N; ++i) sum[i] += x[i];
        }
        add_to(dwpe + at, sum);
    });
}

// The backward of the tokens goes along `order`, the rows sorted by token, and cuts it into windows of equal length, so
// that a token in half of all rows takes no longer than one in each. A run of rows of one token belongs to the window
// that it begins in, which adds what it sees of it to dwte; a later window leaves its sum in its line of `heads`, and
// tokens_join adds those to dwte. Everything is added in the order of the rows.
constexpr int WINDOW = 32; // src/ops/cuda/embedding.rs says so, too

// Rows of the window fetched before the first is added.
constexpr int ROWS_AT_ONCE = 4;

struct Sorted {
    const uint32_t *tokens, *order; // (R)
    int rows;

    __device__ __forceinline__ uint32_t token(int place) const { return tokens[order[place]]; }
    // Whether the row at `place` has the token of the row before it.
    __device__ __forceinline__ bool continues(int place) const {
        return place > 0 && place < rows && token(place) == token(place - 1);
    }
};

template <typename T, int N>
__device__ __forceinline__ void tokens_backward(const Sorted &sorted, const T *dout, float *dwte, float *heads,
                                                int columns) {
    __shared__ uint32_t row[WINDOW], token[WINDOW];
    __shared__ bool begins_before;
    const int first = blockIdx.x * WINDOW, count = min(WINDOW, sorted.rows - first);
    if (threadIdx.x < count) {
        row[threadIdx.x] = sorted.order[first + threadIdx.x];
        token[threadIdx.x] = sorted.tokens[row[threadIdx.x]];
    }
    if (threadIdx.x == 0) begins_before = sorted.continues(first);
    __syncthreads();
    for (int column = threadIdx.x * N; column < columns; column += blockDim.x * N) {
        float sum[N] = {};
        bool head = begins_before;
        for (int i = 0; i < count; i += ROWS_AT_ONCE) {
            Chunk<T, N> chunk[ROWS_AT_ONCE];
#pragma unroll
            for (int k = 0; k < ROWS_AT_ONCE; ++k)
                if (i + k < count) chunk[k] = Chunk<T, N>::load(dout + int64_t(row[i + k]) * columns + column);
#pragma unroll
            for (int k = 0; k < ROWS_AT_ONCE; ++k) {
                if (i + k >= count) break;
                float x[N];
                chunk[k].unpack(x);
#pragma unroll
                for (int j = 0; j < N; ++j) sum[j] += x[j];
                const bool goes_on = i + k + 1 < count && token[i + k + 1] == token[i + k];
                if (goes_on) continue;
                if (head) {
                    store(heads + int64_t(blockIdx.x) * columns + column, sum);
                } else {
                    add_to(dwte + int64_t(token[i + k]) * columns + column, sum);
                }
                head = false;
#pragma unroll
                for (int j = 0; j < N; ++j) sum[j] = 0.0f;
            }
        }
    }
}

// A block looks after the run at its window's end, if that begins there and goes on.
template <int N>
__device__ __forceinline__ void tokens_join(const Sorted &sorted, const float *heads, float *dwte, int columns) {
    const int first = blockIdx.x * WINDOW, next = first + WINDOW;
    const uint32_t token = sorted.token(next - 1);
    const bool begins_before = sorted.continues(first) && sorted.token(first) == token;
    if (begins_before || !sorted.continues(next)) return;
    // The last window that begins within the run; tokens ascend.
    int last = blockIdx.x + 1, beyond = ceil_div(sorted.rows, WINDOW);
    while (beyond - last > 1) {
        const int middle = (last + beyond) / 2;
        (sorted.token(middle * WINDOW) == token ? last : beyond) = middle;
    }
    for (int column = threadIdx.x * N; column < columns; column += blockDim.x * N) {
        float sum[N] = {};
#pragma unroll 8
        for (int window = blockIdx.x + 1; window <= last; ++window) {
            float x[N];
            load(heads + int64_t(window) * columns + column, x);
#pragma unroll
            for (int i = 0; i < N; ++i) sum[i] += x[i];
        }
        add_to(dwte + int64_t(token) * columns + column, sum);
    }
}

#define KERNELS(SUFFIX, T)                                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                             \
        embedding_forward_##SUFFIX(const uint32_t *tokens, const T *wte, const T *wpe, T *out, int rows, int columns, \
                                   int positions, int first_position, const uint32_t *header, DropoutRule rule) {     \
        const Dropout dropout(header, rule);                                                                          \
        if (is_wide<T>(columns, wte, wpe, out))                                                                       \
            forward<T, WIDE<T>>(tokens, wte, wpe, out, rows, columns, positions, first_position, dropout);            \
        else forward<T, 1>(tokens, wte, wpe, out, rows, columns, positions, first_position, dropout);                 \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                             \
        embedding_at_##SUFFIX(const uint32_t *tokens, const uint32_t *places, const T *wte, const T *wpe, T *out,     \
                              int rows, int columns, int positions) {                                                 \
        if (is_wide<T>(columns, wte, wpe, out))                                                                       \
            forward_at<T, WIDE<T>>(tokens, places, wte, wpe, out, rows, columns, positions);                          \
        else forward_at<T, 1>(tokens, places, wte, wpe, out, rows, columns, positions);                               \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                             \
        embedding_positions_backward_##SUFFIX(const T *dout, float *dwpe, int samples, int positions, int columns) {  \
        if (is_wide<T>(columns, dout, dwpe))                                                                          \
            positions_backward<T, WIDE<T>>(dout, dwpe, samples, positions, columns);                                  \
        else positions_backward<T, 1>(dout, dwpe, samples, positions, columns);                                       \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                             \
        embedding_tokens_backward_##SUFFIX(const uint32_t *tokens, const uint32_t *order, const T *dout, float *dwte, \
                                           float *heads, int rows, int columns) {                                     \
        const Sorted sorted = {tokens, order, rows};                                                                  \
        if (is_wide<T>(columns, dout, dwte, heads)) tokens_backward<T, WIDE<T>>(sorted, dout, dwte, heads, columns);         \
        else tokens_backward<T, 1>(sorted, dout, dwte, heads, columns);                                               \
    }
FOR_EACH_TYPE(KERNELS)

// Grid: every window but the last.
extern "C" __global__ void __launch_bounds__(THREADS)
    embedding_tokens_join_f32(const uint32_t *tokens, const uint32_t *order, const float *heads, float *dwte, int rows,
                              int columns) {
    const Sorted sorted = {tokens, order, rows};
    if (is_wide<float>(columns, heads, dwte)) tokens_join<WIDE<float>>(sorted, heads, dwte, columns);
    else tokens_join<1>(sorted, heads, dwte, columns);
}
