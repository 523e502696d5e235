// A tile of A or B in shared memory, laid out so that no access to it has bank conflicts.
#pragma once
#include "mma.cuh"

// Which index neighbours in memory differ in: K for (M, K) and (N, K), else M or N.
enum class Major { K, MN };

// MN x BK elements of T, row by row as in global memory: rows are of MN if neighbours are of K, and the other way
// round. The 16-byte chunks of a row are exchanged: chunk c of row r lies where chunk c ^ phase(r) would.
template <typename T, Major MAJOR, int MN, int BK> struct SharedTile {
    static constexpr int PER_CHUNK = CHUNK_BYTES / int(sizeof(T));
    static constexpr int ROWS = MAJOR == Major::K ? MN : BK;
    static constexpr int CHUNKS = (MAJOR == Major::K ? BK : MN) / PER_CHUNK; // of a row
    static constexpr int BYTES = ROWS * CHUNKS * CHUNK_BYTES;
    // ldmatrix transposes 16-bit elements only: wider ones are read one by one where K runs along the rows.
    static constexpr bool BY_ELEMENT = MAJOR == Major::MN && sizeof(T) == 4;

    static constexpr int phase(int row) {
        if constexpr (BY_ELEMENT) return row % 4 * 2;
        else if constexpr (CHUNKS >= 8) return row % 8;
        else return row / (8 / CHUNKS) % CHUNKS;
    }
    static constexpr int offset(int row, int chunk) {
        return (row * CHUNKS + (chunk ^ phase(row))) * CHUNK_BYTES;
    }

    // Shared memory serves eight chunks at a time if they lie in different bank groups: chunk addresses that differ
    // modulo 8. `place(i)` is the offset of the i-th of eight.
    template <class Place> static constexpr bool in_different_banks(Place place) {
        int seen = 0;
        for (int i = 0; i < 8; ++i) seen |= 1 << place(i) / CHUNK_BYTES % 8;
        return seen == 0xff;
    }
    // cp.async: eight neighbouring lanes write eight chunks in the order of global memory.
    static constexpr bool writes_without_conflicts() {
        bool good = true;
        for (int first = 0; first < ROWS * CHUNKS; first += 8)
            good &= in_different_banks([=](int i) { return offset((first + i) / CHUNKS, (first + i) % CHUNKS); });
        return good;
    }
    // ldmatrix: one chunk of eight rows. By element: two chunks of four rows, a warp's 32 words.
    static constexpr bool reads_without_conflicts() {
        bool good = true;
        for (int row = 0; row < ROWS; row += BY_ELEMENT ? 4 : 8)
            for (int chunk = 0; chunk < CHUNKS; chunk += BY_ELEMENT ? 2 : 1)
                good &= in_different_banks([=](int i) {
                    return BY_ELEMENT ? offset(row + i / 2, chunk + i % 2) : offset(row + i, chunk);
                });
        return good;
    }
    static_assert(CHUNKS == 4 || CHUNKS % 8 == 0, "the exchange stays within a row");
};

// Reads what one mma needs of A (IS_A: 16 of M) or two need of B (16 of N), by 32 bytes of K, into four registers.
// Registers of A: (low M, low K), (high M, low K), (low M, high K), (high M, high K), by halves of the block;
// of B: (low N, low K), (low N, high K), then high N. PTX ISA, "Matrix fragments for mma.m16n8k16" and "...k8".
template <class Tile, typename T, Major MAJOR, bool IS_A> struct FragmentReader {
    static constexpr int K_ELEMENTS = MMA_K_BYTES / int(sizeof(T));
    int row, chunk, phase; // of this lane, in the block's 16 x 32 bytes (K-major) or K x 16 (MN-major)

    __device__ __forceinline__ FragmentReader() {
        const int lane = threadIdx.x % WARP;
        if (Tile::BY_ELEMENT) {
            row = lane % 4;   // of K
            chunk = lane / 4; // not a chunk: one of eight neighbours in M or N
        } else if (IS_A == (MAJOR == Major::K)) {
            row = lane % 16, chunk = lane / 16;
        } else {
            row = lane / 16 * 8 + lane % 8, chunk = lane / 8 % 2;
        }
        phase = Tile::phase(row);
    }

    // `mn`: the first row or column of the block in the tile, a multiple of 16; `step`: which 32 bytes of K.
    __device__ __forceinline__ void read(uint32_t (&to)[4], uint32_t tile, int mn, int step) const {
        if constexpr (Tile::BY_ELEMENT) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int high_mn = IS_A ? i % 2 : i / 2, high_k = IS_A ? i / 2 : i % 2;
                const int k = step * K_ELEMENTS + high_k * 4 + row;
                const int column = mn + high_mn * 8 + chunk;
                const int at = (k * Tile::CHUNKS + ((column / Tile::PER_CHUNK) ^ phase)) * CHUNK_BYTES;
                to[i] = ld_shared(tile + at + column % Tile::PER_CHUNK * int(sizeof(T)));
            }
        } else {
            const int first_row = MAJOR == Major::K ? mn : step * K_ELEMENTS;
            const int first_chunk = MAJOR == Major::K ? 2 * step : mn / Tile::PER_CHUNK;
            // Eight rows on, the phase is the same.
            const int at = (first_row + row) * Tile::CHUNKS + ((first_chunk + chunk) ^ phase);
            ldmatrix<MAJOR == Major::MN>(to, tile + at * CHUNK_BYTES);
        }
        if constexpr (sizeof(T) == 4) {
#pragma unroll
            for (int i = 0; i < 4; ++i) to[i] = round_to_tf32(to[i]);
        }
    }
};
