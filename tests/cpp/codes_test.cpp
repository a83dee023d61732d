// quantize, dequantize, pack, unpack and hadamard against the headers and plain loops, over awkward
// widths, on every instruction set.
#include <cmath>

#include "check.h"
#include "fogzo/cpu.h"
#include "fogzo/grid.h"
#include "fogzo/pack.h"

using namespace fogzo;

namespace {

const int64_t kWidths[] = {1, 3, 7, 8, 31, 32, 33, 64, 100, 128, 1023, 1024, 1025, 5000};

void test_codes(int64_t rows, int64_t cols, int kind, int bits) {
    const Grid grid = make_grid(kind, bits);
    std::vector<float> w = some_weights(rows * cols, 5);
    for (float& value : w) {
        value *= grid.v_max;
    }
    w[0] = std::nanf("");
    w[w.size() - 1] = HUGE_VALF;
    w[w.size() / 2] = w.size() > 2 ? -3.0e30f : w[w.size() / 2];
    std::vector<float> scale = some_weights(rows, 6);
    for (float& value : scale) {
        value = 0.1f + std::fabs(value);
    }
    Guarded<uint8_t> wanted(rows * cols);
    Guarded<float> values(rows * cols);
    const int64_t pitch = packed_bytes(cols, grid.storage_bits);
    Guarded<uint8_t> bytes(rows * pitch);
    for (int64_t i = 0; i < rows * cols; ++i) {
        const float a = scale[static_cast<size_t>(i / cols)];
        wanted[i] = static_cast<uint8_t>(code_of(grid, w[static_cast<size_t>(i)] * (1.0f / a)));
        values[i] = a * value_of(grid, wanted[i]);
    }
    for (int64_t r = 0; r < rows; ++r) {
        pack_codes(wanted.data() + r * cols, cols, grid.storage_bits, bytes.data() + r * pitch);
    }
    for (const char* isa : {"scalar", "auto"}) {
        CHECK(fogzo_cpu_set_isa(isa) == FOGZO_OK);
        Guarded<uint8_t> codes(rows * cols), packed(rows * pitch), back(rows * cols);
        Guarded<float> out(rows * cols);
        CHECK(fogzo_cpu_quantize(w.data(), scale.data(), codes.data(), rows, cols, rows, 1, kind, bits, 2) == FOGZO_OK);
        CHECK(codes == wanted);
        CHECK(fogzo_cpu_dequantize(codes.data(), scale.data(), out.data(), rows, cols, rows, 1, kind, bits, 2) ==
              FOGZO_OK);
        CHECK(out == values);
        CHECK(fogzo_cpu_pack(codes.data(), packed.data(), rows, cols, grid.storage_bits, 2) == FOGZO_OK);
        CHECK(packed == bytes);
        CHECK(fogzo_cpu_unpack(packed.data(), back.data(), rows, cols, grid.storage_bits, 2) == FOGZO_OK);
        CHECK(back == wanted);
    }
}

void rotate_plainly(float* x, int64_t m) {
    for (int64_t stride = 1; stride < m; stride *= 2) {
        std::vector<float> next(static_cast<size_t>(m));
        for (int64_t i = 0; i < m; ++i) {
            next[static_cast<size_t>(i)] = (i / stride) % 2 == 0 ? x[i] + x[i + stride] : x[i - stride] - x[i];
        }
        std::memcpy(x, next.data(), sizeof(float) * static_cast<size_t>(m));
    }
    for (int64_t i = 0; i < m; ++i) {
        x[i] *= static_cast<float>(1.0 / std::sqrt(static_cast<double>(m)));
    }
}

void test_hadamard(int64_t rows, int64_t cols, int64_t block) {
    const std::vector<float> x = some_weights(rows * cols, 7);
    Guarded<float> wanted(rows * cols);
    std::memcpy(wanted.data(), x.data(), sizeof(float) * x.size());
    for (int64_t r = 0; r < rows; ++r) {
        int64_t at = 0;
        for (; at + block <= cols; at += block) {
            rotate_plainly(wanted.data() + r * cols + at, block);
        }
        for (int64_t m = block / 2; m > 0; m /= 2) {
            if (((cols - at) & m) != 0) {
                rotate_plainly(wanted.data() + r * cols + at, m);
                at += m;
            }
        }
    }
    for (const char* isa : {"scalar", "auto"}) {
        CHECK(fogzo_cpu_set_isa(isa) == FOGZO_OK);
        Guarded<float> out(rows * cols);
        CHECK(fogzo_cpu_hadamard(x.data(), out.data(), rows, cols, block, 2) == FOGZO_OK);
        CHECK(out == wanted);
    }
}

}  // namespace

void test_codes_and_rotation() {
    for (const int64_t cols : kWidths) {
        test_codes(3, cols, kSign, 1);
        test_codes(17, cols, kTernary, 2);
        for (int bits = 2; bits <= 8; ++bits) {
            test_codes(1 + bits % 3, cols, bits % 2 == 0 ? kMidRise : kMidTread, bits);
        }
        for (const int64_t block : {1, 2, 8, 128, 2048}) {
            test_hadamard(2, cols, block);
        }
    }
    uint8_t byte = 0;
    float value = 1.0f;
    CHECK(fogzo_cpu_pack(&byte, &byte, 1, 1, 3, 1) == FOGZO_BAD_BITS);
    CHECK(fogzo_cpu_unpack(&byte, &byte, -1, 1, 2, 1) == FOGZO_BAD_SIZE);
    CHECK(fogzo_cpu_pack(nullptr, &byte, 1, 1, 2, 1) == FOGZO_NULL_POINTER);
    CHECK(fogzo_cpu_hadamard(&value, &value, 1, 1, 96, 1) == FOGZO_BAD_BLOCK);
    CHECK(fogzo_cpu_hadamard(nullptr, &value, 1, 1, 64, 1) == FOGZO_NULL_POINTER);
    CHECK(fogzo_cpu_quantize(&value, &value, &byte, 1, 1, 1, 1, kMidRise, 9, 1) == FOGZO_BAD_GRID);
    CHECK(fogzo_cpu_dequantize(&byte, nullptr, &value, 1, 1, 1, 1, kSign, 1, 1) == FOGZO_NULL_POINTER);
}
