// fogzo in C: one header for libfogzo (CPU) and libfogzo_cuda. C99 or later, C++ or later; no other
// header of this folder but those included here is needed.
//
// Conventions of every launcher, fogzo_cpu_* in cpu.h and fogzo_cuda_* in cuda.h:
// - Arguments in this order: pointers, sizes, scalars, then `threads` (CPU) or `stream` (CUDA).
// - It returns a fogzo_status, FOGZO_OK is 0, fogzo_status_text(status) says what was wrong and what
//   was expected. Arguments are checked first: on any other status nothing was written or launched.
// - Arrays are dense and row-major, [rows, cols] means rows * cols elements; sizes, offsets and
//   pitches count elements, workspaces bytes. Outputs are the caller's; nothing is kept.
// - A weight w is seen as [rows, cols], its scale as [scale_rows, scale_cols]: scale_rows 1 or rows,
//   scale_cols a divisor of cols (1: a scale a row; cols / g: a scale each g neighbours). x = w / scale
//   is in bins, a grid's value is in bins, scale * value has the unit of w. scale >= 2^-100.
// - seed, step, tensor and probe name a draw of the noise; the same ones give the same bits on every
//   machine, thread count and backend. step, probe < 2^32; tensor < 2^32 - 1. docs/algorithm.md
//   defines the noise, gamma, norm (N), the differences (D) and G.
// - table: 32768 floats, table[k] = (float)atanh((2 * k + 1) / 65536.0); read by FOGZO_TANH with
//   FOGZO_PUBLISHED alone, else it may be null.
#pragma once
#include "fogzo/cpu.h"
#include "fogzo/cuda.h"
#include "fogzo/status.h"

#define FOGZO_VERSION_MAJOR 0
#define FOGZO_VERSION_MINOR 1
#define FOGZO_VERSION_PATCH 0
#define FOGZO_VERSION "0.1.0"

// `grid`: the values that a code stands for, in bins. `bits` counts for MID_TREAD and MID_RISE, 2 .. 8.
enum fogzo_grid {
    FOGZO_SIGN = 0,       // -1, +1
    FOGZO_TERNARY = 1,    // -1, 0, 1
    FOGZO_MID_TREAD = 2,  // -2^(bits-1) .. 2^(bits-1) - 1
    FOGZO_MID_RISE = 3,   // those + 1/2
    FOGZO_NO_GRID = 4     // fogzo_*_perturb_quantize with FOGZO_VALUES alone: nothing is rounded
};

// `surrogate`: what the backward pass takes the grid for, and the noise that smooths to it.
enum fogzo_surrogate {
    FOGZO_IDENTITY = 0,
    FOGZO_CLIPPED = 1,
    FOGZO_HARDTANH = 2,  // this, TANH and APPROX_SIGN: for FOGZO_SIGN alone
    FOGZO_TANH = 3,
    FOGZO_APPROX_SIGN = 4,
    FOGZO_TRUST = 5
};

// `noise`
enum fogzo_noise { FOGZO_PUBLISHED = 0, FOGZO_RADEMACHER = 1 };

// `form` of fogzo_*_perturb_quantize's output: float32 scale * value, a byte a code, or packed codes.
enum fogzo_form { FOGZO_VALUES = 0, FOGZO_CODES = 1, FOGZO_PACKED = 2 };

// `x_type` of fogzo_*_probe_matmul
enum fogzo_x_type { FOGZO_FLOAT32 = 0, FOGZO_BFLOAT16 = 1, FOGZO_INT8 = 2 };

// Bits that hold one code in packed form, 1, 2, 4 or 8: code k of a byte lies in its bits
// k * stored .. (k + 1) * stored - 1, rows are padded to whole bytes with code 0.
static inline int fogzo_stored_bits(int grid, int bits) {
    return grid == FOGZO_SIGN ? 1 : grid == FOGZO_TERNARY || bits <= 2 ? 2 : bits <= 4 ? 4 : 8;
}
