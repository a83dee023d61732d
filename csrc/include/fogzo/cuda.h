// The CUDA launchers, readable from C: device pointers, sizes, scalars, then the stream.
#pragma once
#include <stdint.h>

#include "fogzo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

// out [rows, cols] float32 on the device: u, as fogzo_cpu_noise; table [32768] float32 on the device.
// stream: a cudaStream_t. Nothing is allocated and nothing synchronises.
int fogzo_cuda_noise(float* out, const float* table, int64_t rows, int64_t cols, int64_t offset, int64_t row_pitch,
                     int surrogate, int noise, uint64_t seed, int64_t step, int64_t tensor, int64_t probe,
                     void* stream);

// y [sides, rows, out_cols] as fogzo_cpu_probe_matmul, all arrays on the device; cols < 2^31. int8 sums are exact, and
// rounded once where there is no scale a group. workspace: at least as many bytes as the workspace function says for
// these sizes on the current device, any alignment; of x and codes it asks the alignment alone.
int fogzo_cuda_probe_matmul(const void* x, const float* x_scale, const uint8_t* codes, const float* scale,
                            const float* bias, void* y, void* workspace, int64_t workspace_bytes, int64_t x_sides,
                            int64_t code_sides, int64_t rows, int64_t out_cols, int64_t cols, int64_t scale_rows,
                            int64_t scale_cols, int grid, int bits, int stored_bits, int x_type, void* stream);
int64_t fogzo_cuda_probe_matmul_workspace(const void* x, const uint8_t* codes, int64_t x_sides, int64_t code_sides,
                                          int64_t rows, int64_t out_cols, int64_t cols, int64_t scale_cols, int grid,
                                          int bits, int stored_bits, int x_type);

// The same as fogzo_cpu_probe_matmul_flips, of any x_type, y of x's type as above. Counts beyond the capacity and
// element numbers outside the weight, which the host cannot see, are not followed.
int fogzo_cuda_probe_matmul_flips(const void* x, const float* x_scale, const uint8_t* base, const int64_t* index,
                                  const uint8_t* code, const int64_t* count, int64_t capacity, const float* scale,
                                  const float* bias, void* y, void* workspace, int64_t workspace_bytes, int64_t x_sides,
                                  int64_t sides, int64_t rows, int64_t out_cols, int64_t cols, int64_t scale_rows,
                                  int64_t scale_cols, int grid, int bits, int x_type, void* stream);
int64_t fogzo_cuda_probe_matmul_flips_workspace(const void* x, const uint8_t* base, int64_t x_sides, int64_t rows,
                                                int64_t out_cols, int64_t cols, int64_t scale_cols, int grid, int bits,
                                                int x_type);

// Devices that the CUDA runtime reports; 0 where there is no driver.
int fogzo_cuda_device_count(void);

#ifdef __cplusplus
}
#endif
