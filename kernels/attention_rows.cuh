// Rows of one head in shared memory: how they come in, how tensor cores read them, how they leave.
#pragma once
#include "attention.cuh"
#include "mma.cuh"

// ROWS rows of D elements, without gaps: what is not spent on padding is a block more on an SM. Chunk c of row r lies
// where chunk c ^ phase(r) would, so that the eight rows that ldmatrix reads at a time fall into different banks.
template <typename T, int D, int ROWS_> struct RowTile {
    static constexpr int ROWS = ROWS_, CHUNKS = D * int(sizeof(T)) / CHUNK_BYTES, PITCH = CHUNKS * CHUNK_BYTES;
    static constexpr int BYTES = ROWS * PITCH;
    // Chunks that may change places: eight fill all banks; less, where a row is no multiple of that.
    static constexpr int SPREAD = CHUNKS % 8 == 0 ? 8 : CHUNKS % 4 == 0 ? 4 : 2;
    static_assert(D % MMA_M == 0 && ROWS % MMA_M == 0, "fragments are whole");

    __host__ __device__ static constexpr int phase(int row) { return row / (8 / SPREAD) % SPREAD; }
    __host__ __device__ static constexpr int offset(int row, int chunk) {
        return row * PITCH + (chunk ^ phase(row)) * CHUNK_BYTES;
    }
    // The phases of eight rows repeat.
    static constexpr bool reads_without_conflicts() {
        for (int chunk = 0; chunk < CHUNKS; ++chunk) {
            int banks = 0;
            for (int row = 0; row < 8; ++row) banks |= 1 << offset(row, chunk) / CHUNK_BYTES % 8;
            if (banks != 0xff) return false;
        }
        return true;
    }
};

// Copies under way to shared memory. Turing has none: there, a copy is done when its instruction is.
__device__ __forceinline__ void commit_copies() {
#if __CUDA_ARCH__ >= 800
    cp_async_commit();
#endif
}
// All that was committed is there, for the whole block, which is done with whatever it read before.
__device__ __forceinline__ void await_copies() {
#if __CUDA_ARCH__ >= 800
    cp_async_wait<0>();
#endif
    __syncthreads();
}
// 16 bytes, or zeros. To shared memory.
__device__ __forceinline__ void copy_chunk(uint32_t to, const void *from, bool inside) {
#if __CUDA_ARCH__ >= 800
    cp_async(to, from, inside ? CHUNK_BYTES : 0);
#else
    const uint4 words = inside ? *static_cast<const uint4 *>(from) : make_uint4(0, 0, 0, 0);
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(words.x), "r"(words.y), "r"(words.z),
                 "r"(words.w)
                 : "memory");
#endif
}

// 8 bytes, or zeros.
__device__ __forceinline__ void copy_words(uint32_t to, const void *from, bool inside) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(to), "l"(from), "r"(inside ? 8 : 0) : "memory");
#else
    const uint2 words = inside ? *static_cast<const uint2 *>(from) : make_uint2(0, 0);
    asm volatile("st.shared.v2.b32 [%0], {%1, %2};" ::"r"(to), "r"(words.x), "r"(words.y) : "memory");
#endif
}

// Copies tile after tile of rows. A thread keeps to one column of chunks.
template <class Tile, typename T, int THREADS> struct RowLoader {
    static constexpr int ROWS_AT_ONCE = THREADS / Tile::CHUNKS, PASSES = ceil_div(Tile::ROWS, ROWS_AT_ONCE);
    static constexpr bool EXACT = THREADS % Tile::CHUNKS == 0 && Tile::ROWS % ROWS_AT_ONCE == 0;

    const T *const head;  // row 0 of what is copied
    const int stride;     // from row to row
    const int positions;  // rows from there on become zeros
    const int row = threadIdx.x / Tile::CHUNKS, chunk = threadIdx.x % Tile::CHUNKS; // this thread's first in a tile

    // Starts to copy the tile of rows `first` and on, of what lies `beside` elements further on.
    __device__ __forceinline__ void fetch(uint32_t tile, int first, int beside = 0) const {
        // All threads have this in common; their own part takes no more than 32 bits.
        const T *from = head + int64_t(first) * stride + beside;
        const int mine = row * stride + chunk * WIDE<T>;
#pragma unroll
        for (int pass = 0; pass < PASSES; ++pass, from += ROWS_AT_ONCE * stride) {
            const int r = row + pass * ROWS_AT_ONCE;
            if (EXACT || (row < ROWS_AT_ONCE && r < Tile::ROWS))
                copy_chunk(tile + Tile::offset(r, chunk), from + mine, first + r < positions);
        }
    }
};

