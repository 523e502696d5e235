// The instructions of compute capability 9.0 that feed its tensor cores: mbarrier, the copy engine (TMA), wgmma.
//
// Bulk copies and wgmma go through the async proxy. What they read of shared memory here was all written by bulk copies,
// so that the mbarrier alone orders it; no fence.proxy.async is needed after the barriers' initialisation.
#pragma once
#include <cuda.h>

#include "gemm_tile.cuh" // Major, shared_address

struct Barrier {
    uint64_t opaque;

    __device__ __forceinline__ void init(int arrivals) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(this)), "r"(arrivals) : "memory");
    }
    // The copy engine sees what this thread initialised.
    __device__ __forceinline__ static void fence_init() {
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __device__ __forceinline__ void arrive() {
        asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(this)) : "memory");
    }
    // Arrives; the phase is complete once so many bytes have come, too.
    __device__ __forceinline__ void arrive_and_expect(int bytes) {
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(this)), "r"(bytes)
                     : "memory");
    }
    // Until the phase of this parity is complete. The one before the first counts as complete: its parity is 1.
    // try_wait sleeps in hardware for a while before it gives up.
    __device__ __forceinline__ void wait(uint32_t parity) {
        asm volatile("{\n.reg .pred done;\nAGAIN:\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                     "@done bra DONE;\nbra AGAIN;\nDONE:\n\t}" ::"r"(shared_address(this)),
                     "r"(parity)
                     : "memory");
    }
};

// The box of a matrix whose first element is at column x of row y, to shared memory; zeros where the matrix ends.
__device__ __forceinline__ void load_box(const CUtensorMap &map, uint32_t to, Barrier &full, int x, int y) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::
                     "r"(to),
                 "l"(&map), "r"(shared_address(&full)), "r"(x), "r"(y)
                 : "memory");
}
__device__ __forceinline__ void prefetch_map(const CUtensorMap &map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// Registers per thread of the warps that execute this, all of a warpgroup: from the block's pool, or back to it.
template <int COUNT> __device__ __forceinline__ void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}
template <int COUNT> __device__ __forceinline__ void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}

