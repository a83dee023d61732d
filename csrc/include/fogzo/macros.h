// Functions in these headers are static and always inlined: every object file keeps its own copy,
// so code compiled for AVX2 can never stand in for the portable one at link time.
#pragma once

#if defined(__CUDACC__)
#define FOGZO_FN static __host__ __device__ __forceinline__
#else
#define FOGZO_FN static inline __attribute__((always_inline))
#endif
