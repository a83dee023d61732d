// Stands in for the CUDA toolkit's header of this name, found first on the include path: what kernels and their
// launchers use of CUDA C++, on the host. Device memory is the host's.
#pragma once
#include <math.h>

#include "emulator.h"
#include "vectors.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

#define FOGZO_CUDA_ON_HOST 1

inline cuda_on_host::Index3& threadIdx = cuda_on_host::thread_index;
inline cuda_on_host::Index3& blockIdx = cuda_on_host::block_index;
inline cuda_on_host::Index3& blockDim = cuda_on_host::block_size;
inline cuda_on_host::Index3& gridDim = cuda_on_host::grid_size;
constexpr int warpSize = 32;

#include "intrinsics.h"

struct CUstream_st;
using cudaStream_t = CUstream_st*;
enum cudaError_t : int { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorLaunchFailure = 719 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaDeviceAttr {
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76
};

inline cudaError_t cudaGetLastError() {
    const bool failed = cuda_on_host::last_failure()[0] != '\0';
    cuda_on_host::forget_failure();
    return failed ? cudaErrorLaunchFailure : cudaSuccess;
}
inline cudaError_t cudaGetDeviceCount(int* count) {
    *count = 1;
    return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    const int capability = cuda_on_host::capability();
    *value = attribute == cudaDevAttrMultiProcessorCount      ? 2
             : attribute == cudaDevAttrComputeCapabilityMajor ? capability / 10
                                                              : capability % 10;
    return cudaSuccess;
}
template <class Function> cudaError_t cudaFuncSetAttribute(Function*, cudaFuncAttribute, int) { return cudaSuccess; }
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
    if (bytes > 0) {
        memset(to, value, bytes);
    }
    return cudaSuccess;
}

namespace cuda_on_host {

// body: calls the kernel with the arguments of the launch.
template <class Body> cudaError_t launch(const char* name, dim3 grid, dim3 block, size_t shared, Body body) {
    const bool ran = run_grid(
        name, {grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, shared,
        [](void* one) { (*static_cast<Body*>(one))(); }, &body);
    return ran ? cudaSuccess : cudaErrorLaunchFailure;
}

}  // namespace cuda_on_host
