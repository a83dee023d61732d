// Every instruction that C++ has no word for, each with a twin in tests/cuda_on_host for the emulator.
#pragma once
#include <cuda_runtime.h>
#include <stdint.h>

#include "fogzo/macros.h"

namespace fogzo {

// 16 bytes of shared memory or of an array that is aligned for it: one access.
struct alignas(16) Bytes16 {
    uint32_t word[4];
};

struct alignas(8) Bytes8 {
    uint32_t word[2];
};

FOGZO_FN float as_float(uint32_t bits) {
    float x;
    __builtin_memcpy(&x, &bits, 4);
    return x;
}

FOGZO_FN uint32_t as_bits(float x) {
    uint32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    return bits;
}

}  // namespace fogzo

#if defined(FOGZO_CUDA_ON_HOST)
#include "ptx_on_host.h"
#else

namespace fogzo {

// Starts copying 16 bytes; the last 16 - `bytes` of them become zero and are not read. Both sides are aligned.
__device__ __forceinline__ void copy_async(void* shared, const void* global, int bytes) {
    asm volatile(
        "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(static_cast<uint32_t>(__cvta_generic_to_shared(shared))),
        "l"(global), "r"(bytes)
        : "memory");
}

// The copies since the last commit become one group.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Returns when at most `left` of this thread's groups are under way.
template <int left> __device__ __forceinline__ void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
}

// Byte i is the one of b:a that nibble i of the selector numbers, 0 .. 7.
__device__ __forceinline__ uint32_t permute_bytes(uint32_t a, uint32_t b, uint32_t selector) {
    uint32_t d;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(selector));
    return d;
}

// a * b + c of two bfloat16 numbers a word, each rounded once.
__device__ __forceinline__ uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t d;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

// d [16, 8] += a [16, 32] @ b [8, 32].T by a warp, in int32. Lane 4 g + t holds bytes 4 t .. 4 t + 3 of rows g
// and g + 8 of a in a[0] and a[1], bytes 16 + 4 t .. of them in a[2] and a[3]; those of row g of b in b0 and b1;
// and columns 2 t, 2 t + 1 of row g of d in d[0], d[1], of row g + 8 in d[2], d[3].
__device__ __forceinline__ void multiply_s8(int32_t (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
        "%3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The same of bfloat16 numbers, a [16, 16] and b [8, 16] with two in a word, in float32.
__device__ __forceinline__ void multiply_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
        "%2, "
        "%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace fogzo

#endif
