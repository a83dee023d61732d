// What every launcher returns, readable from C; a text is "argument got, expected expected".
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

enum fogzo_status {
    FOGZO_OK = 0,
    FOGZO_NULL_POINTER = 1,
    FOGZO_BAD_SIZE = 2,
    FOGZO_BAD_SCALE_SHAPE = 3,
    FOGZO_BAD_SCALE_VALUE = 4,
    FOGZO_BAD_GAMMA = 5,
    FOGZO_BAD_SURROGATE = 6,
    FOGZO_BAD_NOISE = 7,
    FOGZO_BAD_GRID = 8,
    FOGZO_BAD_PAIR = 9,
    FOGZO_BAD_FORM = 10,
    FOGZO_BAD_SIDES = 11,
    FOGZO_BAD_PROBES = 12,
    FOGZO_BAD_COUNTER = 13,
    FOGZO_TOO_MANY_ELEMENTS = 14,
    FOGZO_BAD_ISA = 15,
    FOGZO_NO_DEVICE = 16,
    FOGZO_DEVICE_ERROR = 17,
    FOGZO_BAD_PITCH = 18,
    FOGZO_BAD_BITS = 19,
    FOGZO_BAD_BLOCK = 20,
    FOGZO_BAD_ALIGNMENT = 21,
    FOGZO_BAD_WORKSPACE = 22,
    FOGZO_BAD_TYPE = 23,
    FOGZO_UNALIGNED = 24,
    FOGZO_BAD_LIMIT = 25,
    FOGZO_BAD_RULE = 26,
    FOGZO_BAD_KERNEL = 27,
    FOGZO_NO_WGMMA = 28,
    FOGZO_BAD_INDEX = 29,
    FOGZO_STATUS_COUNT = 30
};

static inline const char* fogzo_status_text(int status) {
    switch (status) {
    case FOGZO_OK: return "ok";
    case FOGZO_NULL_POINTER: return "pointer is null, expected an array where the size is not zero";
    case FOGZO_BAD_SIZE: return "size is negative or too large, expected an array that fits in memory";
    case FOGZO_BAD_SCALE_SHAPE:
        return "scale has rows or columns that do not fit, expected 1 or all rows, and columns that divide those of w";
    case FOGZO_BAD_SCALE_VALUE:
        return "scale has a value that is too small or not finite, expected finite numbers >= 2^-100";
    case FOGZO_BAD_GAMMA: return "gamma is out of range, expected a number from 0 to 1";
    case FOGZO_BAD_SURROGATE: return "surrogate has an unknown number, expected one that this operation serves";
    case FOGZO_BAD_NOISE: return "noise has an unknown number, expected 0 or 1";
    case FOGZO_BAD_GRID: return "grid has an unknown number or bits, expected one that this operation serves";
    case FOGZO_BAD_PAIR: return "surrogate does not fit the grid, expected a pair that exists";
    case FOGZO_BAD_FORM: return "form has an unknown number, expected 0, 1 or 2";
    case FOGZO_BAD_SIDES: return "sides is out of range, expected 1 or 2";
    case FOGZO_BAD_PROBES: return "probes is out of range, expected at least 1";
    case FOGZO_BAD_COUNTER: return "counter is out of range, expected step and probe < 2^32, tensor < 2^32 - 1";
    case FOGZO_TOO_MANY_ELEMENTS:
        return "offset gives element numbers that are out of range, expected numbers from 0 to 2^35 - 1";
    case FOGZO_BAD_ISA:
        return "isa is not available, expected auto, scalar, or avx2 or avx512-vnni where the CPU and the build have "
               "it";
    case FOGZO_NO_DEVICE: return "device is missing, expected a CUDA device";
    case FOGZO_DEVICE_ERROR: return "device reported an error, expected none";
    case FOGZO_BAD_PITCH: return "row_pitch is out of range, expected a number from the number of columns to 2^35";
    case FOGZO_BAD_BITS: return "bits is out of range, expected 1, 2, 4 or 8";
    case FOGZO_BAD_BLOCK: return "block is out of range, expected a power of two from 1 to 2^20";
    case FOGZO_BAD_ALIGNMENT:
        return "out is packed where a row or its numbers end inside a byte, expected columns, offset and row_pitch "
               "that are whole bytes of codes";
    case FOGZO_BAD_WORKSPACE: return "workspace is too small, expected as many bytes as the workspace call says";
    case FOGZO_BAD_TYPE: return "x_type has an unknown number, expected one that this operation serves";
    case FOGZO_UNALIGNED:
        return "pointer is not aligned, expected an array that begins at a multiple of its numbers' size";
    case FOGZO_BAD_LIMIT: return "limit is out of range, expected 0, or a number over 0 with the clipped surrogate";
    case FOGZO_BAD_RULE: return "rule has an unknown number, expected one from 0 to 3";
    case FOGZO_BAD_KERNEL:
        return "kernel has an unknown number or does not take this x, expected 0 (mma), or 1 (wgmma) with int8 or "
               "bfloat16 x";
    case FOGZO_NO_WGMMA:
        return "kernel is wgmma where it cannot run, expected a GPU of compute capability 9.0 and kernels built for "
               "sm_90a";
    case FOGZO_BAD_INDEX:
        return "index has numbers out of order or out of range, expected element numbers that ascend, each once";
    default: return "status is unknown, expected one of this table";
    }
}

#ifdef __cplusplus
}
#endif
