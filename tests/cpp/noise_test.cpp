#include <cmath>

#include "check.h"
#include "fogzo/noise.h"

using namespace fogzo;

namespace {

bool equal(Words words, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
    return words.word[0] == a && words.word[1] == b && words.word[2] == c && words.word[3] == d;
}

void test_layout() {
    const Stream stream = {77, 5, 6, 7};
    // k = 3 * 1024 + 5 * 128 + 77: half 5 is the high half of word 2.
    const Words halves = philox(stream, 3 * 128 + 77);
    const float z = static_cast<float>(2 * static_cast<int>(halves.word[2] >> 16) - 65535) / 65536.0f;
    CHECK(element_noise(stream, 3 * 1024 + 5 * 128 + 77, kHardtanh, kPublished, 1.0f, nullptr) == z);
    // half 4 is its low half.
    const float low = static_cast<float>(2 * static_cast<int>(halves.word[2] & 0xFFFF) - 65535) / 65536.0f;
    CHECK(element_noise(stream, 3 * 1024 + 4 * 128 + 77, kHardtanh, kPublished, 1.0f, nullptr) == low);
    // k = 2 * 16384 + 37 * 128 + 9: bit 37 is bit 5 of word 1.
    const Words bits = philox(stream, 2 * 128 + 9);
    const float sign = ((bits.word[1] >> 5) & 1u) != 0u ? -0.5f : 0.5f;
    CHECK(element_noise(stream, 2 * 16384 + 37 * 128 + 9, kClipped, kRademacher, 0.5f, nullptr) == sign);
    // The last element that the contract has room for.
    const Words last = philox(stream, 0xFFFFFFFFu);
    const float end = static_cast<float>(2 * static_cast<int>(last.word[3] >> 16) - 65535) / 65536.0f;
    CHECK(element_noise(stream, kMaxElements - 1, kHardtanh, kPublished, 1.0f, nullptr) == end);
}

// Over all 65,536 halves: odd symmetry gives mean 0, and the radius makes the variance 1.
void test_distribution(int surrogate, double tolerance) {
    double square = 0.0;
    bool odd = true;
    bool rising = true;
    for (uint32_t h = 0; h < 65536; ++h) {
        const float bins = published_noise(h, surrogate, tanh_table());
        odd = odd && bins == -published_noise(65535 - h, surrogate, tanh_table());
        rising = rising && (h == 0 || bins > published_noise(h - 1, surrogate, tanh_table()));
        square += static_cast<double>(bins) * bins;
    }
    const double e = radius(surrogate, kPublished);
    CHECK(odd);
    CHECK(rising);
    CHECK(std::fabs(square / 65536 / (e * e) - 1.0) < tolerance);
}

}  // namespace

void test_philox() {
    CHECK(equal(philox(Stream{0, 0, 0, 0}, 0), 0x5f6fb709, 0x0d893f64, 0x4f121f81, 0x4f730a48));
    const Stream stream = {0x0123456789abcdefull, 3, 4, 2};
    CHECK(equal(philox(stream, 1), 0xd7f818c5, 0x6d8e3c9a, 0x1f39705e, 0x8e92db3e));
}

void test_noise() {
    test_layout();
    // 2^-32 is the variance that the finite grid of 65,536 midpoints lacks; tanh cuts its tails.
    test_distribution(kIdentity, 1e-9);
    test_distribution(kClipped, 1e-9);
    test_distribution(kTrust, 1e-9);
    test_distribution(kHardtanh, 1e-9);
    test_distribution(kApproxSign, 1e-5);
    test_distribution(kTanh, 1e-3);
    CHECK(published_noise(65535, kHardtanh, nullptr) == 65535.0f / 65536.0f);
    CHECK(published_noise(65535, kIdentity, nullptr) == 65535.0f / 131072.0f);
    CHECK(published_noise(0, kTanh, tanh_table()) == -static_cast<float>(std::atanh(65535.0 / 65536.0)));
    CHECK(published_noise(32768, kTanh, tanh_table()) == static_cast<float>(std::atanh(1.0 / 65536.0)));
    const double quarter = 1.0 - std::sqrt(1.0 - 16385.0 / 65536.0);
    CHECK(std::fabs(published_noise(32768 + 8192, kApproxSign, nullptr) - quarter) < 1e-7);
    CHECK(radius(kIdentity, kRademacher) == 0.5 && radius(kTanh, kRademacher) == 1.0);
    int minus = 0;
    for (uint32_t probe = 0; probe < 1000; ++probe) {
        const Words words = philox(Stream{9, 4, 0xFFFFFFFFu, probe}, 0);
        CHECK(probe_sign(9, 4, probe) == ((words.word[0] & 0x80000000u) != 0 ? -1.0f : 1.0f));
        minus += probe_sign(9, 4, probe) < 0 ? 1 : 0;
    }
    CHECK(minus > 420 && minus < 580);  // 5 standard deviations
}
