// Bad arguments: the status says which, and nothing is written.
#include <cmath>
#include <string>

#include "call.h"

void test_refusals() {
    const Call good = {{3, 40, 3, 1, 0, 40}, kMidRise, 2, kIdentity, kPublished, 1, 2, 1, 0, 0.5, 1.0f};
    struct Bad {
        int status;
        Call call;
    };
    std::vector<Bad> bad;
    auto add = [&](int status, auto change) {
        Call call = good;
        change(call);
        bad.push_back({status, call});
    };
    add(FOGZO_BAD_SIZE, [](Call& c) { c.shape.rows = -1; });
    add(FOGZO_BAD_SCALE_SHAPE, [](Call& c) { c.shape.scale_rows = 2; });
    add(FOGZO_BAD_SCALE_SHAPE, [](Call& c) { c.shape.scale_cols = 7; });
    add(FOGZO_BAD_SCALE_SHAPE, [](Call& c) { c.shape.scale_cols = 0; });
    add(FOGZO_BAD_GAMMA, [](Call& c) { c.gamma = std::nan(""); });
    add(FOGZO_BAD_GAMMA, [](Call& c) { c.gamma = -0.1; });
    add(FOGZO_BAD_GAMMA, [](Call& c) { c.gamma = 1.1; });
    add(FOGZO_BAD_SURROGATE, [](Call& c) { c.surrogate = 6; });
    add(FOGZO_BAD_NOISE, [](Call& c) { c.noise = 2; });
    add(FOGZO_BAD_GRID, [](Call& c) { c.bits = 9; });
    add(FOGZO_BAD_GRID, [](Call& c) { c.kind = 4; });
    add(FOGZO_BAD_GRID, [](Call& c) { c.kind = 5; });
    add(FOGZO_BAD_PAIR, [](Call& c) { c.surrogate = kTanh; });
    add(FOGZO_BAD_FORM, [](Call& c) { c.form = 3; });
    add(FOGZO_BAD_SIDES, [](Call& c) { c.sides = 0; });
    add(FOGZO_BAD_PROBES, [](Call& c) { c.probes = 0; });
    add(FOGZO_BAD_COUNTER, [](Call& c) { c.first_probe = int64_t(1) << 32; });
    add(FOGZO_TOO_MANY_ELEMENTS, [](Call& c) { c.shape.offset = kMaxElements - 10; });
    add(FOGZO_TOO_MANY_ELEMENTS, [](Call& c) { c.shape.offset = -1; });
    add(FOGZO_TOO_MANY_ELEMENTS, [](Call& c) { c.shape.pitch = kMaxElements; });
    add(FOGZO_BAD_PITCH, [](Call& c) { c.shape.pitch = INT64_MAX; });
    add(FOGZO_BAD_PITCH, [](Call& c) { c.shape.pitch = 39; });
    for (const Bad& b : bad) {
        const Arrays a = arrays_for(good);
        Guarded<uint8_t> out(side_bytes(good) * 2);
        Guarded<int64_t> flips(2);
        CHECK(perturb(b.call, a, out.data(), flips.data(), 1) == b.status);
        CHECK(out.untouched() && flips.untouched());
    }
    for (const float value : {0.0f, -1.0f, std::nanf(""), HUGE_VALF, 7.0e-31f}) {
        Arrays a = arrays_for(good);
        a.scale[2] = value;
        Guarded<uint8_t> out(side_bytes(good) * 2);
        CHECK(perturb(good, a, out.data(), nullptr, 1) == FOGZO_BAD_SCALE_VALUE);
        CHECK(out.untouched());
    }
    const Arrays a = arrays_for(good);
    CHECK(perturb(good, a, nullptr, nullptr, 1) == FOGZO_NULL_POINTER);
    for (const auto& [surrogate, limit] : {std::pair(kClipped, -1.0f), {kClipped, std::nanf("")}, {kIdentity, 0.99f}}) {
        Guarded<float> slopes(9);
        CHECK(fogzo_cpu_fake_quantize_backward(a.grad.data(), a.w.data(), a.scale.data(), slopes.data(), nullptr, 1, 9,
                                               1, 1, kTernary, 0, surrogate, limit, 1) == FOGZO_BAD_LIMIT);
        CHECK(slopes.untouched());
    }
    CHECK(fogzo_cpu_noise(nullptr, nullptr, 1, 4, 0, 4, kTanh, kPublished, 0, 0, 0, 0, 1) == FOGZO_NULL_POINTER);
    CHECK(fogzo_cpu_noise(nullptr, nullptr, 0, 4, 0, 4, kIdentity, kPublished, 0, 0, 0, 0, 1) == FOGZO_OK);
    CHECK(fogzo_cpu_noise(nullptr, nullptr, INT64_MAX, INT64_MAX, 0, 4, 0, 0, 0, 0, 0, 0, 1) == FOGZO_BAD_SIZE);
    CHECK(fogzo_cpu_set_isa("sse9") == FOGZO_BAD_ISA && fogzo_cpu_set_isa("auto") == FOGZO_OK);
    for (int status = 1; status < FOGZO_STATUS_COUNT; ++status) {
        CHECK(std::string(fogzo_status_text(status)).find(", expected ") != std::string::npos);
    }
}
