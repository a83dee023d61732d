"""The mathematics of DESIGN section 2, by summing over all 65,536 noise values.

The halves are the midpoints of 65,536 equal cells of the uniform r. A step of height J whose place
in r is moved by at most half a cell changes a mean by at most J 2^-17; POINT = 2^-16 is one whole
cell, which also covers a float32 rounding of x + w that carries one value across the step.
"""

from __future__ import annotations

import math

import enumeration
import numpy as np
import oracle
import pytest
import torch
from helpers import PAIRS, SURROGATES, grid_id

import fogzo_kernels as fk

POINT = 2.0**-16
SIGN = fk.Grid("sign")
PUBLISHED = [p[:2] for p in PAIRS if p[2] == "published" and p[1] != "trust"]


def name_of(case):
    return f"{grid_id(case[0])}-{case[1]}"


def smooth(surrogate, grid, x):
    """h(x) of the table, float64."""
    if surrogate == "tanh":
        return np.tanh(x)
    if surrogate == "approx_sign":
        return np.where(abs(x) <= 1, 2 * x - x * abs(x), np.sign(x))
    if surrogate == "hardtanh":
        return np.clip(x, -1, 1)
    return np.clip(x, grid.v_min, grid.v_max)


def factor(surrogate, grid, x):
    """c(x) for the published noise; tanh's by E[|w|; |w| > |x|] / e^2 with density sech^2 w / 2."""
    if surrogate == "hardtanh":
        return 1.5 * np.maximum(0, 1 - x**2)
    if surrogate == "approx_sign":
        r = np.maximum(0, 1 - abs(x))
        return 6 * r**2 - 4 * r**3
    if surrogate == "tanh":
        return (math.log(2) - x * np.tanh(x) + np.log(np.cosh(x))) * 12 / math.pi**2
    t = (x if grid.kind in ("mid-tread", "ternary") else x + 0.5) % 1
    return 6 * t * (1 - t)


def positions(surrogate, grid, count=61):
    """Points of x, none of them on a step of the lattice."""
    wide = 3.0 if surrogate == "tanh" else 1.4
    low, high = (-wide, wide) if grid.kind == "sign" else (grid.v_min, grid.v_max)
    return np.linspace(low + 0.0123, high - 0.0117, count)


def values(x, grid):
    return oracle.value(x, grid.kind, grid.bits).astype(np.float64)


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_published_noise_has_mean_0_and_variance_1(surrogate):
    """Odd in the half, hence mean 0 exactly.

    u^2 is monotone in |z|: the midpoint sum misses the integral by at most half a cell times its
    last value, and tanh's last cell, where it is unbounded, by cell * (L^2 + L + 1), L the last w.
    """
    u = enumeration.draws(surrogate)
    np.testing.assert_array_equal(u, -u[::-1])
    assert math.fsum(u) == 0.0
    last = u[-1]
    allowed = 0.5 * 2 * POINT * last**2 + 2.0**-22
    if surrogate == "tanh":
        w = last * fk.radius("tanh")
        allowed += 2 * POINT * (w**2 + w + 1) / fk.radius("tanh") ** 2
    assert abs(math.fsum(u**2) / len(u) - 1) <= allowed


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_rademacher_noise_is_plus_and_minus_one(surrogate):
    assert enumeration.draws(surrogate, "rademacher").tolist() == [1.0, -1.0]
    assert fk.radius(surrogate, "rademacher") == (
        1.0 if surrogate in ("hardtanh", "tanh", "approx_sign") else 0.5
    )


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_radius_is_the_deviation_of_the_table(surrogate):
    table = {"hardtanh": 3**-0.5, "tanh": math.pi / 12**0.5, "approx_sign": 6**-0.5}
    assert fk.radius(surrogate) == pytest.approx(table.get(surrogate, 0.5 * 3**-0.5), rel=1e-15)


@pytest.mark.parametrize("pair", PUBLISHED, ids=name_of)
def test_the_surrogate_is_the_smoothing_of_its_noise(pair):
    """E value(x + e u) = h(x): one step of height J is in reach, so |error| <= J POINT.

    approx_sign and tanh round w to float32 once more: another cell.
    """
    grid, surrogate = pair
    w = enumeration.bins_of(surrogate)
    height = grid.step * (2 if surrogate in ("approx_sign", "tanh") else 1)
    x = positions(surrogate, grid)
    if surrogate != "identity":  # which equals its smoothing only inside the range
        x = np.concatenate([x, [grid.v_min - 0.7, grid.v_max + 0.7, grid.v_max + 9.1]])
    for point in x:
        mean = values(point + w, grid).mean()
        assert abs(mean - smooth(surrogate, grid, point)) <= height * POINT, point


