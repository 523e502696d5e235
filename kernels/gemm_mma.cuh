// C (M, N) = op(A) op(B) on tensor cores, by mma.sync.
//
// A block makes BM x BN of C, a warp of it WM x WN, in registers. K goes by in tiles of BK through STAGES buffers in
// shared memory: while one is multiplied, the others fill. Within a tile, the fragments of the next 32 bytes of K are
// read while those of the last are multiplied.
//
// With `slices` > 1, K is cut into that many parts, each with a grid of its own along y. They leave fp32 sums in
// `partial`, which gemm_split_k.cu adds up, always in the same order.
#pragma once
#include <type_traits>

#include "gemm_epilogue.cuh"
#include "gemm_loader.cuh"

template <typename T_, int BM_, int BN_, int BK_, int WM_, int WN_, int STAGES_> struct MmaShape {
    using T = T_;
    static constexpr int BM = BM_, BN = BN_, BK = BK_, WM = WM_, WN = WN_, STAGES = STAGES_;
    static constexpr int WARPS_M = BM / WM, WARPS_N = BN / WN;
    static constexpr int THREADS = WARPS_M * WARPS_N * WARP;
    static constexpr int K_STEPS = BK * int(sizeof(T)) / MMA_K_BYTES;
    static_assert(BM % WM == 0 && BN % WN == 0, "warps tile the block");
    static_assert(WM % 16 == 0 && WN % 32 == 0, "fragments are read by 16; rows leave in multiples of 128 bytes");
    static_assert(K_STEPS >= 2 && K_STEPS % 2 == 0, "two sets of fragments take turns, and begin anew with each tile");
    static_assert(STAGES >= 2, "one buffer fills while one is read");
};

// Blocks that run at the same time should share what they read, in L2: they walk down GROUP tiles of C before they go
// on to the next column of tiles.
__device__ __forceinline__ void place_block(int tiles_m, int tiles_n, int &tile_m, int &tile_n) {
    constexpr int GROUP = 8;
    const int group = blockIdx.x / (GROUP * tiles_n), inside = blockIdx.x % (GROUP * tiles_n);
    const int height = min(GROUP, tiles_m - group * GROUP);
    tile_m = group * GROUP + inside % height;
    tile_n = inside / height;
}

// One warp's sums, from registers through shared memory to C: 16 rows at a time, so that lanes next to each other
// write 16 bytes next to each other.
template <class Shape> struct SumWriter {
    // Eight lanes' worth of words more than a row: the lanes' pairs of words fall into different banks.
    static constexpr int PITCH = Shape::WN + 8;
    static constexpr int WARP_BYTES = MMA_M * PITCH * int(sizeof(float));
    using Memory = std::conditional_t<std::is_same_v<typename Shape::T, Tf32>, float, typename Shape::T>;

    float *const rows; // (16, PITCH), of this warp alone
    const int lane = threadIdx.x % WARP;

    // One 16 x WN band of sums to shared memory, as mma holds them: PTX ISA, "Matrix fragments for mma.m16n8k16".
    __device__ __forceinline__ void stage(const float (&sums)[Shape::WN / MMA_N][4]) const {
#pragma unroll
        for (int j = 0; j < Shape::WN / MMA_N; ++j)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float *to = rows + (lane / 4 + 8 * half) * PITCH + j * MMA_N + lane % 4 * 2;
                *reinterpret_cast<float2 *>(to) = make_float2(sums[j][2 * half], sums[j][2 * half + 1]);
            }
    }

    // Hands the band's elements to `put(row, column, x)`, V at a time, and one by one where the matrix ends.
    template <int V, class Put>
    __device__ __forceinline__ void drain(const GemmArguments &p, int row0, int column0, Put put) const {
        constexpr int LANES = Shape::WN / V, ROWS_AT_ONCE = WARP / LANES;
        const int column = column0 + lane % LANES * V;
#pragma unroll 1
        for (int i = lane / LANES; i < MMA_M && row0 + i < p.m; i += ROWS_AT_ONCE) {
            const float *from = rows + i * PITCH + lane % LANES * V;
            if (column + V <= p.n) {
                float x[V];
                load(from, x);
                put(row0 + i, column, x);
                continue;
            }
#pragma unroll 1
            for (int j = 0; column + j < p.n; ++j) {
                float x[1] = {from[j]};
                put(row0 + i, column + j, x);
            }
        }
    }

    __device__ __forceinline__ void write(const GemmArguments &p, int row0, int column0) const {
        if (p.slices > 1) {
            const int pitch = partial_pitch(p);
            float *part = p.partial + int64_t(blockIdx.y) * p.m * pitch;
            drain<4>(p, row0, column0, [&](int row, int column, auto &x) {
                store(part + int64_t(row) * pitch + column, x);
            });
        } else if (p.output_float32) {
            drain<4>(p, row0, column0, [&](int row, int column, auto &x) {
                finish<Memory, float>(p, row, column, x);
            });
        } else {
            drain<CHUNK_BYTES / int(sizeof(Memory))>(p, row0, column0, [&](int row, int column, auto &x) {
                finish<Memory, Memory>(p, row, column, x);
            });
        }
    }
};

