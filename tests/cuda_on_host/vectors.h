// CUDA's vector types, aligned as on the device.
#pragma once
#include <stdint.h>

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

#define CUDA_ON_HOST_VECTORS(type, name)                                                                               \
    struct alignas(2 * sizeof(type)) name##2 { type x, y; };                                                           \
    struct alignas(4 * sizeof(type) > 16 ? 16 : 4 * sizeof(type)) name##4 { type x, y, z, w; };                        \
    inline name##2 make_##name##2(type x, type y) { return {x, y}; }                                                   \
    inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }

CUDA_ON_HOST_VECTORS(float, float)
CUDA_ON_HOST_VECTORS(double, double)
CUDA_ON_HOST_VECTORS(int, int)
CUDA_ON_HOST_VECTORS(unsigned, uint)
CUDA_ON_HOST_VECTORS(signed char, char)
CUDA_ON_HOST_VECTORS(unsigned char, uchar)
CUDA_ON_HOST_VECTORS(short, short)
CUDA_ON_HOST_VECTORS(unsigned short, ushort)
CUDA_ON_HOST_VECTORS(long long, longlong)
CUDA_ON_HOST_VECTORS(unsigned long long, ulonglong)

#undef CUDA_ON_HOST_VECTORS
