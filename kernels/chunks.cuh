// Loops of a whole grid over an array, N neighbours at a time. Blocks have THREADS threads.
#pragma once
#include <type_traits>

#include "element.cuh"

constexpr int THREADS = 256;

// Calls `body(element, row, column)` for every N neighbours of (rows, columns), below 2^32 elements.
template <int N, class Body> __device__ __forceinline__ void for_chunks(int rows, int columns, Body body) {
    const uint32_t in_row = columns / N, count = rows * in_row;
    for (uint32_t i = blockIdx.x * THREADS + threadIdx.x; i < count; i += gridDim.x * THREADS) {
        const uint32_t row = i / in_row, column = i % in_row * N;
        body(uint64_t(row) * columns + column, row, column);
    }
}

// Calls `body(element, width)` for every N neighbours of a flat array, where `width` is a type that says N, and for
// the rest of it one by one.
template <int N, class Body> __device__ __forceinline__ void for_elements(int64_t count, Body body) {
    const int64_t thread = int64_t(blockIdx.x) * THREADS + threadIdx.x, threads = int64_t(gridDim.x) * THREADS;
    for (int64_t i = thread; i < count / N; i += threads) body(i * N, std::integral_constant<int, N>());
    if (thread < count % N) body(count - 1 - thread, std::integral_constant<int, 1>());
}