@pytest.mark.parametrize("pair", PUBLISHED, ids=name_of)
def test_the_backward_pass_is_the_slope_of_the_surrogate(pair):
    """Central differences of h over 2e-5, away from its corners; identity has none at all."""
    grid, surrogate = pair
    x = np.concatenate([positions(surrogate, grid), [grid.v_min - 0.3, grid.v_max + 0.3]])
    want = (smooth(surrogate, grid, x + 1e-5) - smooth(surrogate, grid, x - 1e-5)) / 2e-5
    if surrogate == "identity":
        want = np.ones_like(x)
    got, _ = fk.fake_quantize_backward(
        torch.ones(len(x)), torch.from_numpy(x).float(), torch.tensor(1.0), grid, surrogate,
        needs_scale_grad=False,
    )  # fmt: skip
    # third derivative <= 2; h's rounding; x and at most 7 float32 operations on values up to 2
    bound = 2 * 1e-5**2 / 6 + abs(x).max() * 2.0**-52 / 2e-5 + 16 * 2.0**-24
    np.testing.assert_allclose(got.numpy(), want, rtol=0, atol=bound)


@pytest.mark.parametrize("pair", PUBLISHED, ids=name_of)
def test_what_a_linear_loss_gives_at_each_position(pair):
    """c(x) = E[w (value(x + w) - value(x - w))] / (2 e^2) against its closed form.

    Two steps of height J at |w| <= W move by a cell each, approx_sign and tanh by two; between them
    w is monotone in r (half a cell of W each side), and tanh's last cell holds up to W + 1.
    """
    grid, surrogate = pair
    w, e = enumeration.bins_of(surrogate), fk.radius(surrogate)
    reach = min(w.max(), 4.0) if surrogate == "tanh" else w.max()
    cells = 2 * reach * (2 if surrogate in ("approx_sign", "tanh") else 1) + 2 * (w.max() + 1)
    allowed = grid.step * cells * POINT / (2 * e * e)
    mean = []
    for x in positions(surrogate, grid):
        got = (w * (values(x + w, grid) - values(x - w, grid))).mean() / (2 * e * e)
        assert abs(got - factor(surrogate, grid, x)) <= allowed, x
        mean.append(got)
    if surrogate in ("identity", "clipped"):
        assert max(mean) > 1.45
        assert min(mean) < 0.15


@pytest.mark.parametrize("pair", PUBLISHED, ids=name_of)
def test_rademacher_gives_the_full_slope_at_each_position(pair):
    """c(x) = 1 exactly, everywhere inside the range but at ties."""
    grid, surrogate = pair
    w, e = enumeration.bins_of(surrogate, "rademacher"), fk.radius(surrogate, "rademacher")
    inside = positions("hardtanh", grid)
    for x in inside[abs(inside) < 1] if grid.kind == "sign" else inside:
        assert (w * (values(x + w, grid) - values(x - w, grid))).mean() / (2 * e * e) == 1.0


def test_c_averages_to_1_over_a_bin():
    """The mean of 6 t (1 - t) over midpoints of n cells is 1 + 1 / (2 n^2)."""
    grid, w, e = fk.Grid("mid-rise", 2), enumeration.bins_of("clipped"), fk.radius("clipped")
    x = (np.arange(64) + 0.5) / 64 - 0.5
    c = [(w * (values(p + w, grid) - values(p - w, grid))).mean() / (2 * e * e) for p in x]
    assert np.mean(c) == pytest.approx(1 + 1 / (2 * 64**2), abs=12 * POINT)


def neighbours(x, a, grid):
    """The two grid values (unit of w) beside the step nearest to x."""
    if grid.kind == "sign":
        return -a, a
    low = values(np.float64(x) - 0.5, grid)
    return a * low, a * (low + 1)


def chances(x, surrogate, noise, grid):
    """P(lower), P(upper) of value(x + w)."""
    low, high = neighbours(x, 1.0, grid)
    if noise == "rademacher":
        return 0.5, 0.5
    upper = (smooth(surrogate, grid, x) - low) / (high - low)
    return 1 - upper, upper


CASES = [
    (fk.Grid("mid-rise", 2), "clipped", 0.3, -0.8),
    (fk.Grid("mid-tread", 3), "identity", -1.8, 2.35),
    (fk.Grid("ternary"), "clipped", 0.41, -0.62),
    (SIGN, "hardtanh", -0.2, 0.55),
    (SIGN, "approx_sign", 0.35, -0.1),
    (SIGN, "tanh", 0.6, -0.4),
]


