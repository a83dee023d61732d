#include "check.h"

#include <cmath>

#include "fogzo/cpu.h"

extern "C" int c_header_works(void);

const float* tanh_table() {
    static const std::vector<float> table = [] {
        std::vector<float> values;
        for (int k = 0; k < 32768; ++k) {
            values.push_back(static_cast<float>(std::atanh((2.0 * k + 1.0) / 65536.0)));
        }
        return values;
    }();
    return table.data();
}

std::vector<float> some_weights(int64_t count, uint32_t seed) {
    std::vector<float> values;
    uint32_t state = seed * 2654435761u + 1u;
    for (int64_t i = 0; i < count; ++i) {
        state = state * 1664525u + 1013904223u;
        const float value = static_cast<float>(static_cast<int32_t>(state >> 8) - (1 << 23)) / (1 << 22);
        values.push_back(state % 61 == 0 ? 0.0f : state % 53 == 0 ? 0.5f : value);
    }
    return values;
}

int main() {
    test_philox();
    test_noise();
    test_grid();
    test_pack();
    test_codes_and_rotation();
    test_kernels();
    test_many();
    test_refusals();
    test_header();
    CHECK(c_header_works() == 1);
    std::printf("%d passed, %d failed (%s)\n", tally().passed, tally().failed, fogzo_cpu_isa());
    return tally().failed == 0 ? 0 : 1;
}