// Before the first product, and whenever other instructions have used its registers.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Until all but the last N groups of this warp are done.
template <int N> __device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
// The compiler must not move what reads the sums before the wait.
template <int COUNT> __device__ __forceinline__ void hold_in_place(float (&sums)[COUNT]) {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

// Where a matrix lies in shared memory: PTX ISA, "Matrix descriptor format" and "Canonical layouts". Ours are swizzled
// by 128 bytes and made of blocks of 64 elements by eight rows, 1024 bytes, one after the other along the rows
// ("stride"). Where M or N runs along the rows, the next 64 of M or N are 64 rows of K, 8192 bytes, on ("leading").
template <Major MAJOR> struct Descriptor {
    static constexpr uint64_t LAYOUT = 1ull << 62 | 1024ull >> 4 << 32 | (MAJOR == Major::MN ? 8192ull : 16ull) >> 4 << 16;
    // From one wgmma's K, 16 elements, to the next, in units of 16 bytes.
    static constexpr uint64_t K_STEP = (MAJOR == Major::K ? 16 * 2 : 16 * 128) >> 4;

    __device__ __forceinline__ static uint64_t of(uint32_t address) { return LAYOUT | (address & 0x3ffff) >> 4; }
};

#define REGISTERS_64                                                            \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define SUMS_64 \
    "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]), \
    "+f"(sums[4]), "+f"(sums[5]), "+f"(sums[6]), "+f"(sums[7]), \
    "+f"(sums[8]), "+f"(sums[9]), "+f"(sums[10]), "+f"(sums[11]), \
    "+f"(sums[12]), "+f"(sums[13]), "+f"(sums[14]), "+f"(sums[15]), \
    "+f"(sums[16]), "+f"(sums[17]), "+f"(sums[18]), "+f"(sums[19]), \
    "+f"(sums[20]), "+f"(sums[21]), "+f"(sums[22]), "+f"(sums[23]), \
    "+f"(sums[24]), "+f"(sums[25]), "+f"(sums[26]), "+f"(sums[27]), \
    "+f"(sums[28]), "+f"(sums[29]), "+f"(sums[30]), "+f"(sums[31]), \
    "+f"(sums[32]), "+f"(sums[33]), "+f"(sums[34]), "+f"(sums[35]), \
    "+f"(sums[36]), "+f"(sums[37]), "+f"(sums[38]), "+f"(sums[39]), \
    "+f"(sums[40]), "+f"(sums[41]), "+f"(sums[42]), "+f"(sums[43]), \
    "+f"(sums[44]), "+f"(sums[45]), "+f"(sums[46]), "+f"(sums[47]), \
    "+f"(sums[48]), "+f"(sums[49]), "+f"(sums[50]), "+f"(sums[51]), \
    "+f"(sums[52]), "+f"(sums[53]), "+f"(sums[54]), "+f"(sums[55]), \
    "+f"(sums[56]), "+f"(sums[57]), "+f"(sums[58]), "+f"(sums[59]), \
    "+f"(sums[60]), "+f"(sums[61]), "+f"(sums[62]), "+f"(sums[63])
#define REGISTERS_128                                                            \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, " \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, " \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define SUMS_128 \
    "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]), \
    "+f"(sums[4]), "+f"(sums[5]), "+f"(sums[6]), "+f"(sums[7]), \
    "+f"(sums[8]), "+f"(sums[9]), "+f"(sums[10]), "+f"(sums[11]), \
    "+f"(sums[12]), "+f"(sums[13]), "+f"(sums[14]), "+f"(sums[15]), \
    "+f"(sums[16]), "+f"(sums[17]), "+f"(sums[18]), "+f"(sums[19]), \
    "+f"(sums[20]), "+f"(sums[21]), "+f"(sums[22]), "+f"(sums[23]), \
    "+f"(sums[24]), "+f"(sums[25]), "+f"(sums[26]), "+f"(sums[27]), \
    "+f"(sums[28]), "+f"(sums[29]), "+f"(sums[30]), "+f"(sums[31]), \
    "+f"(sums[32]), "+f"(sums[33]), "+f"(sums[34]), "+f"(sums[35]), \
    "+f"(sums[36]), "+f"(sums[37]), "+f"(sums[38]), "+f"(sums[39]), \
    "+f"(sums[40]), "+f"(sums[41]), "+f"(sums[42]), "+f"(sums[43]), \
    "+f"(sums[44]), "+f"(sums[45]), "+f"(sums[46]), "+f"(sums[47]), \
    "+f"(sums[48]), "+f"(sums[49]), "+f"(sums[50]), "+f"(sums[51]), \
    "+f"(sums[52]), "+f"(sums[53]), "+f"(sums[54]), "+f"(sums[55]), \
    "+f"(sums[56]), "+f"(sums[57]), "+f"(sums[58]), "+f"(sums[59]), \
    "+f"(sums[60]), "+f"(sums[61]), "+f"(sums[62]), "+f"(sums[63]), \
    "+f"(sums[64]), "+f"(sums[65]), "+f"(sums[66]), "+f"(sums[67]), \
    "+f"(sums[68]), "+f"(sums[69]), "+f"(sums[70]), "+f"(sums[71]), \
    "+f"(sums[72]), "+f"(sums[73]), "+f"(sums[74]), "+f"(sums[75]), \
    "+f"(sums[76]), "+f"(sums[77]), "+f"(sums[78]), "+f"(sums[79]), \
    "+f"(sums[80]), "+f"(sums[81]), "+f"(sums[82]), "+f"(sums[83]), \
    "+f"(sums[84]), "+f"(sums[85]), "+f"(sums[86]), "+f"(sums[87]), \
    "+f"(sums[88]), "+f"(sums[89]), "+f"(sums[90]), "+f"(sums[91]), \
    "+f"(sums[92]), "+f"(sums[93]), "+f"(sums[94]), "+f"(sums[95]), \
    "+f"(sums[96]), "+f"(sums[97]), "+f"(sums[98]), "+f"(sums[99]), \
    "+f"(sums[100]), "+f"(sums[101]), "+f"(sums[102]), "+f"(sums[103]), \
    "+f"(sums[104]), "+f"(sums[105]), "+f"(sums[106]), "+f"(sums[107]), \
    "+f"(sums[108]), "+f"(sums[109]), "+f"(sums[110]), "+f"(sums[111]), \
    "+f"(sums[112]), "+f"(sums[113]), "+f"(sums[114]), "+f"(sums[115]), \
    "+f"(sums[116]), "+f"(sums[117]), "+f"(sums[118]), "+f"(sums[119]), \
    "+f"(sums[120]), "+f"(sums[121]), "+f"(sums[122]), "+f"(sums[123]), \
    "+f"(sums[124]), "+f"(sums[125]), "+f"(sums[126]), "+f"(sums[127])
// Sums of 64 x 128.
#define WGMMA_N128(TYPE)                                                                                                \
    asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %66, 0;\n"                                                     \
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPE "." TYPE " {" REGISTERS_64                          \
                 "}, %64, %65, add, 1, 1, %67, %68;\n\t}"                                                            \
                 : SUMS_64                                                                                             \
                 : "l"(a), "l"(b), "r"(int(add)), "n"(int(A_MAJOR == Major::MN)), "n"(int(B_MAJOR == Major::MN)))
// Sums of 64 x 256.
#define WGMMA_N256(TYPE)                                                                                                \
    asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %130, 0;\n"                                                     \
                 "wgmma.mma_async.sync.aligned.m64n256k16.f32." TYPE "." TYPE " {" REGISTERS_128                          \
                 "}, %128, %129, add, 1, 1, %131, %132;\n\t}"                                                            \
                 : SUMS_128                                                                                             \
                 : "l"(a), "l"(b), "r"(int(add)), "n"(int(A_MAJOR == Major::MN)), "n"(int(B_MAJOR == Major::MN)))

// sums (+)= A B, 64 x N x 16. A and B are matrices in shared memory.
template <typename T, int N, Major A_MAJOR, Major B_MAJOR>
__device__ __forceinline__ void wgmma(float (&sums)[N / 2], uint64_t a, uint64_t b, bool add) {
    constexpr bool BF16 = std::is_same_v<T, __nv_bfloat16>;
    static_assert(BF16 || std::is_same_v<T, __half>, "types of 16 bits");
    static_assert(N == 128 || N == 256, "widths written out below");
    if constexpr (N == 128 && BF16) WGMMA_N128("bf16");
    else if constexpr (N == 128) WGMMA_N128("f16");
    else if constexpr (BF16) WGMMA_N256("bf16");
    else WGMMA_N256("f16");
}
