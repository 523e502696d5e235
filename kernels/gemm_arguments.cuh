// What every product is launched with: C (M, N) = op(A) (M, K) x op(B) (K, N), all row-major.
#pragma once
#include "element.cuh"

// What is done to an element x of the product before it goes to C. The numbers are those of
// src/ops/gemm/ptx/arguments.rs.
enum class Epilogue : int32_t {
    None = 0,         // x
    Bias = 1,         // x + bias
    BiasGeluTanh = 2, // aux = x + bias; gelu(aux)
    BiasGeluErf = 3,
    GeluTanhBackward = 4, // x * gelu'(aux)
    GeluErfBackward = 5,
};

// The one argument of a kernel; the same struct is in src/ops/gemm/ptx/arguments.rs.
struct GemmArguments {
    const void *a;    // (M, K), or (K, M) if transposed
    const void *b;    // (K, N), or (N, K) if transposed
    void *c;          // (M, N)
    const void *bias; // (N), of the inputs' type
    void *aux;        // (M, N), of the inputs' type
    float *partial;   // (slices, M, N rounded up to 4): sums over parts of K
    int64_t row_a, row_b, row_c, row_aux; // from one row to the next, in elements
    int32_t m, n, k;
    int32_t slices; // that K is cut into; each leaves its sums in `partial`, if there are several
    Epilogue epilogue;
    int32_t output_float32; // else of the inputs' type
    int32_t accumulate;     // C += instead of C =
    int32_t transposed;     // bit 0: A, bit 1: B; read by gemm_simple alone
};
static_assert(sizeof(GemmArguments) == 112, "src/ops/gemm/ptx/arguments.rs says so, too");

// From one row of a slice's sums to the next: whole vectors of four.
__device__ __forceinline__ int partial_pitch(const GemmArguments &p) { return ceil_div(p.n, 4) * 4; }
