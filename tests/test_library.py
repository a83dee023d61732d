"""torch.ops.fogzo: schemas and fakes that are true, and models that compile whole."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

import fogzo
import fogzo_kernels as fk
from fogzo_kernels import _dispatch
from fogzo_kernels._library import operations, traced

OPS = torch.ops.fogzo
GRID = fk.Grid("mid-rise", 3)  # packed in 4 bits: an odd width ends in half a byte
KIND = (GRID.kind, GRID.bits)
DRAW = ("clipped", -1, None, 3, None, 2, 1, "published", 5, 40)  # seed 2^64 - 1
GUIDE = (0.25, None, 0.0, torch.tensor(2.0))
WHERE: dict[str, Any] = {"seed": 2**64 - 1, "step": 3, "tensor": 2}
GUIDED: dict[str, Any] = {**WHERE, "gamma": 0.25, "norm": torch.tensor(2.0)}
torch.manual_seed(0)
W, GRAD, SCALE = torch.randn(6, 21), torch.randn(6, 21), torch.full((6, 3, 1), 0.4)
CODES = fk.quantize(W, SCALE, GRID)
PACKED = fk.pack(CODES, 3)
FLIPS = fk.perturb_quantize(W, GRAD, SCALE, GRID, form="flips", **GUIDED)
X, DIFFERENCES = torch.randn(5, 21), torch.tensor([0.5, -0.25])
MATMUL = (SCALE, *KIND, torch.randn(6), None)
FLIP_PARTS = (FLIPS.base, FLIPS.index, FLIPS.code, FLIPS.count)

# registered operation -> arguments that each branch of its fake needs
SAMPLES: dict[str, list[tuple[Any, ...]]] = {
    "compute_scale": [
        (W, *KIND, "absmax", "tensor", None),
        (W, *KIND, "fixed", "channel", None),
        (W, *KIND, "lsq", "group", 7),
        (W[0], *KIND, "fixed", "channel", None),
    ],
    "quantize": [(W, SCALE, *KIND), (W.T, torch.tensor(0.4), "sign", None)],
    "dequantize": [(CODES, SCALE, *KIND, None), (PACKED.data, SCALE, *KIND, [6, 21])],
    "pack": [(CODES, 3), (CODES, 8)],
    "unpack": [(PACKED.data, 4, [6, 21]), (CODES, 8, [6, 21])],
    "fake_quantize": [(W, SCALE, *KIND), (W.T, torch.tensor(0.4), *KIND)],
    "fake_quantize_backward": [
        (GRAD, W, SCALE, *KIND, "clipped", True),
        (GRAD, W, SCALE, *KIND, "identity", False),
        (GRAD, W, torch.tensor(0.4), "sign", None, "tanh", True),
        (GRAD, W, SCALE, *KIND, "clipped", True, 1.98),
    ],
    "whitened_norm": [([GRAD, W[0]], [SCALE, torch.tensor(0.4)], ["clipped"] * 2, "rademacher")],
    "noise": [([6, 21], *DRAW, torch.device("cpu"))],
    "perturb_quantize": [
        (W, GRAD, SCALE, *KIND, *DRAW, *GUIDE, 2, sides, form, count)
        for sides, form, count in (
            ("both", "values", True),
            ("plus", "codes", False),
            ("both", "packed", True),
        )
    ]
    + [(W, GRAD, SCALE, None, None, "identity", *DRAW[1:], *GUIDE, 1, "both", "values", False)],
    "perturb_quantize_flips": [(W, GRAD, SCALE, *KIND, *DRAW, *GUIDE, 2, "both")],
    "probe_matmul": [
        (X, CODES, *MATMUL, None),
        (X.bfloat16(), PACKED.data, *MATMUL, [6, 21]),
        (X.to(torch.int8), CODES.repeat(2, 1, 1), SCALE, *KIND, None, torch.ones(5), None),
        (X.repeat(2, 1, 1), CODES, *MATMUL, None),
    ],
    "probe_matmul_flips": [(X, *FLIP_PARTS, *MATMUL)],
    "assemble_gradient": [(GRAD, SCALE, DIFFERENCES, *DRAW, *GUIDE)],
    "hadamard": [(X, 16)],
    "quantize_activation": [(X, 8), (X[0].bfloat16(), 4)],
}
CASES = [(name, args) for name, samples in SAMPLES.items() for args in samples]
IDS = [f"{name}-{i}" for name, samples in SAMPLES.items() for i in range(len(samples))]


def compiled(function: Any, **options: Any) -> Any:
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, backend="aot_eager", **options)


def tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, fk.Packed):
        return [value.data, torch.tensor(value.shape)]
    if isinstance(value, fk.Flips):
        return [value.base, value.index, value.code, value.count]
    return [one for item in value if item is not None for one in tensors(item)]


def assert_equal(got: Any, want: Any) -> None:
    for a, b in zip(tensors(got), tensors(want), strict=True):
        assert a.dtype == b.dtype
        assert a.requires_grad == b.requires_grad
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def test_every_operation_is_registered_and_traced():
    registered = {name for name in vars(operations) if name[0] != "_" and hasattr(OPS, name)}
    assert set(SAMPLES) == registered
    for op in _dispatch.OPS:
        assert callable(getattr(traced, op))
        assert hasattr(getattr(fk, op), "__wrapped__"), f"{op} is no _dispatch.operation"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("name", "args"), CASES, ids=IDS)
def test_opcheck(name, args):
    torch.library.opcheck(getattr(OPS, name).default, args)


@pytest.mark.parametrize(("name", "args"), CASES, ids=IDS)
def test_on_meta_tensors_only_shapes_and_types_come_out(name, args):
    if name == "perturb_quantize_flips":
        pytest.skip("its result has as many columns as there are flips")

    def to_meta(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(to_meta(item) for item in value)
        if isinstance(value, torch.device):
            return torch.device("meta")
        return value.to("meta") if isinstance(value, torch.Tensor) else value

    op = getattr(OPS, name)
    got, want = tensors(op(*to_meta(args))), tensors(op(*args))
    for a, b in zip(got, want, strict=True):
        assert (a.device.type, a.shape, a.dtype) == ("meta", b.shape, b.dtype)
        assert a.stride() == b.stride()


CALLS: dict[str, Any] = {
    "compute_scale": lambda: fk.compute_scale(W, GRID, "absmax", "group", 7),
    "quantize": lambda: fk.quantize(W, SCALE, GRID),
    "a grid made inside": lambda: fk.quantize(W, SCALE, fk.Grid("ternary")),
    "pack": lambda: fk.pack(CODES, 3),
    "unpack": lambda: fk.unpack(PACKED),
    "dequantize": lambda: fk.dequantize(PACKED, SCALE, GRID),
    "fake_quantize": lambda: fk.fake_quantize(W, SCALE, GRID),
    "fake_quantize_backward": lambda: fk.fake_quantize_backward(GRAD, W, SCALE, GRID),
    "whitened_norm": lambda: fk.whitened_norm([GRAD, W], [SCALE, SCALE], "clipped"),
    "noise": lambda: fk.noise((3, 50), "identity", offset=7, row_pitch=60, **WHERE),
    "values": lambda: fk.perturb_quantize(W, GRAD, SCALE, GRID, probes=2, **GUIDED),
    "plus": lambda: fk.perturb_quantize(W, GRAD, SCALE, GRID, sides="plus", **GUIDED),
    "packed": lambda: fk.perturb_quantize(W, GRAD, SCALE, GRID, form="packed", **GUIDED),
    "no grid": lambda: fk.perturb_quantize(W, GRAD, SCALE, None, **GUIDED),
    "perturb_quantize_many": lambda: fk.perturb_quantize_many(
        [W, GRAD], [GRAD, W], [SCALE, SCALE], [GRID, fk.Grid("ternary")], tensors=[4, 2], seed=1,
        step=2, gamma=0.5, norm=1.0, form="codes", probes=3, offsets=[0, 9],
    ),
    "probe_matmul": lambda: fk.probe_matmul(X, PACKED, SCALE, GRID, torch.ones(6)),
    "probe_matmul of flips": lambda: fk.probe_matmul(X, FLIPS, SCALE, GRID),
    "assemble_gradient": lambda: fk.assemble_gradient(
        GRAD, SCALE, DIFFERENCES, "clipped", **GUIDED
    ),
    "assemble_gradient_many": lambda: fk.assemble_gradient_many(
        [GRAD, W], [SCALE, SCALE], DIFFERENCES, "clipped", tensors=[4, 2], seed=1, step=2,
        gamma=0.5, norm=1.0,
    ),
    "hadamard": lambda: fk.hadamard(X, 16),
    "quantize_activation": lambda: fk.quantize_activation(X),
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_compiled_call_equals_the_eager_one(call):
    assert_equal(compiled(call)(), call())


def test_flips_compile_where_torch_allows_shapes_that_depend_on_data():
    def call() -> Any:
        return fk.perturb_quantize(W, GRAD, SCALE, GRID, form="flips", **GUIDED)

    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        assert_equal(compiled(call)(), call())


def test_outputs_and_counts_are_written():
    def call(out: torch.Tensor, counts: torch.Tensor) -> Any:
        return fk.perturb_quantize(
            W, GRAD, SCALE, GRID, form="codes", out=out, flip_count=counts, **GUIDED
        )

    results = []
    for run in (call, compiled(call)):
        out, counts = torch.full((2, 6, 21), 99, dtype=torch.uint8), torch.full((2,), -1)
        assert run(out, counts) is out
        results.append((out, counts))
    assert int(results[0][1].min()) > 0
    assert_equal(*results)


def test_results_require_no_gradient():
    w = W.clone().requires_grad_()
    assert not OPS.fake_quantize(w, SCALE, *KIND).requires_grad
    assert not compiled(lambda: fk.fake_quantize(w, SCALE, GRID))().requires_grad


def test_one_graph_serves_every_step():
    """Seeds and steps become symbols, device scalars stay tensors: nothing is compiled again."""
    graphs = []

    def count(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph

    def call(step: int, gamma: torch.Tensor) -> Any:
        return fk.perturb_quantize(
            W, GRAD, SCALE, GRID, seed=step + 7, step=step, tensor=0, gamma=gamma, norm=1.0
        )

    torch._dynamo.reset()
    run = torch.compile(call, fullgraph=True, backend=count)
    for step in range(5):
        gamma = torch.tensor(step / 8, dtype=torch.float64)
        assert_equal(run(step, gamma), call(step, gamma))
    assert len(graphs) <= 3, "0, 1 and every other step"


@pytest.mark.parametrize(
    "config",
    [
        fogzo.QuantConfig(bits=2),
        fogzo.QuantConfig(grid="sign", scale="absmean"),
        fogzo.QuantConfig(bits=3, scale="absmax", granularity="tensor", surrogate="identity"),
        fogzo.QuantConfig(grid="mid-tread", bits=4, granularity="group", group_size=4),
    ],
    ids=str,
)
def test_a_quantized_model_compiles_whole(config):
    """Forward and straight-through backward, a batch of another size included."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))
    fogzo.quantize_(model, config)
    run = compiled(model)
    for rows in (4, 7, 9):
        x = torch.randn(rows, 8)
        losses, grads = [], []
        for forward in (model, run):
            model.zero_grad()
            loss = forward(x).square().mean()
            loss.backward()
            losses.append(loss.detach())
            grads.append([p.grad.clone() for p in model.parameters()])
        assert_equal(losses[1], losses[0])
        assert_equal(grads[1], grads[0])


