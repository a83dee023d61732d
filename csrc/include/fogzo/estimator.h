// The estimator's float32 arithmetic, in the one order that every backend keeps.
//
//   x = W * (1/a)    gw = g * (a * e)    A = (c1 * s) / N    d = A * gw + B * (e u)
//   G = (D_0 d_0 + D_1 d_1 + ...) * (1 / (n * ((e * e) * a)))
#pragma once
#include "fogzo/noise.h"

namespace fogzo {

constexpr float kSmallestScale = 7.888609052210118e-31f;  // 2^-100
constexpr float kSmallestNorm = kSmallestScale;

// What is fixed for a step: rounded once from float64.
struct Mixture {
    float e;
    float along;   // c1 = float32(radius * sqrt(1 - gamma))
    float across;  // B  = float32(sqrt(gamma))
};

FOGZO_FN Mixture make_mixture(int surrogate, int noise, double gamma) {
    const double r = radius(surrogate, noise);
    return {static_cast<float>(r), static_cast<float>(r * sqrt(1.0 - gamma)), static_cast<float>(sqrt(gamma))};
}

// A: zero where the gradient has no direction.
FOGZO_FN float alignment(Mixture mixture, float sign, float norm) {
    return norm < kSmallestNorm ? 0.0f : (mixture.along * sign) / norm;
}

FOGZO_FN float whitening(float scale, float e) { return scale * e; }

FOGZO_FN float perturbation(float a_factor, float whitened, float across, float noise) {
    return a_factor * whitened + across * noise;
}

FOGZO_FN float gain(float probes, float e, float scale) { return 1.0f / (probes * ((e * e) * scale)); }

}  // namespace fogzo
