// From global to shared memory, one tile of A or B after the other along K.
#pragma once
#include "gemm_tile.cuh"

// All threads of a block together. What lies outside of the matrix becomes zero, and so do tiles beyond the end of
// K, so that the caller needs no branch. From Ampere on copies are asynchronous; on Turing `fetch` keeps them in
// registers, which global memory fills while the block multiplies, and `land` stores them.
template <class Tile, typename T, Major MAJOR, int THREADS> struct TileLoader {
    static constexpr int ROWS_AT_ONCE = THREADS / Tile::CHUNKS;
    static constexpr int PASSES = Tile::ROWS / ROWS_AT_ONCE;
    static_assert(THREADS % Tile::CHUNKS == 0, "a thread stays in its column of chunks");
    static_assert(Tile::ROWS % ROWS_AT_ONCE == 0, "every pass is whole");

    const T *from;       // this thread's first chunk of the next tile
    int64_t stride;      // between rows, in elements
    int row, chunk;      // of that chunk in the tile
    int rows_left;       // of the matrix, from the tile's first row on
    int elements_left;   // of the matrix' rows, from this thread's chunk on
#if __CUDA_ARCH__ < 800
    uint4 held[PASSES];
    uint32_t held_for;
#endif

    // The tile of rows or columns `mn` and on, of `mn_end`, and of K from `k` on, of `k_end`.
    __device__ __forceinline__ TileLoader(const void *matrix, int64_t stride, int mn, int mn_end, int k, int k_end)
        : stride(stride), row(threadIdx.x / Tile::CHUNKS), chunk(threadIdx.x % Tile::CHUNKS) {
        const bool k_major = MAJOR == Major::K;
        const int first_row = k_major ? mn : k, column = (k_major ? k : mn) + chunk * Tile::PER_CHUNK;
        from = static_cast<const T *>(matrix) + (first_row + row) * stride + column;
        rows_left = (k_major ? mn_end : k_end) - first_row;
        elements_left = (k_major ? k_end : mn_end) - column;
    }

    // Starts to copy the next tile to `tile`.
    template <int BK> __device__ __forceinline__ void fetch(uint32_t tile) {
        const int elements = min(max(elements_left, 0), Tile::PER_CHUNK);
#pragma unroll
        for (int pass = 0; pass < PASSES; ++pass) {
            const int r = row + pass * ROWS_AT_ONCE;
            const T *chunk_from = from + pass * ROWS_AT_ONCE * stride;
            copy(tile + Tile::offset(r, chunk), chunk_from, r < rows_left ? elements : 0, pass);
        }
        if (MAJOR == Major::K) from += BK, elements_left -= BK;
        else from += BK * stride, rows_left -= BK;
#if __CUDA_ARCH__ < 800
        held_for = tile;
#endif
    }

#if __CUDA_ARCH__ >= 800
    __device__ __forceinline__ void copy(uint32_t to, const T *chunk_from, int elements, int) {
        cp_async(to, chunk_from, elements * int(sizeof(T)));
    }
    __device__ __forceinline__ void land() {}
#else
    __device__ __forceinline__ void copy(uint32_t, const T *chunk_from, int elements, int pass) {
        held[pass] = make_uint4(0, 0, 0, 0);
        if (elements == Tile::PER_CHUNK) held[pass] = *reinterpret_cast<const uint4 *>(chunk_from);
        else if (elements > 0) held[pass] = part_of_chunk(chunk_from, elements);
    }
    // 16-bit elements, one by one, into the words that they share.
    __device__ __forceinline__ static uint4 part_of_chunk(const T *chunk_from, int elements) {
        static_assert(sizeof(T) == 2, "Turing has 16-bit products only");
        uint32_t word[4] = {};
#pragma unroll
        for (int i = 0; i < 8; ++i)
            if (i < elements)
                word[i / 2] |= uint32_t(reinterpret_cast<const uint16_t *>(chunk_from)[i]) << 16 * (i % 2);
        return make_uint4(word[0], word[1], word[2], word[3]);
    }
    __device__ __forceinline__ void land() {
#pragma unroll
        for (int pass = 0; pass < PASSES; ++pass) {
            const uint32_t to = held_for + Tile::offset(row + pass * ROWS_AT_ONCE, chunk);
            const uint4 words = held[pass];
            asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(words.x), "r"(words.y),
                         "r"(words.z), "r"(words.w)
                         : "memory");
        }
    }
#endif
};
