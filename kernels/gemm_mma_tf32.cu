// compute: 80
// Products of fp32, rounded to tf32, on tensor cores: the instances of gemm_mma.cuh. src/ops/gemm/ptx/tile.rs lists
// them, too. Warps make less than with 16 bits: reading A and B by element takes registers.
#include "gemm_mma.cuh"

//                   BM   BN  BK  WM  WN STAGES
GEMM_MMA(tf32, Tf32, 128, 128, 16, 64, 32, 4)
GEMM_MMA(tf32, Tf32, 128, 128, 32, 64, 32, 3)
GEMM_MMA(tf32, Tf32, 128, 64, 32, 64, 32, 3)
GEMM_MMA(tf32, Tf32, 64, 128, 32, 32, 64, 3)
GEMM_MMA(tf32, Tf32, 64, 64, 16, 32, 32, 4)
GEMM_MMA(tf32, Tf32, 64, 64, 32, 32, 32, 3)
