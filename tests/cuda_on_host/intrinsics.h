// Device functions of CUDA C++ by their own names: synchronisation, warp instructions, atomics, bits.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "emulator.h"

#define CUDA_ON_HOST_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(CUDA_ON_HOST_SITE) { cuda_on_host::wait_for_block({file, line}); }
inline void __syncwarp(unsigned mask = 0xFFFFFFFFu, CUDA_ON_HOST_SITE) {
    cuda_on_host::gather<char>(mask, 0, {file, line});
}
inline void __threadfence() {}
inline void __threadfence_block() {}

// The value of lane `from`; a lane outside the segment of `width` leaves the caller its own.
template <class T> T shuffle(unsigned mask, T value, int from, bool outside, cuda_on_host::Site site) {
    const auto lanes = cuda_on_host::gather(mask, value, site);
    return outside ? value : lanes.of[from & 31];
}
inline int segment_of(int width) { return static_cast<int>(cuda_on_host::lane_number()) / width * width; }
inline int lane_of() { return static_cast<int>(cuda_on_host::lane_number()); }

template <class T> T __shfl_sync(unsigned mask, T value, int lane, int width = 32, CUDA_ON_HOST_SITE) {
    return shuffle(mask, value, segment_of(width) + (lane & (width - 1)), false, {file, line});
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, CUDA_ON_HOST_SITE) {
    const int from = lane_of() - static_cast<int>(by);
    return shuffle(mask, value, from, from < segment_of(width), {file, line});
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32, CUDA_ON_HOST_SITE) {
    const int from = lane_of() + static_cast<int>(by);
    return shuffle(mask, value, from, from >= segment_of(width) + width, {file, line});
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int with, int width = 32, CUDA_ON_HOST_SITE) {
    const int from = lane_of() ^ with;
    return shuffle(mask, value, from, from >= segment_of(width) + width, {file, line});
}

inline unsigned __ballot_sync(unsigned mask, int predicate, CUDA_ON_HOST_SITE) {
    const auto lanes = cuda_on_host::gather<unsigned char>(mask, predicate != 0 ? 1 : 0, {file, line});
    unsigned votes = 0;
    for (int lane = 0; lane < 32; ++lane) {
        if (lanes.of[lane] == 1) {
            votes |= 1u << lane;
        }
    }
    return votes & mask;
}
inline int __any_sync(unsigned mask, int predicate, CUDA_ON_HOST_SITE) {
    return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, CUDA_ON_HOST_SITE) {
    return __ballot_sync(mask, !predicate, file, line) == 0;
}
inline int __syncthreads_or(int predicate, CUDA_ON_HOST_SITE) {
    static int any;
    cuda_on_host::wait_for_block({file, line});
    any = 0;
    cuda_on_host::wait_for_block({file, line});
    any |= predicate != 0;
    cuda_on_host::wait_for_block({file, line});
    return any;
}

// One thread runs at a time.
template <class T> T cuda_on_host_replace(T* at, T next) {
    const T before = *at;
    *at = next;
    return before;
}
template <class T> T atomicAdd(T* at, T value) { return cuda_on_host_replace(at, static_cast<T>(*at + value)); }
template <class T> T atomicOr(T* at, T value) { return cuda_on_host_replace(at, static_cast<T>(*at | value)); }
template <class T> T atomicAnd(T* at, T value) { return cuda_on_host_replace(at, static_cast<T>(*at & value)); }
template <class T> T atomicMax(T* at, T value) { return cuda_on_host_replace(at, *at > value ? *at : value); }
template <class T> T atomicMin(T* at, T value) { return cuda_on_host_replace(at, *at < value ? *at : value); }
template <class T> T atomicExch(T* at, T value) { return cuda_on_host_replace(at, value); }
template <class T> T atomicCAS(T* at, T expected, T value) {
    return cuda_on_host_replace(at, *at == expected ? value : *at);
}

template <class To, class From> To cuda_on_host_bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}
inline unsigned __float_as_uint(float x) { return cuda_on_host_bits<unsigned>(x); }
inline int __float_as_int(float x) { return cuda_on_host_bits<int>(x); }
inline float __uint_as_float(unsigned x) { return cuda_on_host_bits<float>(x); }
inline float __int_as_float(int x) { return cuda_on_host_bits<float>(x); }
inline long long __double_as_longlong(double x) { return cuda_on_host_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return cuda_on_host_bits<double>(x); }

template <class T> T __ldg(const T* at) { return *at; }
template <class T> T __ldcs(const T* at) { return *at; }
template <class T> T __ldcg(const T* at) { return *at; }
template <class T> void __stcs(T* at, T value) { *at = value; }
template <class T> void __stcg(T* at, T value) { *at = value; }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x)); }
inline unsigned __brev(unsigned x) {
    unsigned reversed = 0;
    for (int bit = 0; bit < 32; ++bit) {
        reversed |= (x >> bit & 1u) << (31 - bit);
    }
    return reversed;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((static_cast<uint64_t>(a) * b) >> 32); }
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) {
        result |= static_cast<unsigned>(bytes >> (8 * (selector >> (4 * i) & 7u)) & 0xFFu) << (8 * i);
    }
    return result;
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) >> (shift & 31u));
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) << (shift & 31u) >> 32);
}
inline int __dp4a(int a, int b, int sum) {
    for (int i = 0; i < 4; ++i) {
        sum += static_cast<int8_t>(a >> (8 * i)) * static_cast<int8_t>(b >> (8 * i));
    }
    return sum;
}

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __double2float_rn(double a) { return static_cast<float>(a); }
inline float __int2float_rn(int a) { return static_cast<float>(a); }
inline int __float2int_rn(float a) { return static_cast<int>(std::nearbyint(a)); }

template <class T> T min(T a, T b) { return b < a ? b : a; }
template <class T> T max(T a, T b) { return a < b ? b : a; }

#undef CUDA_ON_HOST_SITE