@pytest.mark.parametrize("estimator", [fogzo.FOGZO, fogzo.NSPSA])
def test_estimators_drive_a_compiled_model_through_two_graphs(estimator):
    """One graph for the step, one for all probes, whose weights stand in for the layers' own."""

    def train(whole: bool) -> tuple[list[Any], list[torch.Tensor]]:
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
        fogzo.quantize_(model, fogzo.QuantConfig(bits=2))
        forward = compiled(model) if whole else model
        estimate, optimizer = estimator(model, probes=2), torch.optim.SGD(model.parameters(), 0.1)
        seen = []
        for step in range(5):
            x = torch.randn(5, 8, generator=torch.Generator().manual_seed(step))
            estimate.backward(lambda x=x: forward(x).square().mean())
            seen.append(estimate.last.losses)
            optimizer.step()
            optimizer.zero_grad()
        return seen, [p.detach() for p in model.parameters()]

    with torch._dynamo.config.patch(recompile_limit=2):
        (got, w), (want, v) = train(True), train(False)
    assert_equal(got, want)
    assert_equal(w, v)


@pytest.mark.slow
def test_a_quantized_model_compiles_with_inductor():
    torch.manual_seed(1)
    model = fogzo.quantize_(nn.Sequential(nn.Linear(8, 16)), fogzo.QuantConfig(bits=2))
    torch._dynamo.reset()
    run, x = torch.compile(model, fullgraph=True), torch.randn(4, 8)
    run(x).sum().backward()
    got = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model(x).sum().backward()
    for a, p in zip(got, model.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad)


