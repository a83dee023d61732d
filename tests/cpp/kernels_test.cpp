// The launchers against the headers' one-element functions, over awkward shapes, on every
// instruction set and thread count.
#include <cmath>

#include "call.h"
#include "check.h"

namespace {

float d_of(const Call& call, const Arrays& a, int64_t r, int64_t c, int64_t probe) {
    const Shape& s = call.shape;
    const Mixture mixture = make_mixture(call.surrogate, call.noise, call.gamma);
    const uint32_t number = static_cast<uint32_t>(call.first_probe + probe);
    const Stream stream = {kSeed, static_cast<uint32_t>(kStep), static_cast<uint32_t>(kTensor), number};
    const uint64_t k = static_cast<uint64_t>(s.offset + r * s.pitch + c);
    const float bins = element_noise(stream, k, call.surrogate, call.noise, mixture.e, tanh_table());
    const float gw = a.grad[static_cast<size_t>(r * s.cols + c)] * whitening(scale_of(call, a, r, c), mixture.e);
    const float sign = probe_sign(kSeed, static_cast<uint32_t>(kStep), number);
    return perturbation(alignment(mixture, sign, call.norm), gw, mixture.across, bins);
}

void expect_perturbed(const Call& call, const Arrays& a, uint8_t* out, int64_t* flips) {
    const Shape& s = call.shape;
    const Grid grid = make_grid(call.kind, call.bits);
    for (int64_t side = 0; side < call.probes * call.sides; ++side) {
        uint8_t* at = out + side * side_bytes(call);
        flips[side] = 0;
        for (int64_t r = 0; r < s.rows; ++r) {
            std::vector<uint8_t> codes;
            for (int64_t c = 0; c < s.cols; ++c) {
                const float scale = scale_of(call, a, r, c);
                const float x = a.w[static_cast<size_t>(r * s.cols + c)] * (1.0f / scale);
                const float d = d_of(call, a, r, c, side / call.sides);
                const int code = code_of(grid, side % call.sides == 0 ? x + d : x - d);
                flips[side] += code != code_of(grid, x) ? 1 : 0;
                codes.push_back(static_cast<uint8_t>(code));
                const float value = scale * value_of(grid, code);
                if (call.form == 0) {
                    std::memcpy(at + 4 * (r * s.cols + c), &value, 4);
                }
            }
            if (call.form == 1) {
                std::memcpy(at + r * s.cols, codes.data(), codes.size());
            } else if (call.form == 2) {
                pack_codes(codes.data(), s.cols, grid.storage_bits, at + r * packed_bytes(s.cols, grid.storage_bits));
            }
        }
    }
}

void test_perturb(const Call& call) {
    const Arrays a = arrays_for(call);
    const int64_t sides = call.probes * call.sides;
    Guarded<uint8_t> wanted(sides * side_bytes(call));
    Guarded<int64_t> wanted_flips(sides);
    expect_perturbed(call, a, wanted.data(), wanted_flips.data());
    for (const char* isa : {"scalar", "auto"}) {
        CHECK(fogzo_cpu_set_isa(isa) == FOGZO_OK);
        for (const int threads : {1, 2, 5}) {
            Guarded<uint8_t> out(sides * side_bytes(call));
            Guarded<int64_t> flips(sides);
            CHECK(perturb(call, a, out.data(), flips.data(), threads) == FOGZO_OK);
            CHECK(out == wanted);
            CHECK(flips == wanted_flips);
        }
    }
}

// Kind 4 leaves out the grid: w + a d and w - a d.
void test_without_grid(const Shape& s) {
    const Call call = {s, 4, 0, kIdentity, static_cast<int>(s.rows % 2), 0, 2, 3, 2, 0.3, 1.5f};
    const Arrays a = arrays_for(call);
    Guarded<float> wanted(6 * s.rows * s.cols);
    for (int64_t i = 0; i < s.rows * s.cols; ++i) {
        const float scale = scale_of(call, a, i / s.cols, i % s.cols);
        for (int64_t p = 0; p < 3; ++p) {
            const float shift = scale * d_of(call, a, i / s.cols, i % s.cols, p);
            wanted[2 * p * s.rows * s.cols + i] = a.w[static_cast<size_t>(i)] + shift;
            wanted[(2 * p + 1) * s.rows * s.cols + i] = a.w[static_cast<size_t>(i)] - shift;
        }
    }
    for (const char* isa : {"scalar", "auto"}) {
        CHECK(fogzo_cpu_set_isa(isa) == FOGZO_OK);
        Guarded<float> out(6 * s.rows * s.cols);
        CHECK(perturb(call, a, out.data(), nullptr, 2) == FOGZO_OK);
        CHECK(out == wanted);
    }
}

void test_assemble(const Call& call) {
    const Shape& s = call.shape;
    const Arrays a = arrays_for(call);
    const float e = make_mixture(call.surrogate, call.noise, call.gamma).e;
    Guarded<float> wanted(s.rows * s.cols);
    for (int64_t r = 0; r < s.rows; ++r) {
        for (int64_t c = 0; c < s.cols; ++c) {
            float sum = 0.0f;
            for (int64_t p = 0; p < call.probes; ++p) {
                const float term = a.differences[static_cast<size_t>(p)] * d_of(call, a, r, c, p);
                sum = p == 0 ? term : sum + term;
            }
            wanted[r * s.cols + c] = sum * gain(static_cast<float>(call.probes), e, scale_of(call, a, r, c));
        }
    }
    for (const char* isa : {"scalar", "auto"}) {
        CHECK(fogzo_cpu_set_isa(isa) == FOGZO_OK);
        for (const int threads : {1, 3}) {
            Guarded<float> out(s.rows * s.cols);
            std::memcpy(out.data(), a.grad.data(), sizeof(float) * a.grad.size());  // out may be grad
            CHECK(fogzo_cpu_assemble_gradient(out.data(), a.scale.data(), a.differences.data(), out.data(),
                                              tanh_table(), s.rows, s.cols, s.scale_rows, s.scale_cols, s.offset,
                                              s.pitch, call.surrogate, call.noise, call.probes, call.first_probe, kSeed,
                                              kStep, kTensor, call.gamma, call.norm, threads) == FOGZO_OK);
            CHECK(out == wanted);
        }
    }
}

void test_drawing(const Shape& s, int surrogate, int noise) {
    Guarded<float> wanted(s.rows * s.cols);
    const float e = static_cast<float>(radius(surrogate, noise));
    const Stream stream = {kSeed, static_cast<uint32_t>(kStep), static_cast<uint32_t>(kTensor), 6};
    for (int64_t i = 0; i < wanted.size(); ++i) {
        const uint64_t k = static_cast<uint64_t>(s.offset + i / s.cols * s.pitch + i % s.cols);
        wanted[i] = element_noise(stream, k, surrogate, noise, e, tanh_table()) / e;
    }
    for (const char* isa : {"scalar", "auto"}) {
        CHECK(fogzo_cpu_set_isa(isa) == FOGZO_OK);
        for (const int threads : {1, 2}) {
            Guarded<float> out(s.rows * s.cols);
            CHECK(fogzo_cpu_noise(out.data(), tanh_table(), s.rows, s.cols, s.offset, s.pitch, surrogate, noise, kSeed,
                                  kStep, kTensor, 6, threads) == FOGZO_OK);
            CHECK(out == wanted);
        }
    }
}

// The scale gradients in long double, and for each the sum of magnitudes that bounds a rounding error.
struct ScaleGradient {
    std::vector<long double> sum, bound;
};

ScaleGradient expected_scale_gradient(const Call& call, const Arrays& a, const Grid& grid) {
    const Shape& s = call.shape;
    const size_t scales = a.scale.size();
    ScaleGradient wanted = {std::vector<long double>(scales), std::vector<long double>(scales)};
    for (int64_t i = 0; i < s.rows * s.cols; ++i) {
        const int64_t r = i / s.cols;
        const int64_t at = (s.scale_rows > 1 ? r : 0) * s.scale_cols + i % s.cols / (s.cols / s.scale_cols);
        const float x = a.w[static_cast<size_t>(i)] * (1.0f / a.scale[static_cast<size_t>(at)]);
        const long double term =
            static_cast<long double>(a.grad[static_cast<size_t>(i)]) * static_cast<long double>(scale_slope(grid, x));
        wanted.sum[static_cast<size_t>(at)] += term;
        wanted.bound[static_cast<size_t>(at)] += std::fabs(term);
    }
    const long double share = std::sqrt(static_cast<long double>(s.rows * s.cols * positive_levels(grid)));
    for (size_t k = 0; k < scales; ++k) {
        wanted.sum[k] /= share;
        wanted.bound[k] /= share;
    }
    return wanted;
}

void test_scale_gradient(const Shape& s, int kind, int bits, int surrogate, float limit) {
    const Call call = {s, kind, bits, surrogate, 0, 0, 1, 1, 0, 0.0, 1.0f};
    const Arrays a = arrays_for(call);
    const ScaleGradient wanted = expected_scale_gradient(call, a, limited(make_grid(kind, bits), limit));
    const int64_t scales = s.scale_rows * s.scale_cols;
    Guarded<float> first(scales);
    for (const char* isa : {"scalar", "auto"}) {
        CHECK(fogzo_cpu_set_isa(isa) == FOGZO_OK);
        for (const int threads : {1, 2, 5}) {
            Guarded<float> grad_w(s.rows * s.cols);
            Guarded<float> grad_scale(scales);
            std::memcpy(grad_w.data(), a.grad.data(), sizeof(float) * a.grad.size());  // grad_w may be grad
            CHECK(fogzo_cpu_fake_quantize_backward(grad_w.data(), a.w.data(), a.scale.data(), grad_w.data(),
                                                   grad_scale.data(), s.rows, s.cols, s.scale_rows, s.scale_cols, kind,
                                                   bits, surrogate, limit, threads) == FOGZO_OK);
            bool right = grad_scale.intact();
            for (int64_t k = 0; k < scales; ++k) {
                const size_t at = static_cast<size_t>(k);
                const long double error = std::fabs(grad_scale[k] - wanted.sum[at]);
                right = right && error <= 1.0e-7L * std::fabs(wanted.sum[at]) + 1.0e-12L * wanted.bound[at];
            }
            CHECK(right);
            if (threads == 1 && isa[0] == 's') {
                std::memcpy(first.data(), grad_scale.data(), sizeof(float) * static_cast<size_t>(scales));
            }
            CHECK(grad_scale == first);
        }
    }
}

void test_fake(const Shape& s, int kind, int bits, int surrogate, float limit) {
    const Call call = {s, kind, bits, surrogate, 0, 0, 1, 1, 0, 0.0, 1.0f};
    Arrays a = arrays_for(call);
    a.w[0] = std::nanf("");
    a.w[a.w.size() / 2] = -0.0f;
    a.w[a.w.size() - 1] = HUGE_VALF;
    const Grid grid = limited(make_grid(kind, bits), limit);
    for (const char* isa : {"scalar", "auto"}) {
        CHECK(fogzo_cpu_set_isa(isa) == FOGZO_OK);
        for (const int threads : {1, 2}) {
            Guarded<float> out(s.rows * s.cols);
            Guarded<float> grad_w(s.rows * s.cols);
            CHECK(fogzo_cpu_fake_quantize(a.w.data(), a.scale.data(), out.data(), s.rows, s.cols, s.scale_rows,
                                          s.scale_cols, kind, bits, threads) == FOGZO_OK);
            CHECK(fogzo_cpu_fake_quantize_backward(a.grad.data(), a.w.data(), a.scale.data(), grad_w.data(), nullptr,
                                                   s.rows, s.cols, s.scale_rows, s.scale_cols, kind, bits, surrogate,
                                                   limit, threads) == FOGZO_OK);
            bool right = out.intact() && grad_w.intact();
            for (int64_t i = 0; i < out.size(); ++i) {
                const float scale = scale_of(call, a, i / s.cols, i % s.cols);
                const float x = a.w[static_cast<size_t>(i)] * (1.0f / scale);
                const float value = scale * value_of(grid, code_of(grid, x));
                const float g = surrogate_gradient(grid, surrogate, x, a.grad[static_cast<size_t>(i)]);
                right = right && (std::isnan(x) ? std::isnan(out[i]) : bits_of(out[i]) == bits_of(value)) &&
                        bits_of(grad_w[i]) == bits_of(g);
            }
            CHECK(right);
        }
    }
}

void test_norm() {
    std::vector<const float*> grads, scales;
    std::vector<int64_t> rows, cols, scale_rows, scale_cols;
    std::vector<int> surrogates;
    std::vector<Arrays> kept;
    long double sum = 0.0L;
    for (const Shape& s : kShapes) {
        kept.push_back(arrays_for({s, 0, 0, kHardtanh, 0, 0, 1, 1, 0, 0.0, 1.0f}));
    }
    size_t t = 0;
    for (const Shape& s : kShapes) {
        const Arrays& a = kept[t++];
        const Call call = {s, 0, 0, kHardtanh, 0, 0, 1, 1, 0, 0.0, 1.0f};
        grads.push_back(a.grad.data());
        scales.push_back(a.scale.data());
        rows.push_back(s.rows);
        cols.push_back(s.cols);
        scale_rows.push_back(s.scale_rows);
        scale_cols.push_back(s.scale_cols);
        surrogates.push_back(t % 2 == 0 ? kIdentity : kTanh);
        const float e = static_cast<float>(radius(surrogates.back(), kPublished));
        for (int64_t i = 0; i < s.rows * s.cols; ++i) {
            const float gw = a.grad[static_cast<size_t>(i)] * (scale_of(call, a, i / s.cols, i % s.cols) * e);
            sum += static_cast<long double>(gw) * gw;
        }
    }
    float first = 0.0f;
    for (const int turn : {0, 1, 2, 3, 4, 5}) {
        CHECK(fogzo_cpu_set_isa(turn < 3 ? "scalar" : "auto") == FOGZO_OK);
        const int threads = 1 + 3 * (turn % 3);
        Guarded<float> out(1);
        CHECK(fogzo_cpu_whitened_norm(grads.data(), scales.data(), rows.data(), cols.data(), scale_rows.data(),
                                      scale_cols.data(), surrogates.data(), static_cast<int64_t>(grads.size()),
                                      kPublished, out.data(), threads) == FOGZO_OK);
        CHECK(out.intact());
        const float wanted = static_cast<float>(std::sqrt(sum));
        CHECK(out[0] >= std::nextafter(wanted, 0.0f) && out[0] <= std::nextafter(wanted, 2.0f * wanted));
        first = turn == 0 ? out[0] : first;
        CHECK(out[0] == first);
    }
}

}  // namespace

