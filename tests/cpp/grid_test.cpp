#include <cfloat>
#include <cmath>
#include <limits>

#include "check.h"
#include "fogzo/grid.h"
#include "fogzo/pack.h"

using namespace fogzo;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Case {
    int kind;
    int bits;
    float x;
    float value;
};

// Rounded in float64 by the library: another road to the same values.
float by_library(const Grid& grid, float x) {
    if (std::isnan(x)) {
        return grid.v_min;
    }
    if (grid.kind == kSign) {
        return x >= 0.0f ? 1.0f : -1.0f;
    }
    const double t = std::fmin(std::fmax(static_cast<double>(x - grid.shift), grid.low), grid.high);
    return static_cast<float>(std::nearbyint(t)) + grid.shift;
}

void test_kind(int kind, int bits) {
    const Grid grid = make_grid(kind, bits);
    CHECK(value_of(grid, 0) == grid.v_min);
    CHECK(value_of(grid, grid.levels - 1) == grid.v_max);
    bool right = true;
    for (int i = -3000; i <= 3000; ++i) {
        for (const float x : {static_cast<float>(i) / 16.0f, std::nextafter(static_cast<float>(i) / 16.0f, kInf),
                              std::nextafter(static_cast<float>(i) / 16.0f, -kInf)}) {
            const int code = code_of(grid, x);
            const float value = value_of(grid, code);
            right = right && code >= 0 && code < grid.levels && bits_of(value) == bits_of(by_library(grid, x) + 0.0f);
        }
    }
    CHECK(right);
    for (const float x : {kNan, -kInf, -FLT_MAX}) {
        CHECK(code_of(grid, x) == 0);
    }
    for (const float x : {kInf, FLT_MAX}) {
        CHECK(code_of(grid, x) == grid.levels - 1);
    }
}

}  // namespace

void test_grid() {
    test_kind(kSign, 0);
    test_kind(kTernary, 0);
    for (int bits = 2; bits <= 8; ++bits) {
        test_kind(kMidTread, bits);
        test_kind(kMidRise, bits);
        CHECK(make_grid(kMidRise, bits).storage_bits == (bits == 2 ? 2 : bits <= 4 ? 4 : 8));
    }
    const float tiny = std::numeric_limits<float>::denorm_min();
    const Case cases[] = {
        {kSign, 0, 0.0f, 1.0f},       {kSign, 0, -0.0f, 1.0f},         {kSign, 0, -tiny, -1.0f},
        {kTernary, 0, 0.5f, 0.0f},    {kTernary, 0, -0.5f, 0.0f},      {kTernary, 0, 0.50000006f, 1.0f},
        {kTernary, 0, -0.2f, 0.0f},   {kTernary, 0, 1.5f, 1.0f},       {kMidTread, 3, 1.5f, 2.0f},
        {kMidTread, 3, 2.5f, 2.0f},   {kMidTread, 3, 3.5f, 3.0f},      {kMidTread, 3, -4.5f, -4.0f},
        {kMidTread, 3, -9.0f, -4.0f}, {kMidTread, 3, -tiny, 0.0f},     {kMidRise, 2, 0.0f, 0.5f},
        {kMidRise, 2, -0.0f, 0.5f},   {kMidRise, 2, -tiny, 0.5f},      {kMidRise, 2, 1.0f, 0.5f},
        {kMidRise, 2, -1.0f, -1.5f},  {kMidRise, 2, 1.0000001f, 1.5f}, {kMidRise, 2, 7.0f, 1.5f},
    };
    for (const Case& c : cases) {
        const Grid grid = make_grid(c.kind, c.bits);
        CHECK(bits_of(value_of(grid, code_of(grid, c.x))) == bits_of(c.value));
    }
    CHECK(!grid_exists(kMidRise, 1) && !grid_exists(kMidTread, 9) && !grid_exists(7, 2));
    CHECK(surrogate_fits(kSign, kTrust, kPublished) && !surrogate_fits(kSign, kTrust, kRademacher));
    CHECK(!surrogate_fits(kSign, kClipped, kPublished) && !surrogate_fits(kMidRise, kTanh, kPublished));
    const Grid grid = make_grid(kMidRise, 2);
    CHECK(surrogate_gradient(grid, kClipped, 1.5f, 3.0f) == 3.0f);
    CHECK(surrogate_gradient(grid, kClipped, std::nextafter(1.5f, 2.0f), 3.0f) == 0.0f);
    CHECK(surrogate_gradient(grid, kClipped, kNan, 3.0f) == 0.0f);
    CHECK(surrogate_gradient(grid, kTrust, 2.0f, 3.0f) == 3.0f && surrogate_gradient(grid, kTrust, 2.1f, 3.0f) == 0.0f);
    CHECK(surrogate_gradient(make_grid(kSign, 0), kApproxSign, -0.25f, 3.0f) == 4.5f);
    CHECK(surrogate_gradient(make_grid(kSign, 0), kApproxSign, 1.0f, 3.0f) == 0.0f);
}

void test_pack() {
    for (const int bits : {1, 2, 4, 8}) {
        for (const int64_t count : {0, 1, 2, 3, 4, 5, 7, 8, 9, 31, 33}) {
            std::vector<uint8_t> codes(static_cast<size_t>(count));
            for (int64_t i = 0; i < count; ++i) {
                codes[static_cast<size_t>(i)] = static_cast<uint8_t>((i * 37 + 11) & ((1 << bits) - 1));
            }
            Guarded<uint8_t> bytes(packed_bytes(count, bits));
            pack_codes(codes.data(), count, bits, bytes.data());
            Guarded<uint8_t> again(count);
            unpack_codes(bytes.data(), count, bits, again.data());
            CHECK(bytes.intact() && again.intact());
            CHECK(count == 0 || std::memcmp(again.data(), codes.data(), static_cast<size_t>(count)) == 0);
            const int used = static_cast<int>(count * bits % 8);
            CHECK(used == 0 || bytes[bytes.size() - 1] >> used == 0);
        }
    }
    Guarded<uint8_t> byte(1);
    const uint8_t codes[3] = {1, 2, 3};
    pack_codes(codes, 3, 2, byte.data());
    CHECK(byte[0] == (1 | 2 << 2 | 3 << 4));
}