def test_errors_keep_their_text():
    def call(scale: torch.Tensor) -> Any:
        return fk.quantize(W, scale, GRID)

    with pytest.raises(ValueError, match=r"scale has shape \(5, 1\), expected .*\(6, 1\)"):
        compiled(call)(torch.ones(5, 1))
    with pytest.raises(ValueError, match=r"quantize: scale has .* expected "):
        OPS.quantize(W, torch.tensor(0.0), *KIND)


def test_noise_is_made_where_it_is_asked_for():
    for device in ("meta", torch.device("meta")):
        assert fk.noise((2, 3), "clipped", device=device, **WHERE).device.type == "meta"


def test_torch_may_be_imported_after_fogzo_kernels():
    code = (
        "import fogzo_kernels as fk, sys; assert 'torch' not in sys.modules; import torch\n"
        "f = torch.compile(lambda w: fk.hadamard(w), fullgraph=True, backend='aot_eager')\n"
        "w = torch.randn(2, 128); assert torch.equal(f(w), fk.hadamard(w))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("act_bits", [None, 8])
def test_a_quantized_model_is_exported(act_bits):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, 4))
    fogzo.quantize_(model, fogzo.QuantConfig(bits=2, act_bits=act_bits))
    x = torch.randn(3, 8)
    exported = torch.export.export(model.eval(), (x,)).module()
    assert torch.equal(exported(x), model(x))
