// Philox4x32 with ten rounds (Salmon et al., SC 2011): the generator of src/rng.rs, bit for bit.
#pragma once
#include <cstdint>

__device__ __forceinline__ uint4 philox4x32(uint4 counter, uint2 key) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        if (round > 0) key.x += 0x9E3779B9u, key.y += 0xBB67AE85u;
        const uint64_t p0 = uint64_t(counter.x) * 0xD2511F53u, p1 = uint64_t(counter.z) * 0xCD9E8D57u;
        counter = make_uint4(uint32_t(p1 >> 32) ^ counter.y ^ key.x, uint32_t(p1),
                             uint32_t(p0 >> 32) ^ counter.w ^ key.y, uint32_t(p0));
    }
    return counter;
}
