// C (M, N) = op(A) op(B) on the tensor cores of compute capability 9.0, by wgmma, fed by the copy engine (TMA).
//
// A block makes 128 x BN of C: two warpgroups of 64 x BN each, with BN / 2 sums per thread in registers. K goes by in
// tiles of 64, 128 bytes of K or of M and N, the widest swizzle; each is good for four wgmma of 16. A third warpgroup only
// copies: one of its threads asks the copy engine for tiles as long as one of STAGES buffers is free, so that no
// multiplying warp ever computes an address or waits for a load's issue. Buffers go round by two mbarriers each: `full`
// completes when the bytes have come, `empty` when all eight multiplying warps have said that they are done with it.
//
// Blocks are persistent, one per multiprocessor: each takes every gridDim.x-th piece of work, so that the loads of the next
// tile are under way while the sums of the last are written, and the pipeline is filled but once. Sums leave by
// memory of their own for that reason.
//
// The 128 x 256 tile reads (128 + 256) elements per 128 x 256 products of a step of K: a quarter less from L2 than
// 128 x 128, which is what such a kernel runs out of first. 128 x 128 is for matrices of few tiles.
//
// Matrices that end within a tile need no special case in the loop: the copy engine fills with zeros.
#pragma once
#include "gemm_sum_writer.cuh"
#include "hopper.cuh"

template <typename T_, int BN_, int STAGES_> struct WgmmaShape {
    using T = T_;
    static constexpr int BM = 128, BN = BN_, BK = 64, STAGES = STAGES_;
    static constexpr int WARPGROUP = 128, CONSUMERS = 2, CONSUMER_WARPS = CONSUMERS * WARPGROUP / WARP;
    static constexpr int THREADS = (1 + CONSUMERS) * WARPGROUP;
    // A block of 384 threads starts with 168 registers each. The copying warpgroup needs few of them; what it gives back
    // is room for the sums: 40 + 2 x 232 = 3 x 168.
    static constexpr int COPY_REGISTERS = 40, MULTIPLY_REGISTERS = 232;
    static constexpr int A_BYTES = BM * BK * int(sizeof(T)), B_BYTES = BN * BK * int(sizeof(T));
    static constexpr int STAGE_BYTES = A_BYTES + B_BYTES;
    // Columns of sums that a warp writes at a time: 128 bytes of fp32, whole lines; more would not fit beside the buffers.
    static constexpr int BAND = 32;
    using Writer = SumWriter<T, BAND>;
    static constexpr int SUM_BYTES = CONSUMER_WARPS * Writer::WARP_BYTES;
    // As the host asks for it: src/ops/gemm/ptx/tile.rs.
    static constexpr int SHARED_BYTES = STAGES * STAGE_BYTES + SUM_BYTES + STAGES * 2 * int(sizeof(Barrier));
    static_assert(SHARED_BYTES <= 227 << 10, "what a block can have");
    static_assert(A_BYTES % 1024 == 0 && B_BYTES % 1024 == 0, "swizzles start at multiples of 1024 bytes");
    static_assert(BK * sizeof(T) == 128, "rows of tiles are as wide as the swizzle");
};

// The pieces of work of a launch, in order: slices of K, and within one the tiles of C. Blocks that run at the same time
// should share what they read, in L2: tiles go down GROUP of them before they go on to the next column.
struct Work {
    int m0, n0, slice, k0, steps;

    template <class Shape> __device__ __forceinline__ static int count(const GemmArguments &p) {
        return ceil_div(p.m, Shape::BM) * ceil_div(p.n, Shape::BN) * p.slices;
    }

    template <class Shape> __device__ __forceinline__ static Work number(const GemmArguments &p, int number) {
        // 16 x 128 rows and as many columns as are left for 132 multiprocessors: about a square.
        constexpr int GROUP = 16;
        const int tiles_m = ceil_div(p.m, Shape::BM), tiles_n = ceil_div(p.n, Shape::BN);
        const int slice = number / (tiles_m * tiles_n), tile = number % (tiles_m * tiles_n);
        const int group = tile / (GROUP * tiles_n), inside = tile % (GROUP * tiles_n);
        const int height = min(GROUP, tiles_m - group * GROUP);
        // Slices are of whole tiles, as many as the others or one more. None is empty, for there are no more slices than
        // tiles of K: zeros that stand in for sums would cost registers that only spilling could find.
        const int steps = ceil_div(p.k, Shape::BK), first = steps * slice / p.slices;
        return {(group * GROUP + inside % height) * Shape::BM, inside / height * Shape::BN, slice, first * Shape::BK,
                steps * (slice + 1) / p.slices - first};
    }
};