template <class Shape, Major A_MAJOR, Major B_MAJOR> __device__ __forceinline__ void gemm_mma(const GemmArguments &p) {
    using T = typename Shape::T;
    constexpr int BM = Shape::BM, BN = Shape::BN, BK = Shape::BK, WM = Shape::WM, WN = Shape::WN;
    constexpr int STAGES = Shape::STAGES, K_STEPS = Shape::K_STEPS, THREADS = Shape::THREADS;
    using TileA = SharedTile<T, A_MAJOR, BM, BK>;
    using TileB = SharedTile<T, B_MAJOR, BN, BK>;
    static_assert(TileA::writes_without_conflicts() && TileB::writes_without_conflicts(), "cp.async at full speed");
    static_assert(TileA::reads_without_conflicts() && TileB::reads_without_conflicts(), "ldmatrix at full speed");
    constexpr int STAGE_BYTES = TileA::BYTES + TileB::BYTES;
    static_assert(STAGE_BYTES == (BM + BN) * BK * int(sizeof(T)), "as the host computes it");
    static_assert(THREADS / WARP * SumWriter<Shape>::WARP_BYTES <= STAGES * STAGE_BYTES,
                  "the sums leave through the memory that the tiles came in by");
    extern __shared__ __align__(128) uint8_t shared[];

    int tile_m, tile_n;
    place_block(ceil_div(p.m, BM), ceil_div(p.n, BN), tile_m, tile_n);
    const int m0 = tile_m * BM, n0 = tile_n * BN;
    // Slices are of whole tiles; the last ones may be shorter, or empty.
    const int slice = ceil_div(ceil_div(p.k, BK), p.slices) * BK;
    const int k0 = min(int(blockIdx.y) * slice, p.k), k_end = min(k0 + slice, p.k);
    const int tiles = ceil_div(k_end - k0, BK);

    TileLoader<TileA, T, A_MAJOR, THREADS> a_loader(p.a, p.row_a, m0, p.m, k0, k_end);
    TileLoader<TileB, T, B_MAJOR, THREADS> b_loader(p.b, p.row_b, n0, p.n, k0, k_end);
    const FragmentReader<TileA, T, A_MAJOR, true> a_reader;
    const FragmentReader<TileB, T, B_MAJOR, false> b_reader;
    const uint32_t a_tiles = shared_address(shared), b_tiles = a_tiles + TileA::BYTES;
    const int warp = threadIdx.x / WARP;
    const int warp_m = warp % Shape::WARPS_M * WM, warp_n = warp / Shape::WARPS_M * WN;

    float sums[WM / MMA_M][WN / MMA_N][4] = {};
    uint32_t a[2][WM / 16][4], b[2][WN / 16][4];

    auto fetch = [&](uint32_t stage) {
        a_loader.template fetch<BK>(a_tiles + stage);
        b_loader.template fetch<BK>(b_tiles + stage);
    };
    // What was fetched first and not yet waited for is there, for the whole block; and the block is done with the
    // buffer before it.
    auto await_tile = [&] {
        a_loader.land();
        b_loader.land();
#if __CUDA_ARCH__ >= 800
        cp_async_wait<STAGES - 2>();
#endif
        __syncthreads();
    };
    auto commit = [] {
#if __CUDA_ARCH__ >= 800
        cp_async_commit();
#endif
    };
    auto read = [&](int set, uint32_t stage, int step) {
#pragma unroll
        for (int i = 0; i < WM / 16; ++i) a_reader.read(a[set][i], a_tiles + stage, warp_m + 16 * i, step);
#pragma unroll
        for (int j = 0; j < WN / 16; ++j) b_reader.read(b[set][j], b_tiles + stage, warp_n + 16 * j, step);
    };
    auto multiply = [&](int set) {
#pragma unroll
        for (int i = 0; i < WM / MMA_M; ++i)
#pragma unroll
            for (int j = 0; j < WN / MMA_N; ++j) {
                const uint32_t pair[2] = {b[set][j / 2][j % 2 * 2], b[set][j / 2][j % 2 * 2 + 1]};
                mma<T>(sums[i][j], a[set][i], pair);
            }
    };
    auto next = [](uint32_t stage) {
        return stage == (STAGES - 1) * STAGE_BYTES ? 0u : stage + STAGE_BYTES;
    };

#pragma unroll
    for (int stage = 0; stage < STAGES - 1; ++stage) {
        fetch(stage * STAGE_BYTES);
        commit();
    }
    uint32_t reading = 0, filling = (STAGES - 1) * STAGE_BYTES; // offsets of buffers
    await_tile();
    read(0, reading, 0);
#pragma unroll 1
    for (int tile = 0; tile < tiles; ++tile) {
#pragma unroll
        for (int step = 0; step < K_STEPS; ++step) {
            if (step == 0) {
                // The buffer of the tile before, which the whole block has left: see the last step.
                fetch(filling);
                commit();
                filling = next(filling);
            }
            if (step == K_STEPS - 1) {
                await_tile();
                reading = next(reading);
            }
            read((step + 1) % 2, reading, (step + 1) % K_STEPS);
            multiply(step % 2);
        }
    }
#if __CUDA_ARCH__ >= 800
    cp_async_wait<0>();
#endif
    __syncthreads();

    const SumWriter<Shape> writer{reinterpret_cast<float *>(shared + warp * SumWriter<Shape>::WARP_BYTES)};
    // A loop that is not unrolled, for one copy of the epilogue's code; registers need constant indices.
#pragma unroll 1
    for (int band = 0; band < WM / MMA_M; ++band) {
#pragma unroll
        for (int i = 0; i < WM / MMA_M; ++i)
            if (i == band) writer.stage(sums[i]);
        __syncwarp();
        writer.write(p, m0 + warp_m + band * MMA_M, n0 + warp_n);
        __syncwarp();
    }
}

