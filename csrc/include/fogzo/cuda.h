// The CUDA launchers, readable from C: device pointers, sizes, scalars, then the stream.
#pragma once
#include <stdint.h>

#include "fogzo/status.h"

#if defined(__GNUC__)
#pragma GCC visibility push(default)  // the shared libraries export these functions and no others
#endif
#ifdef __cplusplus
extern "C" {
#endif

// out [rows, cols] float32 on the device: u, as fogzo_cpu_noise; table [32768] float32 on the device.
// stream: a cudaStream_t. Nothing is allocated and nothing synchronises.
int fogzo_cuda_noise(float* out, const float* table, int64_t rows, int64_t cols, int64_t offset, int64_t row_pitch,
                     int surrogate, int noise, uint64_t seed, int64_t step, int64_t tensor, int64_t probe,
                     void* stream);

// Devices that the CUDA runtime reports; 0 where there is no driver.
int fogzo_cuda_device_count(void);

#ifdef __cplusplus
}
#endif
#if defined(__GNUC__)
#pragma GCC visibility pop
#endif