// A buffer and the parity of its phase.
template <int STAGES> struct Turn {
    uint32_t stage = 0, parity = 0;

    __device__ __forceinline__ void next() {
        if (++stage == STAGES) stage = 0, parity ^= 1;
    }
};

// ROWS of M or N by 64 of K, as `Descriptor` says they lie: in one box where K runs along the rows, else in boxes of 64.
template <Major MAJOR, int ROWS>
__device__ __forceinline__ void load_tile(const CUtensorMap &map, uint32_t to, Barrier &full, int mn, int k) {
    if constexpr (MAJOR == Major::K) {
        load_box(map, to, full, k, mn);
    } else {
#pragma unroll
        for (int i = 0; i < ROWS; i += 64) load_box(map, to + i * 128, full, mn + i, k);
    }
}

// What the copying thread does: every tile of every piece of work, in the order in which they are multiplied.
template <class Shape, Major A_MAJOR, Major B_MAJOR>
__device__ __forceinline__ void copy_tiles(const GemmArguments &p, const CUtensorMap &map_a, const CUtensorMap &map_b,
                                           uint32_t buffers, Barrier *full, Barrier *empty) {
    Turn<Shape::STAGES> turn;
    const int count = Work::count<Shape>(p);
#pragma unroll 1
    for (int i = blockIdx.x; i < count; i += gridDim.x) {
        const Work work = Work::number<Shape>(p, i);
#pragma unroll 1
        for (int step = 0; step < work.steps; ++step, turn.next()) {
            // All are empty at first: the phase before the first counts as complete.
            empty[turn.stage].wait(turn.parity ^ 1);
            Barrier &barrier = full[turn.stage];
            barrier.arrive_and_expect(Shape::STAGE_BYTES);
            const uint32_t to = buffers + turn.stage * Shape::STAGE_BYTES;
            const int k = work.k0 + step * Shape::BK;
            load_tile<A_MAJOR, Shape::BM>(map_a, to, barrier, work.m0, k);
            load_tile<B_MAJOR, Shape::BN>(map_b, to + Shape::A_BYTES, barrier, work.n0, k);
        }
    }
}

// What a multiplying warpgroup does: its 64 rows of each piece of work.
template <class Shape, Major A_MAJOR, Major B_MAJOR>
__device__ __forceinline__ void multiply_tiles(const GemmArguments &p, uint32_t buffers, float *staging, Barrier *full,
                                               Barrier *empty) {
    using T = typename Shape::T;
    using Writer = typename Shape::Writer;
    constexpr int BN = Shape::BN, K_STEPS = Shape::BK / 16;
    // Of those that multiply. The compiler must see that it is the same in all lanes: descriptors are uniform registers.
    const int warp = __shfl_sync(0xffffffff, threadIdx.x / WARP, 0) - Shape::WARPGROUP / WARP;
    const int lane = threadIdx.x % WARP;
    // 64 rows of A on, either way: eight blocks of 1024 bytes, or the next box of 64 columns.
    const uint32_t a_buffers = buffers + warp / 4 * 8192, b_buffers = buffers + Shape::A_BYTES;
    const Writer writer{staging + warp * Writer::WARP_BYTES / int(sizeof(float))};
    float sums[BN / 2];
    Turn<Shape::STAGES> turn;
    const int count = Work::count<Shape>(p);
#pragma unroll 1
    for (int i = blockIdx.x; i < count; i += gridDim.x) {
        const Work work = Work::number<Shape>(p, i);
        uint32_t before = 0; // the buffer of the step before
#pragma unroll 1
        for (int step = 0; step < work.steps; ++step) {
            full[turn.stage].wait(turn.parity);
            const uint64_t a = Descriptor<A_MAJOR>::of(a_buffers + turn.stage * Shape::STAGE_BYTES);
            const uint64_t b = Descriptor<B_MAJOR>::of(b_buffers + turn.stage * Shape::STAGE_BYTES);
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < K_STEPS; ++k)
                // The first product of all sets the sums: they need no zeros before it.
                wgmma<T, BN, A_MAJOR, B_MAJOR>(sums, a + k * Descriptor<A_MAJOR>::K_STEP,
                                               b + k * Descriptor<B_MAJOR>::K_STEP, k > 0 || step > 0);
            wgmma_commit();
            // This step's products stay under way while the next tile is waited for; those of the step before are done.
            // Each warp gives its buffer back itself, for it knows of its own products only.
            wgmma_wait<1>();
            if (step > 0 && lane == 0) empty[before].arrive();
            before = turn.stage;
            turn.next();
        }
        wgmma_wait<0>();
        hold_in_place(sums);
        if (lane == 0) empty[before].arrive();
        // A loop that is not unrolled, for one copy of the epilogue's code; registers need constant indices.
#pragma unroll 1
        for (int band = 0; band < BN / Shape::BAND; ++band) {
#pragma unroll
            for (int j = 0; j < BN / Shape::BAND; ++j)
                if (j == band)
                    writer.stage(reinterpret_cast<const float(&)[Shape::BAND / MMA_N][4]>(sums[j * Shape::BAND / 2]));
            __syncwarp();
            writer.write(p, work.slice, work.m0 + warp * MMA_M, work.n0 + band * Shape::BAND);
            __syncwarp();
        }
    }
}

