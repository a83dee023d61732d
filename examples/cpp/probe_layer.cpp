// Two probes of one layer: perturbed 2-bit weights in packed form, their products, D = (L+ - L-) / 2.
// g++ probe_layer.cpp -I P/include -L P/lib -lfogzo -o probe_layer && LD_LIBRARY_PATH=P/lib ./probe_layer
#include <cstdio>
#include <cstdlib>
#include <vector>

#include <fogzo/fogzo.h>

const int64_t kTokens = 64, kOut = 48, kIn = 100, kProbes = 2, kBytes = kIn * 2 / 8;

void check(int status) {
    if (status != FOGZO_OK) {
        std::fprintf(stderr, "%s\n", fogzo_status_text(status));
        std::exit(1);
    }
}

std::vector<float> draw(int64_t rows, int64_t cols, int64_t tensor) {
    std::vector<float> out(rows * cols);
    check(
        fogzo_cpu_noise(out.data(), nullptr, rows, cols, 0, cols, FOGZO_IDENTITY, FOGZO_PUBLISHED, 1, 0, tensor, 0, 1));
    return out;
}

int main() {
    // x [tokens, in], w and grad [out, in], a scale a row; the loss is the mean of y [tokens, out].
    const std::vector<float> x = draw(kTokens, kIn, 0), w = draw(kOut, kIn, 1), scale(kOut, 0.5f);
    std::vector<float> grad(kOut * kIn);
    for (int64_t i = 0; i < kTokens * kOut * kIn; ++i) {
        grad[i % (kOut * kIn)] += x[i / (kOut * kIn) * kIn + i % kIn] / (kTokens * kOut);
    }
    float norm = 0.0f;
    const float *grads[] = {grad.data()}, *scales[] = {scale.data()};
    const int64_t rows[] = {kOut}, cols[] = {kIn}, ones[] = {1};
    const int surrogates[] = {FOGZO_CLIPPED};
    check(fogzo_cpu_whitened_norm(grads, scales, rows, cols, rows, ones, surrogates, 1, FOGZO_PUBLISHED, &norm, 1));

    std::vector<uint8_t> packed(2 * kProbes * kOut * kBytes);
    int64_t flips[2 * kProbes];
    check(fogzo_cpu_perturb_quantize(w.data(), grad.data(), scale.data(), packed.data(), flips, nullptr, kOut, kIn,
                                     kOut, 1, 0, kIn, FOGZO_MID_RISE, 2, FOGZO_CLIPPED, FOGZO_PUBLISHED, FOGZO_PACKED,
                                     2, kProbes, 0, 7, 0, 1, 1e-3, norm, 1));
    std::vector<float> y(2 * kProbes * kTokens * kOut);
    std::vector<char> room(
        fogzo_cpu_probe_matmul_workspace(1, 2 * kProbes, kTokens, kOut, kIn, 1, FOGZO_FLOAT32, 2, 1));
    check(fogzo_cpu_probe_matmul(x.data(), nullptr, packed.data(), scale.data(), nullptr, y.data(), room.data(),
                                 room.size(), 1, 2 * kProbes, kTokens, kOut, kIn, kOut, 1, FOGZO_MID_RISE, 2, 2,
                                 FOGZO_FLOAT32, 1));
    for (int64_t p = 0; p < kProbes; ++p) {
        double sum = 0.0;
        for (int64_t i = 0; i < kTokens * kOut; ++i) {
            sum += double(y[2 * p * kTokens * kOut + i]) - y[(2 * p + 1) * kTokens * kOut + i];
        }
        std::printf("D %+.3e flips %d %d\n", sum / (2 * kTokens * kOut), int(flips[2 * p]), int(flips[2 * p + 1]));
    }
}