@pytest.mark.parametrize("noise", ["published", "rademacher"])
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_expected_gradient_of_one_weight(case, noise):
    """L = k (W^ - t)^2 / 2: E[G] = c(x) (L(upper) - L(lower)) / (upper - lower), gamma = 1.

    Two steps move by two cells each at most, and carry D G with them.
    """
    grid, surrogate, x, _ = case
    a, k, t = 0.5, 1.7, 0.23
    plus, minus = enumeration.sides(x, a, grid, surrogate, noise)
    difference = (k * (plus - t) ** 2 / 2 - k * (minus - t) ** 2 / 2) / 2
    g = enumeration.gradients(a, surrogate, noise)
    got = (difference * g).mean()
    low, high = neighbours(x, a, grid)
    slope = (k * (high - t) ** 2 / 2 - k * (low - t) ** 2 / 2) / (high - low)
    c = 1.0 if noise == "rademacher" else factor(surrogate, grid, np.float64(x))
    assert abs(got - c * slope) <= 4 * POINT * abs(difference).max() * abs(g).max()


@pytest.mark.parametrize("noise", ["published", "rademacher"])
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_expected_gradient_of_two_coupled_weights(case, noise):
    """L = W^' H W^' / 2 - b W^: all 65536^2 pairs, the second weight's grouped by its values.

    E[G_1] = c(x_1) times the mean over the second weight of (L(upper, .) - L(lower, .)) / distance;
    the second weight's steps add as much error as the first's.
    """
    grid, surrogate, x1, x2 = case
    a1, a2 = 0.5, 1.25

    def loss(v1, v2):
        return 0.9 * v1**2 + 0.7 * v2**2 + 0.8 * v1 * v2 - 0.3 * v1 + 0.4 * v2

    plus1, minus1 = enumeration.sides(x1, a1, grid, surrogate, noise)
    pairs = np.stack(enumeration.sides(x2, a2, grid, surrogate, noise), 1)
    pairs, counts = np.unique(pairs, axis=0, return_counts=True)
    g1 = enumeration.gradients(a1, surrogate, noise)
    got, largest = 0.0, 0.0
    for (plus2, minus2), count in zip(pairs, counts, strict=True):
        difference = (loss(plus1, plus2) - loss(minus1, minus2)) / 2
        largest = max(largest, abs(difference).max())
        got += (difference * g1).mean() * count / counts.sum()
    low1, high1 = neighbours(x1, a1, grid)
    slope = sum(
        p * (loss(high1, v2) - loss(low1, v2)) / (high1 - low1)
        for p, v2 in zip(chances(x2, surrogate, noise, grid), neighbours(x2, a2, grid), strict=True)
    )
    c = 1.0 if noise == "rademacher" else factor(surrogate, grid, np.float64(x1))
    assert abs(got - c * slope) <= 8 * POINT * largest * abs(g1).max()


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
def test_without_rounding_the_estimate_is_unbiased(gamma):
    """Two weights of unequal scale, rademacher, quadratic loss: D = grad . (e a v), so that
    E[G] = ((1 - gamma) g' g'^T / N^2 + gamma I) g' in whitened terms, which is the gradient.
    The eight classes of (s, u_1, u_2) are found among the probes and weighed equally.
    """
    w, scale = torch.tensor([[0.3], [-0.8]]), torch.tensor([[0.5], [2.0]])
    hessian = torch.tensor([[1.0, 0.4], [0.4, 0.6]], dtype=torch.float64)
    b = torch.tensor([0.2, -1.1], dtype=torch.float64)

    def loss(v):
        v = v.double().reshape(2)
        return 0.5 * v @ hessian @ v + b @ v

    grad = (hessian @ w.double().reshape(2) + b).float().reshape(2, 1)
    norm = fk.whitened_norm([grad], [scale], "clipped", noise="rademacher")
    named = {"seed": 3, "step": 0, "tensor": 0, "gamma": gamma, "norm": norm, "noise": "rademacher"}
    classes, reach = {}, 0.0
    for probe in range(64):
        sides = fk.perturb_quantize(w, grad, scale, None, "clipped", first_probe=probe, **named)
        difference = ((loss(sides[0]) - loss(sides[1])) / 2).reshape(1)
        g = fk.assemble_gradient(grad, scale, difference, "clipped", first_probe=probe, **named)
        u = oracle.noise((2, 1), "clipped", "rademacher", seed=3, step=0, tensor=0, probe=probe)
        key = (float(oracle.probe_sign(3, 0, probe)), *u.reshape(-1).tolist())
        assert torch.equal(g, classes.setdefault(key, g))
        reach = max(reach, float(sides.abs().max()))
    assert len(classes) == 8
    mean = sum(g.double() for g in classes.values()) / 8
    # A side (1/a, x, x + d, times a) is off by 4 roundings, so D by |slope|_1 times that; G is D
    # times at most 2 / (e a) (|v| <= sqrt 2 a weight), and rounds 8 times itself, N and d included.
    slope = float((hessian.abs() * reach).sum() + b.abs().sum())
    direction = 2 / (0.5 * float(scale.min()))
    largest = max(float(g.abs().max()) for g in classes.values())
    bound = (4 * reach * slope * direction + 8 * largest) * 2.0**-24
    torch.testing.assert_close(mean, grad.double(), rtol=0, atol=bound)
