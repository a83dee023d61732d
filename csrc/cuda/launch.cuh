// How launchers start kernels and kernels reach dynamic shared memory: the two places where CUDA C++ has a syntax of
// its own. Under FOGZO_CUDA_ON_HOST kernels are C++ functions that tests/cuda_on_host runs.
#pragma once
#include <cuda_runtime.h>

#include <stdint.h>

#include <type_traits>

#include "fogzo/status.h"

namespace fogzo {

// Bytes of shared memory: 48 KiB is what a kernel has unless it is allowed more, what it declares itself included; so
// much of that is left to arrays that it declares beside those that the launch gives.
constexpr size_t kSharedOfItsOwn = 8 * 1024;
constexpr size_t kSharedWithoutAsking = 48 * 1024 - kSharedOfItsOwn;

// Whether a call of the runtime succeeded; else its error is read here, not by the next launch.
inline bool succeeded(cudaError_t status) {
    if (status != cudaSuccess) {
        cudaGetLastError();
    }
    return status == cudaSuccess;
}

// Whether arrays begin at a multiple of their numbers' size; null does.
template <class... T> bool element_aligned(const T*... arrays) {
    return (... && (reinterpret_cast<uintptr_t>(arrays) % alignof(T) == 0));
}

// start(std::integral_constant<int, n>()) for that of the numbers which is `wanted`, for the last one where none is.
template <int first, int... rest, class Start> int with_constant(int wanted, Start start) {
    if constexpr (sizeof...(rest) > 0) {
        if (wanted != first) {
            return with_constant<rest...>(wanted, start);
        }
    }
    return start(std::integral_constant<int, first>());
}

#if defined(FOGZO_CUDA_ON_HOST)

// A large argument, in constant memory: read in place.
#define FOGZO_CONSTANT(type) const type&

template <auto kernel, class... Arguments>
int launch(dim3 grid, dim3 block, size_t shared, void* /*stream*/, Arguments... arguments) {
    return cuda_on_host::launch(__PRETTY_FUNCTION__, grid, block, shared, [&] { kernel(arguments...); }) == cudaSuccess
               ? FOGZO_OK
               : FOGZO_DEVICE_ERROR;
}

template <class T> T* dynamic_shared() { return static_cast<T*>(cuda_on_host::dynamic_shared()); }

#else

#define FOGZO_CONSTANT(type) const __grid_constant__ type

// kernel(arguments...) on grid x block threads with `shared` bytes of dynamic shared memory; a fogzo_status. The
// attribute is the current device's, so that it is set anew; a captured stream allows that.
template <auto kernel, class... Arguments>
int launch(dim3 grid, dim3 block, size_t shared, void* stream, Arguments... arguments) {
    if (shared > kSharedWithoutAsking &&
        !succeeded(
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)))) {
        return FOGZO_DEVICE_ERROR;
    }
    kernel<<<grid, block, shared, static_cast<cudaStream_t>(stream)>>>(arguments...);
    return cudaGetLastError() == cudaSuccess ? FOGZO_OK : FOGZO_DEVICE_ERROR;
}

// 16-byte aligned; as many bytes as the launch gave.
template <class T> __device__ __forceinline__ T* dynamic_shared() {
    extern __shared__ __align__(16) unsigned char fogzo_dynamic_shared[];
    return reinterpret_cast<T*>(fogzo_dynamic_shared);
}

#endif

}  // namespace fogzo
