// compute: 75 80
// Attention's backward in f16: the instances of attention_backward.cuh. src/ops/cuda/attention.rs lists them, too.
#include "attention_backward.cuh"

ATTENTION_BACKWARD(f16, __half, 16)
ATTENTION_BACKWARD(f16, __half, 32)
ATTENTION_BACKWARD(f16, __half, 64)
ATTENTION_BACKWARD(f16, __half, 80)
ATTENTION_BACKWARD(f16, __half, 96)
// Its backward takes more shared memory than a block of Turing can have.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
ATTENTION_BACKWARD(f16, __half, 128)
#endif