template <class Shape, Major A_MAJOR, Major B_MAJOR>
__device__ __forceinline__ void gemm_wgmma(const GemmArguments &p, const CUtensorMap &map_a, const CUtensorMap &map_b) {
    extern __shared__ __align__(1024) uint8_t shared[];
    const uint32_t buffers = shared_address(shared);
    float *staging = reinterpret_cast<float *>(shared + Shape::STAGES * Shape::STAGE_BYTES);
    Barrier *full = reinterpret_cast<Barrier *>(shared + Shape::STAGES * Shape::STAGE_BYTES + Shape::SUM_BYTES);
    Barrier *empty = full + Shape::STAGES;

    if (threadIdx.x == 0) {
        prefetch_map(map_a);
        prefetch_map(map_b);
#pragma unroll
        for (int i = 0; i < Shape::STAGES; ++i) {
            full[i].init(1);
            empty[i].init(Shape::CONSUMER_WARPS);
        }
        Barrier::fence_init();
    }
    __syncthreads();
    // Two roles, one branch: setmaxnreg is for whole warpgroups.
    if (threadIdx.x < Shape::WARPGROUP) {
        give_registers<Shape::COPY_REGISTERS>();
        if (threadIdx.x == 0) copy_tiles<Shape, A_MAJOR, B_MAJOR>(p, map_a, map_b, buffers, full, empty);
    } else {
        take_registers<Shape::MULTIPLY_REGISTERS>();
        multiply_tiles<Shape, A_MAJOR, B_MAJOR>(p, buffers, staging, full, empty);
    }
}

// Kernels of one tile, for A and B as they are (n) and transposed (t). The maps' boxes are 64 of the rows' elements by
// the tile's rows where K runs along the rows, else by 64 of K; swizzled by 128 bytes.
#define GEMM_WGMMA_AS(NAME, SHAPE, LETTERS, A_MAJOR, B_MAJOR)                                                          \
    extern "C" __global__ void __launch_bounds__(SHAPE::THREADS, 1)                                                    \
        NAME##_##LETTERS(const __grid_constant__ GemmArguments p, const __grid_constant__ CUtensorMap map_a,           \
                         const __grid_constant__ CUtensorMap map_b) {                                                  \
        gemm_wgmma<SHAPE, Major::A_MAJOR, Major::B_MAJOR>(p, map_a, map_b);                                            \
    }
#define GEMM_WGMMA(TYPE, T, BN, STAGES)                                                                                \
    using Shape_128x##BN = WgmmaShape<T, BN, STAGES>;                                                                  \
    GEMM_WGMMA_AS(gemm_##TYPE##_wgmma_128x##BN##x64_s##STAGES, Shape_128x##BN, nn, K, MN)                              \
    GEMM_WGMMA_AS(gemm_##TYPE##_wgmma_128x##BN##x64_s##STAGES, Shape_128x##BN, nt, K, K)                               \
    GEMM_WGMMA_AS(gemm_##TYPE##_wgmma_128x##BN##x64_s##STAGES, Shape_128x##BN, tn, MN, MN)                             \
    GEMM_WGMMA_AS(gemm_##TYPE##_wgmma_128x##BN##x64_s##STAGES, Shape_128x##BN, tt, MN, K)
