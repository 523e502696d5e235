// compute: 80
// Attention's backward in bf16: the instances of attention_backward.cuh. src/ops/cuda/attention.rs lists them, too.
#include "attention_backward.cuh"

ATTENTION_BACKWARD(bf16, __nv_bfloat16, 16)
ATTENTION_BACKWARD(bf16, __nv_bfloat16, 32)
ATTENTION_BACKWARD(bf16, __nv_bfloat16, 64)
ATTENTION_BACKWARD(bf16, __nv_bfloat16, 80)
ATTENTION_BACKWARD(bf16, __nv_bfloat16, 96)
ATTENTION_BACKWARD(bf16, __nv_bfloat16, 128)