// Kernels of one tile, for A and B as they are (n) and transposed (t).
#define GEMM_MMA_AS(NAME, SHAPE, LETTERS, A_MAJOR, B_MAJOR)                                                            \
    extern "C" __global__ void __launch_bounds__(SHAPE::THREADS, 1)                                                      \
        NAME##_##LETTERS(const __grid_constant__ GemmArguments p) {                                                    \
        gemm_mma<SHAPE, Major::A_MAJOR, Major::B_MAJOR>(p);                                                            \
    }
#define GEMM_MMA(TYPE, T, BM, BN, BK, WM, WN, STAGES)                                                                  \
    using Shape_##BM##x##BN##x##BK##_s##STAGES = MmaShape<T, BM, BN, BK, WM, WN, STAGES>;                              \
    GEMM_MMA_AS(gemm_##TYPE##_##BM##x##BN##x##BK##_s##STAGES, Shape_##BM##x##BN##x##BK##_s##STAGES, nn, K, MN)         \
    GEMM_MMA_AS(gemm_##TYPE##_##BM##x##BN##x##BK##_s##STAGES, Shape_##BM##x##BN##x##BK##_s##STAGES, nt, K, K)          \
    GEMM_MMA_AS(gemm_##TYPE##_##BM##x##BN##x##BK##_s##STAGES, Shape_##BM##x##BN##x##BK##_s##STAGES, tn, MN, MN)        \
    GEMM_MMA_AS(gemm_##TYPE##_##BM##x##BN##x##BK##_s##STAGES, Shape_##BM##x##BN##x##BK##_s##STAGES, tt, MN, K)
