// Two probes of one layer: perturbed 2-bit weights in packed form, their products, D = (L+ - L-) / 2.
// g++ probe_layer.cpp -I P/include -L P/lib -lfogzo -o probe_layer && LD_LIBRARY_PATH=P/lib ./probe_layer
#include <cstdio>
#include <fogzo/fogzo.h>
#include <stdexcept>
#include <vector>

const int64_t one = 1, tokens = 64, out = 48, in = 100, probes = 2, sides = 2 * probes, ys = tokens * out;

void check(int status) {
    if (status != FOGZO_OK)
        throw std::runtime_error(fogzo_status_text(status));
}

int main() {
    // x [tokens, in], w and grad [out, in], a scale a row; the loss is the mean of y [tokens, out].
    std::vector<float> x(tokens * in), w(out * in), gradient(out * in), scale(out, 0.5f), y(sides * ys);
    check(fogzo_cpu_noise(x.data(), nullptr, tokens, in, 0, in, FOGZO_IDENTITY, FOGZO_PUBLISHED, 1, 0, 0, 0, 1));
    check(fogzo_cpu_noise(w.data(), nullptr, out, in, 0, in, FOGZO_IDENTITY, FOGZO_PUBLISHED, 1, 0, 1, 0, 1));
    for (int64_t i = 0; i < ys * in; ++i)
        gradient[i % (out * in)] += x[i / (out * in) * in + i % in] / ys;
    float norm = 0.0f, *grad = gradient.data(), *a = scale.data();
    const int surrogate = FOGZO_CLIPPED;
    check(fogzo_cpu_whitened_norm(&grad, &a, &out, &in, &out, &one, &surrogate, 1, FOGZO_PUBLISHED, &norm, 1));

    std::vector<uint8_t> packed(sides * out * in * 2 / 8);
    int64_t flips[sides];
    check(fogzo_cpu_perturb_quantize(w.data(), grad, a, packed.data(), flips, nullptr, out, in, out, 1, 0, in,
                                     FOGZO_MID_RISE, 2, surrogate, FOGZO_PUBLISHED, FOGZO_PACKED, 2, probes, 0, 7, 0, 1,
                                     1e-3, norm, 1));
    std::vector<char> room(fogzo_cpu_probe_matmul_workspace(1, sides, tokens, out, in, 1, FOGZO_FLOAT32, 2, 1));
    check(fogzo_cpu_probe_matmul(x.data(), nullptr, packed.data(), a, nullptr, y.data(), room.data(), room.size(), 1,
                                 sides, tokens, out, in, out, 1, FOGZO_MID_RISE, 2, 2, FOGZO_FLOAT32, 1));
    for (int64_t side = 0; side < sides; side += 2) {
        double difference = 0.0;
        for (int64_t i = side * ys; i < (side + 1) * ys; ++i)
            difference += (double(y[i]) - y[i + ys]) / (2 * ys);
        std::printf("D %+.3e flips %d %d\n", difference, int(flips[side]), int(flips[side + 1]));
    }
}
