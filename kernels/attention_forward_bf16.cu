// compute: 80
// Attention's forward in bf16: the instances of attention_forward.cuh. src/ops/cuda/attention.rs lists them, too.
#include "attention_forward.cuh"

ATTENTION_FORWARD(bf16, __nv_bfloat16, 16)
ATTENTION_FORWARD(bf16, __nv_bfloat16, 32)
ATTENTION_FORWARD(bf16, __nv_bfloat16, 64)
ATTENTION_FORWARD(bf16, __nv_bfloat16, 80)
ATTENTION_FORWARD(bf16, __nv_bfloat16, 96)
ATTENTION_FORWARD(bf16, __nv_bfloat16, 128)
