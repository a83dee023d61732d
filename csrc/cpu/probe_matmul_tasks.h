// What a call of probe_matmul hands to its tasks, each a block of y.
#pragma once
#include <cstring>

#include "kernels.h"
#include "probe_matmul_plan.h"

namespace fogzo {

inline float from_bfloat16(uint16_t x) {
    const uint32_t bits = static_cast<uint32_t>(x) << 16;
    float result;
    std::memcpy(&result, &bits, 4);
    return result;
}

// Half to even; NaN stays NaN.
inline uint16_t to_bfloat16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    if (x != x) {
        return static_cast<uint16_t>((bits >> 16) | 0x40);
    }
    return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

struct MatmulCall {
    Sizes z;
    const void* x;
    const float* x_scale;
    const uint8_t* codes;
    const float* bias;
    void* y;
    Grid grid;
    Workspace w;
    const MatmulKernels& kernels;
};

// 2 value = twice_step * code + twice_low, in the arithmetic of 32 bits that wraps.
inline uint32_t twice_step(const Grid& grid) { return static_cast<uint32_t>(2.0f * grid.step); }
inline uint32_t twice_low(const Grid& grid) { return static_cast<uint32_t>(static_cast<int32_t>(2.0f * grid.v_min)); }

inline uint8_t code_mask(const Grid& grid) {
    int mask = 1;
    while (mask + 1 < grid.levels) {
        mask = 2 * mask + 1;
    }
    return static_cast<uint8_t>(mask);
}

// Rows m0 .. m1 - 1 against panels first_panel .. last_panel - 1 of one side.
struct MatmulTask {
    int64_t side;
    int64_t m0;
    int64_t m1;
    int64_t first_panel;
    int64_t last_panel;
};

// Makes one block of y.
void multiply_task(const MatmulCall& call, const MatmulTask& task, const Scratch& scratch);

}  // namespace fogzo
