// Stands in for the CUDA toolkit's header of this name.
#pragma once
#include "cuda_runtime.h"

struct alignas(2) __half {
    _Float16 value;
};

inline float __half2float(__half a) { return static_cast<float>(a.value); }
inline __half __float2half_rn(float a) { return {static_cast<_Float16>(a)}; }
inline __half __float2half(float a) { return __float2half_rn(a); }
