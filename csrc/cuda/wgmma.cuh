// Products of a warpgroup, 128 threads, on compute capability 9.0 (PTX ISA, "Asynchronous Warpgroup Level Matrix
// Instructions"): asynchronous, one operand in registers, the other in shared memory. Each instruction has a twin in
// tests/cuda_on_host for the emulator.
#pragma once
#include <cuda_runtime.h>
#include <stdint.h>

#include "ptx.cuh"

namespace fogzo {

constexpr int kWarpgroup = 128;     // threads
constexpr int kWgmmaColumns = 128;  // of a product, each a row of 128 bytes in shared memory
constexpr int kSwizzledRow = 128;   // bytes
constexpr int kSwizzleAtom = 1024;  // bytes of eight rows, and their alignment
constexpr int kWgmmaBytes = 32;     // of a row that one product takes

// Where 16 bytes `chunk` of a row of 128 bytes lie in it: the swizzle that the descriptors below name.
__device__ __forceinline__ int swizzled(int row, int chunk) { return chunk ^ (row & 7); }

}  // namespace fogzo

#if defined(FOGZO_CUDA_ON_HOST)
#include "wgmma_on_host.h"
#else

namespace fogzo {

__device__ __forceinline__ uint32_t shared_address(const void* shared) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// What this thread wrote to shared memory, copies that it waited for included, may be read by products behind the next
// barrier.
__device__ __forceinline__ void publish_to_wgmma() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Registers written before it may be operands of products behind it.
__device__ __forceinline__ void fence_wgmma() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// The products since the last commit become one group.
__device__ __forceinline__ void commit_wgmma() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Returns when at most `left` groups are under way: their operands may be written then, their sums be read.
template <int left> __device__ __forceinline__ void wait_wgmma() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(left) : "memory");
}

// Keeps the compiler from moving what reads the sums before the wait that stands before this.
__device__ __forceinline__ void wgmma_arrived(int32_t& sum) { asm volatile("" : "+r"(sum)::"memory"); }
__device__ __forceinline__ void wgmma_arrived(float& sum) { asm volatile("" : "+f"(sum)::"memory"); }

#define FOGZO_D64                                                                                                      \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "  \
    "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, "   \
    "%46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}"
#define FOGZO_8(kind, i)                                                                                               \
    kind(d[i]), kind(d[i + 1]), kind(d[i + 2]), kind(d[i + 3]), kind(d[i + 4]), kind(d[i + 5]), kind(d[i + 6]),        \
        kind(d[i + 7])
#define FOGZO_64(kind)                                                                                                 \
    FOGZO_8(kind, 0), FOGZO_8(kind, 8), FOGZO_8(kind, 16), FOGZO_8(kind, 24), FOGZO_8(kind, 32), FOGZO_8(kind, 40),    \
        FOGZO_8(kind, 48), FOGZO_8(kind, 56)

// d [64, 128] = a [64, 32] @ b [128, 32].T (+ d) in int32; warp w of the warpgroup has rows 16 w .. 16 w + 15 of a and
// d. Lane 4 g + t holds of a as in multiply_s8, and columns 8 j + 2 t, 8 j + 2 t + 1 of row g of d in d[4 j], d[4 j +
// 1], of row g + 8 in d[4 j + 2], d[4 j + 3]. b: a descriptor, equal in all threads.
__device__ __forceinline__ void multiply_warpgroup(int32_t (&d)[64], const uint32_t (&a)[4], uint64_t b, bool add) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8 " FOGZO_D64 ", {%64, %65, %66, %67}, %68, p;\n}"
                 : FOGZO_64("+r")
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)));
}

// The same of bfloat16 numbers, a [64, 16] and b [128, 16] with two in a word, in float32.
__device__ __forceinline__ void multiply_warpgroup(float (&d)[64], const uint32_t (&a)[4], uint64_t b, bool add) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " FOGZO_D64
                 ", {%64, %65, %66, %67}, %68, p, 1, 1, 0;\n}"
                 : FOGZO_64("+f")
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)));
}

#undef FOGZO_D64
#undef FOGZO_8
#undef FOGZO_64

}  // namespace fogzo

#endif

namespace fogzo {

// Matrix descriptor of kWgmmaColumns rows, swizzled as above in whole atoms: bits 0-13 the address, 16-29 unused with a
// swizzle, 32-45 from eight rows to the next, all in units of 16 bytes; 62-63 the 128-byte swizzle.
__device__ __forceinline__ uint64_t describe_rows(const void* shared) {
    return uint64_t{1} << 62 | uint64_t{kSwizzleAtom / 16} << 32 | uint64_t{1} << 16 |
           (shared_address(shared) & 0x3FFFFu) >> 4;
}

}  // namespace fogzo