void test_kernels() {
    test_norm();
    int turn = 0;
    for (const Shape& s : kShapes) {
        test_without_grid(s);
        for (int surrogate = 0; surrogate < kSurrogates; ++surrogate) {
            const bool for_sign = surrogate == kHardtanh || surrogate == kTanh || surrogate == kApproxSign;
            const int kind = for_sign ? kSign : kTernary + turn % 3;
            const int bits = 2 + turn % 7;
            for (int noise = 0; noise < kNoiseKinds; ++noise) {
                test_drawing(s, surrogate, noise);
                const int64_t probes = turn % 5 == 0 ? 9 : 1 + turn % 2;  // more than there are sources
                const double gamma = turn % 4 == 0 ? 1.0 : turn % 4 == 1 ? 0.0 : 0.01;
                const float norm = turn % 3 == 0 ? 0.0f : 2.5f;
                const Call call = {s, kind, bits, surrogate, noise, turn % 3, 1 + turn % 2, probes, 7, gamma, norm};
                test_perturb(call);
                test_assemble(call);
                ++turn;
            }
            if (surrogate != kTanh) {
                for (const float limit : {0.0f, 0.99f}) {
                    if (is_limit(limit, surrogate)) {
                        test_fake(s, kind, bits, surrogate, limit);
                        test_scale_gradient(s, kind, bits, surrogate, limit);
                    }
                }
            }
        }
    }
}