// Reads 16 rows by 32 bytes at a time from tiles of rows of D elements, as four matrices: low and high rows of the low
// chunk, then of the high one. That is a fragment of A, and fragments of B for two mma: see `multiply`, `accumulate`.
// PTX ISA, "Matrix fragments for mma.m16n8k16".
template <class Tile> struct FragmentReader {
    const int lane = threadIdx.x % WARP;
    // What this lane adds to any address; of its chunk, as it was exchanged, the place.
    const int rows = lane % 16 * Tile::PITCH, chunk = (lane / 16 ^ Tile::phase(lane % 16)) * CHUNK_BYTES;

    // `row` is a multiple of 16; `step` counts 32 bytes.
    template <bool TRANSPOSED>
    __device__ __forceinline__ void read(uint32_t (&to)[4], uint32_t tile, int row, int step) const {
        // Bit 0 of a chunk's number is the lane's, the others are the step's: an exclusive or adds them.
        ldmatrix<TRANSPOSED>(to, tile + row * Tile::PITCH + rows + (chunk ^ 2 * step * CHUNK_BYTES));
    }
};

// Fragments of A, in registers: a warp's M_TILES x 16 rows, STEPS x 16 columns.
template <int M_TILES, int STEPS> struct Held {
    uint32_t fragment[M_TILES][STEPS][4];

    __device__ __forceinline__ void read_a(uint32_t (&to)[4], int i, int step) const {
#pragma unroll
        for (int r = 0; r < 4; ++r) to[r] = fragment[i][step][r];
    }
};
// The same, left in shared memory.
template <class Tile> struct Shared {
    const FragmentReader<Tile> &reader;
    const uint32_t rows; // the warp's first

    __device__ __forceinline__ void read_a(uint32_t (&to)[4], int i, int step) const {
        reader.template read<false>(to, rows, i * MMA_M, step);
    }
    template <int M_TILES, int STEPS> __device__ __forceinline__ void hold(Held<M_TILES, STEPS> &held) const {
#pragma unroll
        for (int i = 0; i < M_TILES; ++i)
#pragma unroll
            for (int step = 0; step < STEPS; ++step) read_a(held.fragment[i][step], i, step);
    }
};

// exp2, flushing what is smaller than 2^-126 to zero.
__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Sums of a warp as mma leaves them. Element e of [i][j]: row 16 i + lane / 4 + 8 (e / 2), column 8 j + 2 (lane % 4) +
// e % 2.
template <int M_TILES, int N_TILES> using Sums = float[M_TILES][N_TILES][4];

