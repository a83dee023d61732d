// Kernels of pack and unpack: sixteen codes a thread where rows are whole bytes, else a byte a thread.
#pragma once
#include <cuda_runtime.h>

#include "fogzo/pack.h"

namespace fogzo {

constexpr int kPackThreads = 128;
constexpr int kPackCodes = 16;  // of a thread, loaded at once

struct alignas(16) SixteenBytes {
    uint8_t of[kPackCodes];
};

__device__ __forceinline__ SixteenBytes load_sixteen(const uint8_t* from) {
    SixteenBytes bytes;
    *reinterpret_cast<uint4*>(bytes.of) = *reinterpret_cast<const uint4*>(from);
    return bytes;
}

// bytes [ceil(count / per byte)] from codes [count]; codes 16-byte aligned, bytes 2 * bits.
template <int bits>
__global__ void __launch_bounds__(kPackThreads) pack_kernel(const uint8_t* codes, uint8_t* bytes, int64_t count) {
    const int64_t stride = int64_t(kPackCodes) * kPackThreads * gridDim.x;
    for (int64_t k = kPackCodes * (int64_t(kPackThreads) * blockIdx.x + threadIdx.x); k < count; k += stride) {
        uint8_t* to = bytes + k * bits / 8;
        if (count - k < kPackCodes) {
            pack_codes(codes + k, count - k, bits, to);
            continue;
        }
        SixteenBytes packed = load_sixteen(codes + k);
        uint64_t word = 0;
        for (int i = 0; i < kPackCodes && bits < 8; ++i) {
            word |= static_cast<uint64_t>(packed.of[i]) << (i * bits % 64);
        }
        switch (bits) {
        case 1: *reinterpret_cast<uint16_t*>(to) = static_cast<uint16_t>(word); break;
        case 2: *reinterpret_cast<uint32_t*>(to) = static_cast<uint32_t>(word); break;
        case 4: *reinterpret_cast<uint64_t*>(to) = word; break;
        default: *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(packed.of);
        }
    }
}

// The other way round.
template <int bits>
__global__ void __launch_bounds__(kPackThreads) unpack_kernel(const uint8_t* bytes, uint8_t* codes, int64_t count) {
    const int64_t stride = int64_t(kPackCodes) * kPackThreads * gridDim.x;
    for (int64_t k = kPackCodes * (int64_t(kPackThreads) * blockIdx.x + threadIdx.x); k < count; k += stride) {
        const uint8_t* from = bytes + k * bits / 8;
        if (count - k < kPackCodes) {
            unpack_codes(from, count - k, bits, codes + k);
            continue;
        }
        SixteenBytes code;
        if (bits == 8) {
            code = load_sixteen(from);
        } else {
            uint64_t word = 0;
            switch (bits) {
            case 1: word = *reinterpret_cast<const uint16_t*>(from); break;
            case 2: word = *reinterpret_cast<const uint32_t*>(from); break;
            default: word = *reinterpret_cast<const uint64_t*>(from);
            }
            for (int i = 0; i < kPackCodes; ++i) {
                code.of[i] = static_cast<uint8_t>(word >> (i * bits % 64) & ((1u << bits) - 1u));
            }
        }
        *reinterpret_cast<uint4*>(codes + k) = *reinterpret_cast<const uint4*>(code.of);
    }
}

// One byte a thread: rows that end inside a byte, and any address. pitch: bytes of a row.
__global__ void __launch_bounds__(kPackThreads)
    pack_rows_kernel(const uint8_t* codes, uint8_t* bytes, int64_t rows, int64_t cols, int64_t pitch, int bits) {
    const int64_t stride = int64_t(kPackThreads) * gridDim.x;
    const int per_byte = 8 / bits;
    for (int64_t b = int64_t(kPackThreads) * blockIdx.x + threadIdx.x; b < rows * pitch; b += stride) {
        const int64_t row = b / pitch;
        const int64_t col = (b - row * pitch) * per_byte;
        const int64_t left = cols - col;
        pack_codes(codes + row * cols + col, left < per_byte ? left : per_byte, bits, bytes + b);
    }
}

__global__ void __launch_bounds__(kPackThreads)
    unpack_rows_kernel(const uint8_t* bytes, uint8_t* codes, int64_t rows, int64_t cols, int64_t pitch, int bits) {
    const int64_t stride = int64_t(kPackThreads) * gridDim.x;
    const int per_byte = 8 / bits;
    for (int64_t b = int64_t(kPackThreads) * blockIdx.x + threadIdx.x; b < rows * pitch; b += stride) {
        const int64_t row = b / pitch;
        const int64_t col = (b - row * pitch) * per_byte;
        const int64_t left = cols - col;
        unpack_codes(bytes + b, left < per_byte ? left : per_byte, bits, codes + row * cols + col);
    }
}

}  // namespace fogzo
