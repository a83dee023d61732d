// The CPU launchers, readable from C. Each checks its arguments before it writes anything and
// returns a fogzo_status. All arrays are dense and row-major.
//
// A weight is viewed as [rows, cols]; scale is [scale_rows, scale_cols] with scale_rows 1 or rows and
// scale_cols a divisor of cols. Element (r, c) has number offset + r * row_pitch + c in the noise; row_pitch is at
// least cols. threads: at most this many; results do not depend on it.
#pragma once
#include <stdint.h>

#include "fogzo/status.h"
#include "fogzo/tensor.h"

#if defined(__GNUC__)
#pragma GCC visibility push(default)  // the shared libraries export these functions and no others
#endif
#ifdef __cplusplus
extern "C" {
#endif

// out [rows, cols] float32: u, mean 0, variance 1.
// table [32768] float32: atanh((2k + 1) / 65536), may be null unless published tanh noise is asked for.
int fogzo_cpu_noise(float* out, const float* table, int64_t rows, int64_t cols, int64_t offset, int64_t row_pitch,
                    int surrogate, int noise, uint64_t seed, int64_t step, int64_t tensor, int64_t probe, int threads);

// codes [rows, cols] uint8: index of value(x), 0 for NaN.
int fogzo_cpu_quantize(const float* w, const float* scale, uint8_t* codes, int64_t rows, int64_t cols,
                       int64_t scale_rows, int64_t scale_cols, int grid, int bits, int threads);

// out [rows, cols] float32: a * value(code).
int fogzo_cpu_dequantize(const uint8_t* codes, const float* scale, float* out, int64_t rows, int64_t cols,
                         int64_t scale_rows, int64_t scale_cols, int grid, int bits, int threads);

// bytes [rows, ceil(cols * bits / 8)] from codes [rows, cols] below 2^bits, bits 1, 2, 4 or 8; and back.
int fogzo_cpu_pack(const uint8_t* codes, uint8_t* bytes, int64_t rows, int64_t cols, int bits, int threads);
int fogzo_cpu_unpack(const uint8_t* bytes, uint8_t* codes, int64_t rows, int64_t cols, int bits, int threads);

// out [rows, cols] float32: each row rotated in blocks, the rest in its largest powers of two. out may be x.
int fogzo_cpu_hadamard(const float* x, float* out, int64_t rows, int64_t cols, int64_t block, int threads);

// scale [scales] float32, at least `least`, from w [scales, count]: factor * sqrt(mean w^2) (rule 0), factor * mean abs
// w (1), both by float64 sums, max abs w / factor, one nextafter upward (2), max abs w / factor (3). NaN gives NaN.
int fogzo_cpu_compute_scale(const float* w, float* scale, int64_t scales, int64_t count, int rule, double factor,
                            double least, int threads);

// The quest quantizer: y = w rotated in blocks of 128, scale [rows] float32 = max(multiple * sqrt(mean y^2), 2^-100) of
// each row, then of y * (1/scale) values (float32, NaN stays) or codes (uint8): the one that is not null.
int fogzo_cpu_hadamard_quantize(const float* w, float* values, uint8_t* codes, float* scale, int64_t rows, int64_t cols,
                                double multiple, int grid, int bits, int threads);

// out [rows, cols] float32: a * value(x); NaN gives NaN. out may be w.
int fogzo_cpu_fake_quantize(const float* w, const float* scale, float* out, int64_t rows, int64_t cols,
                            int64_t scale_rows, int64_t scale_cols, int grid, int bits, int threads);

// grad_w [rows, cols] float32: grad times the surrogate's slope. grad_w may be grad or w.
// grad_scale [scale_rows, scale_cols] float32 or null: (1 / sqrt(rows cols Q_P)) * sum of grad * t over each scale's
// elements in float64, t = value(x) - x inside the grid's range, else value(x); not written where the view is empty.
// limit 0; with the clipped surrogate over 0 also: -limit <= x <= limit counts as inside, for both gradients.
int fogzo_cpu_fake_quantize_backward(const float* grad, const float* w, const float* scale, float* grad_w,
                                     float* grad_scale, int64_t rows, int64_t cols, int64_t scale_rows,
                                     int64_t scale_cols, int grid, int bits, int surrogate, float limit, int threads);

// out [1] float32: N over `tensors` arrays; every argument but noise holds one entry a tensor.
int fogzo_cpu_whitened_norm(const float* const* grads, const float* const* scales, const int64_t* rows,
                            const int64_t* cols, const int64_t* scale_rows, const int64_t* scale_cols,
                            const int* surrogates, int64_t tensors, int noise, float* out, int threads);

// out [probes * sides, rows, cols]: float32 values (form 0), uint8 codes (1), or packed rows of
// ceil(cols * storage_bits / 8) bytes (2); both sides of a probe follow each other, + first.
// flip_count [probes * sides] int64 or null: codes that differ from those without perturbation.
// grid 4 rounds nothing: form 0 alone, w + a d and w - a d; flip_count null.
int fogzo_cpu_perturb_quantize(const float* w, const float* grad, const float* scale, void* out, int64_t* flip_count,
                               const float* table, int64_t rows, int64_t cols, int64_t scale_rows, int64_t scale_cols,
                               int64_t offset, int64_t row_pitch, int grid, int bits, int surrogate, int noise,
                               int form, int sides, int64_t probes, int64_t first_probe, uint64_t seed, int64_t step,
                               int64_t tensor, double gamma, float norm, int threads);
// Nothing is written unless all tensors are in order.
int fogzo_cpu_perturb_quantize_many(const fogzo_tensor* tensors, int64_t count, const float* table, int noise, int form,
                                    int sides, int64_t probes, int64_t first_probe, uint64_t seed, int64_t step,
                                    double gamma, float norm, int threads);

// Of sides arrays codes [sides, elements], what differs from base [elements]: count [sides] how many, index and code
// [sides, capacity] the numbers, ascending, and the changed codes of the first of them; -1 and 0 behind those.
int fogzo_cpu_find_flips(const uint8_t* base, const uint8_t* codes, int64_t* index, uint8_t* code, int64_t* count,
                         int64_t sides, int64_t elements, int64_t capacity, int threads);

// out [rows, cols] float32: G; differences [probes] float32: D. out may be grad.
int fogzo_cpu_assemble_gradient(const float* grad, const float* scale, const float* differences, float* out,
                                const float* table, int64_t rows, int64_t cols, int64_t scale_rows, int64_t scale_cols,
                                int64_t offset, int64_t row_pitch, int surrogate, int noise, int64_t probes,
                                int64_t first_probe, uint64_t seed, int64_t step, int64_t tensor, double gamma,
                                float norm, int threads);
int fogzo_cpu_assemble_gradient_many(const fogzo_tensor* tensors, int64_t count, const float* differences,
                                     const float* table, int noise, int64_t probes, int64_t first_probe, uint64_t seed,
                                     int64_t step, double gamma, float norm, int threads);

// y [sides, rows, out_cols]: x[side] @ (scale * value(codes[side])).T + bias, sides the larger of x_sides and
// code_sides, of which one may be 1 for "shared by all". The weight is viewed as [out_cols, cols].
// x [x_sides, rows, cols]: x_type 0 float32, 1 bfloat16, 2 int8 with x_scale [x_sides, rows] float32 (else null).
// codes [code_sides, out_cols, ceil(cols * stored_bits / 8)]: packed in 1, 2, 4 or 8 bits.
// bias [out_cols] float32 or null. y is float32, bfloat16 where x is. workspace: at least as many bytes as
// fogzo_cpu_probe_matmul_workspace says for these sizes, any alignment.
int fogzo_cpu_probe_matmul(const void* x, const float* x_scale, const uint8_t* codes, const float* scale,
                           const float* bias, void* y, void* workspace, int64_t workspace_bytes, int64_t x_sides,
                           int64_t code_sides, int64_t rows, int64_t out_cols, int64_t cols, int64_t scale_rows,
                           int64_t scale_cols, int grid, int bits, int stored_bits, int x_type, int threads);
int64_t fogzo_cpu_probe_matmul_workspace(int64_t x_sides, int64_t code_sides, int64_t rows, int64_t out_cols,
                                         int64_t cols, int64_t scale_cols, int x_type, int stored_bits, int threads);

// The same for sides weights that are base [out_cols, cols], one code a byte, with some codes replaced:
// index [sides, capacity] element numbers, ascending, each once, code [sides, capacity] the changed codes, count
// [sides]. x_type 0 or 2; y float32.
int fogzo_cpu_probe_matmul_flips(const void* x, const float* x_scale, const uint8_t* base, const int64_t* index,
                                 const uint8_t* code, const int64_t* count, int64_t capacity, const float* scale,
                                 const float* bias, float* y, void* workspace, int64_t workspace_bytes, int64_t x_sides,
                                 int64_t sides, int64_t rows, int64_t out_cols, int64_t cols, int64_t scale_rows,
                                 int64_t scale_cols, int grid, int bits, int x_type, int threads);
int64_t fogzo_cpu_probe_matmul_flips_workspace(int64_t x_sides, int64_t rows, int64_t out_cols, int64_t cols,
                                               int64_t scale_cols, int x_type, int threads);
// 1 where a call with `total` flips on all sides makes one product and corrects it, 0 where one a side.
int fogzo_cpu_probe_matmul_flips_corrected(int64_t total, int64_t x_sides, int64_t sides, int64_t rows,
                                           int64_t out_cols, int64_t cols, int grid, int bits, int x_type);

// codes [rows, cols] int8: clamp(rne(x / x_scale), -q, q), q = 2^(bits - 1) - 1, 0 where that is NaN;
// x_scale [rows] float32: max abs x / q. bits 1: codes 1 where x >= 0, -1 below, 0 where NaN, and
// x_scale mean abs x, summed in float64. bits 1 .. 8.
int fogzo_cpu_quantize_activation(const float* x, int8_t* codes, float* x_scale, int64_t rows, int64_t cols, int bits,
                                  int threads);

// The instruction set in use, and its choice: "auto", "scalar", "avx2", "avx512-vnni".
const char* fogzo_cpu_isa(void);
int fogzo_cpu_set_isa(const char* name);

#ifdef __cplusplus
}
#endif
#if defined(__GNUC__)
#pragma GCC visibility pop
#endif