// sums = a b^T: a's rows by the rows of a tile. What is summed over are the D elements of a row.
template <typename T, int D, int M_TILES, int N_TILES, class A, class Reader>
__device__ __forceinline__ void multiply(Sums<M_TILES, N_TILES> &sums, const A &a, const Reader &reader, uint32_t b) {
#pragma unroll
    for (int i = 0; i < M_TILES; ++i)
#pragma unroll
        for (int j = 0; j < N_TILES; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) sums[i][j][e] = 0.0f;
#pragma unroll
    for (int step = 0; step < D / 16; ++step) {
        uint32_t a_fragment[M_TILES][4];
#pragma unroll
        for (int i = 0; i < M_TILES; ++i) a.read_a(a_fragment[i], i, step);
#pragma unroll
        for (int j = 0; j < N_TILES; j += 2) {
            uint32_t two[4];
            // Rows are columns of B: the low ones are the first mma's.
            reader.template read<false>(two, b, j * MMA_N, step);
            const uint32_t first[2] = {two[0], two[2]}, second[2] = {two[1], two[3]};
#pragma unroll
            for (int i = 0; i < M_TILES; ++i) {
                mma<T>(sums[i][j], a_fragment[i], first);
                mma<T>(sums[i][j + 1], a_fragment[i], second);
            }
        }
    }
}

// What was summed is multiplied next: two neighbouring tiles of sums hold what a fragment of A does, in this order.
// Each element is what `value` makes of it.
template <typename T, int M_TILES, int N_TILES, class Value>
__device__ __forceinline__ void to_fragments(Held<M_TILES, N_TILES / 2> &to, const Sums<M_TILES, N_TILES> &sums,
                                             Value value) {
#pragma unroll
    for (int i = 0; i < M_TILES; ++i)
#pragma unroll
        for (int j = 0; j < N_TILES; ++j)
#pragma unroll
            for (int half = 0; half < 2; ++half)
                to.fragment[i][j / 2][j % 2 * 2 + half] =
                    pack<T>(value(sums[i][j][2 * half]), value(sums[i][j][2 * half + 1]));
}

// sums += weights b: b's rows, weighted. What is summed over are the rows of the tile.
template <typename T, int D, int M_TILES, int STEPS, class Reader>
__device__ __forceinline__ void accumulate(Sums<M_TILES, D / MMA_N> &sums, const Held<M_TILES, STEPS> &weights,
                                           const Reader &reader, uint32_t b) {
#pragma unroll
    for (int step = 0; step < STEPS; ++step)
#pragma unroll
        for (int j = 0; j < D / MMA_N; j += 2) {
            uint32_t two[4];
            // Rows are rows of B: the low chunk is the first mma's.
            reader.template read<true>(two, b, step * 16, j / 2);
            const uint32_t first[2] = {two[0], two[1]}, second[2] = {two[2], two[3]};
#pragma unroll
            for (int i = 0; i < M_TILES; ++i) {
                mma<T>(sums[i][j], weights.fragment[i][step], first);
                mma<T>(sums[i][j + 1], weights.fragment[i][step], second);
            }
        }
}

// A warp's sums to global memory, through its own rows of a tile in shared memory: lanes next to each other write 16
// bytes next to each other. factor[i][half] belongs to row 16 i + lane / 4 + 8 half.
template <class Tile, typename T, int M_TILES, int N_TILES>
__device__ __forceinline__ void store_rows(const Sums<M_TILES, N_TILES> &sums, const float (&factor)[M_TILES][2],
                                           uint8_t *tile, int tile_row, T *to, int stride, int rows_left) {
    const int lane = threadIdx.x % WARP;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < M_TILES; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int j = 0; j < N_TILES; ++j) {
                const int row = tile_row + i * MMA_M + 8 * half + lane / 4;
                const float *pair = &sums[i][j][2 * half], f = factor[i][half];
                *reinterpret_cast<uint32_t *>(tile + Tile::offset(row, j) + lane % 4 * 4) =
                    pack<T>(pair[0] * f, pair[1] * f);
            }
    __syncwarp();
#pragma unroll
    for (int e = lane; e < M_TILES * MMA_M * Tile::CHUNKS; e += WARP) {
        const int row = e / Tile::CHUNKS, chunk = e % Tile::CHUNKS;
        if (row < rows_left)
            *reinterpret_cast<uint4 *>(to + int64_t(row) * stride + chunk * WIDE<T>) =
                *reinterpret_cast<const uint4 *>(tile + Tile::offset(tile_row + row, chunk));
    }
}
