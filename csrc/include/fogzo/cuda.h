// The CUDA launchers, readable from C: device pointers, sizes, scalars, then the stream (a cudaStream_t).
// Each checks its arguments before it launches anything and returns a fogzo_status. Nothing is allocated and nothing
// synchronises; a workspace is device memory, 16-byte aligned, of at least as many bytes as its own call says. Values
// in device memory are not checked. All arrays are dense and row-major.
//
// A weight is viewed as [rows, cols]; scale is [rows, scale_cols] with scale_cols a divisor of cols, or a single one.
// Element (r, c) has number offset + r * row_pitch + c in the noise; row_pitch is at least cols.
#pragma once
#include <stdint.h>

#include "fogzo/status.h"
#include "fogzo/tensor.h"

// `kernel` of fogzo_cuda_probe_matmul: products of a warp (mma.sync) or of four together (wgmma).
enum fogzo_matmul_kernel { FOGZO_MMA = 0, FOGZO_WGMMA = 1 };

#if defined(__GNUC__)
#pragma GCC visibility push(default)  // the shared libraries export these functions and no others
#endif
#ifdef __cplusplus
extern "C" {
#endif

// Scalars of a probing call: host numbers, or, where the pointer is not null, numbers in device memory that are read
// when the kernel runs. seed: its 64 bits; step: its low 32 bits; gamma 0 .. 1; norm: N.
typedef struct fogzo_cuda_scalars {
    const int64_t* seed_at;
    const int64_t* step_at;
    const double* gamma_at;
    const float* norm_at;
    uint64_t seed;
    int64_t step;
    double gamma;
    float norm;
} fogzo_cuda_scalars;

// out [rows, cols] float32: u, as fogzo_cpu_noise; table [32768] float32. Of scalars seed and step are read.
int fogzo_cuda_noise(float* out, const float* table, int64_t rows, int64_t cols, int64_t offset, int64_t row_pitch,
                     int surrogate, int noise, const fogzo_cuda_scalars* scalars, int64_t tensor, int64_t probe,
                     void* stream);

// codes [rows, cols] uint8: index of value(x), 0 for NaN.
int fogzo_cuda_quantize(const float* w, const float* scale, uint8_t* codes, int64_t rows, int64_t cols,
                        int64_t scale_rows, int64_t scale_cols, int grid, int bits, void* stream);

// out [rows, cols] float32: a * value(code).
int fogzo_cuda_dequantize(const uint8_t* codes, const float* scale, float* out, int64_t rows, int64_t cols,
                          int64_t scale_rows, int64_t scale_cols, int grid, int bits, void* stream);

// bytes [rows, ceil(cols * bits / 8)] from codes [rows, cols] below 2^bits, bits 1, 2, 4 or 8; and back.
int fogzo_cuda_pack(const uint8_t* codes, uint8_t* bytes, int64_t rows, int64_t cols, int bits, void* stream);
int fogzo_cuda_unpack(const uint8_t* bytes, uint8_t* codes, int64_t rows, int64_t cols, int bits, void* stream);

// out [rows, cols] float32: each row rotated in blocks, the rest in its largest powers of two. out may be x.
int fogzo_cuda_hadamard(const float* x, float* out, int64_t rows, int64_t cols, int64_t block, void* stream);

// As fogzo_cpu_hadamard_quantize.
int fogzo_cuda_hadamard_quantize(const float* w, float* values, uint8_t* codes, float* scale, int64_t rows,
                                 int64_t cols, double multiple, int grid, int bits, void* stream);

// out [rows, cols] float32: a * value(x); NaN gives NaN. out may be w.
int fogzo_cuda_fake_quantize(const float* w, const float* scale, float* out, int64_t rows, int64_t cols,
                             int64_t scale_rows, int64_t scale_cols, int grid, int bits, void* stream);

// grad_w [rows, cols] float32: grad times the surrogate's slope. grad_w may be grad.
// grad_scale [scale_rows, scale_cols] float32 or null, and limit as fogzo_cpu_fake_quantize_backward has them; the
// workspace serves the sums.
int fogzo_cuda_fake_quantize_backward(const float* grad, const float* w, const float* scale, float* grad_w,
                                      float* grad_scale, void* workspace, int64_t workspace_bytes, int64_t rows,
                                      int64_t cols, int64_t scale_rows, int64_t scale_cols, int grid, int bits,
                                      int surrogate, float limit, void* stream);
int64_t fogzo_cuda_fake_quantize_backward_workspace(int64_t rows, int64_t cols, int64_t scale_rows, int64_t scale_cols);

// out [1] float32: N over `count` tensors (a host array), of which grad, scale, their sizes and surrogate are read.
int fogzo_cuda_whitened_norm(const fogzo_tensor* tensors, int64_t count, int noise, float* out, void* workspace,
                             int64_t workspace_bytes, void* stream);
int64_t fogzo_cuda_whitened_norm_workspace(const fogzo_tensor* tensors, int64_t count);

// Of each tensor (a host array) out [probes * sides, rows, cols]: form 0 values, 1 codes, 2 packed, and flip_count, as
// fogzo_cpu_perturb_quantize. Packed: cols, offset and row_pitch must be whole bytes of codes. One launch serves up to
// 224 tensors of one kind of noise.
int fogzo_cuda_perturb_quantize_many(const fogzo_tensor* tensors, int64_t count, const float* table, int noise,
                                     int form, int sides, int64_t probes, int64_t first_probe,
                                     const fogzo_cuda_scalars* scalars, void* stream);

// Of sides arrays codes [sides, elements], what differs from base [elements], as fogzo_cpu_find_flips: count [sides]
// int64, index [sides, capacity] int64 and code [sides, capacity] uint8, -1 and 0 behind the last; flips beyond the
// capacity are counted and left out.
int fogzo_cuda_find_flips(const uint8_t* base, const uint8_t* codes, int64_t* index, uint8_t* code, int64_t* count,
                          void* workspace, int64_t workspace_bytes, int64_t sides, int64_t elements, int64_t capacity,
                          void* stream);
int64_t fogzo_cuda_find_flips_workspace(int64_t sides, int64_t elements);

// Of each tensor (a host array) out [rows, cols] float32: G; differences [probes] float32: D. out may be grad.
int fogzo_cuda_assemble_gradient_many(const fogzo_tensor* tensors, int64_t count, const float* differences,
                                      const float* table, int noise, int64_t probes, int64_t first_probe,
                                      const fogzo_cuda_scalars* scalars, void* stream);

// codes [rows, cols] int8 and x_scale [rows] float32, as fogzo_cpu_quantize_activation.
// x [rows, cols]: x_type 0 float32, 1 bfloat16.
int fogzo_cuda_quantize_activation(const void* x, int8_t* codes, float* x_scale, int64_t rows, int64_t cols, int bits,
                                   int x_type, void* stream);

// y [sides, rows, out_cols] as fogzo_cpu_probe_matmul; cols < 2^31. int8 sums are exact, and
// rounded once where there is no scale a group. workspace: at least as many bytes as the workspace function says for
// these sizes on the current device, any alignment; of x and codes it asks the alignment alone. kernel: a
// fogzo_matmul_kernel; FOGZO_WGMMA takes int8 and bfloat16 x on compute capability 9.0.
int fogzo_cuda_probe_matmul(const void* x, const float* x_scale, const uint8_t* codes, const float* scale,
                            const float* bias, void* y, void* workspace, int64_t workspace_bytes, int64_t x_sides,
                            int64_t code_sides, int64_t rows, int64_t out_cols, int64_t cols, int64_t scale_rows,
                            int64_t scale_cols, int grid, int bits, int stored_bits, int x_type, int kernel,
                            void* stream);
int64_t fogzo_cuda_probe_matmul_workspace(const void* x, const uint8_t* codes, int64_t x_sides, int64_t code_sides,
                                          int64_t rows, int64_t out_cols, int64_t cols, int64_t scale_cols, int grid,
                                          int bits, int stored_bits, int x_type, int kernel);

// The same as fogzo_cpu_probe_matmul_flips, of any x_type, y of x's type as above. Counts beyond the capacity and
// element numbers outside the weight, which the host cannot see, are not followed.
int fogzo_cuda_probe_matmul_flips(const void* x, const float* x_scale, const uint8_t* base, const int64_t* index,
                                  const uint8_t* code, const int64_t* count, int64_t capacity, const float* scale,
                                  const float* bias, void* y, void* workspace, int64_t workspace_bytes, int64_t x_sides,
                                  int64_t sides, int64_t rows, int64_t out_cols, int64_t cols, int64_t scale_rows,
                                  int64_t scale_cols, int grid, int bits, int x_type, int kernel, void* stream);
int64_t fogzo_cuda_probe_matmul_flips_workspace(const void* x, const uint8_t* base, int64_t x_sides, int64_t rows,
                                                int64_t out_cols, int64_t cols, int64_t scale_cols, int grid, int bits,
                                                int x_type, int kernel);

// Devices that the CUDA runtime reports; 0 where there is no driver.
int fogzo_cuda_device_count(void);

#ifdef __cplusplus
}
#endif
#if defined(__GNUC__)
#pragma GCC visibility pop
#endif
