"""The order of positional arguments that callers rely on: the published signatures."""

from __future__ import annotations

import inspect
import re

import pytest

import fogzo
import fogzo_kernels as fk
from fogzo.layers import QuantLayer

ORDER = {
    fk.quantize: "w scale grid",
    fk.dequantize: "codes scale grid",
    fk.pack: "codes bits",
    fk.unpack: "packed",
    fk.fake_quantize: "w scale grid",
    fk.fake_quantize_backward: "grad w scale grid surrogate",
    fk.whitened_norm: "grads scales surrogate",
    fk.noise: "shape surrogate",
    fk.perturb_quantize: "w grad scale grid surrogate",
    fk.perturb_quantize_many: "ws grads scales grids",
    fk.probe_matmul: "x codes scale grid bias",
    fk.assemble_gradient: "grad scale differences surrogate",
    fk.hadamard: "x block",
    fk.hadamard_quantize: "w grid form",
    fogzo.quantize_: "model config filter_fn overrides",
    fogzo.enable_quantization: "model rescale",
    fogzo.FOGZO: "model probes gamma ramp_steps seed",
    fogzo.NSPSA: "model probes",
    fogzo.STE: "model",
    fogzo.FOGZO.backward: "self closure batch scaler",
    fogzo.STE.backward: "self closure batch scaler",
    fogzo.diagnose: "model closure batch",
    fogzo.Logger: "est path every",
    fogzo.QuantConfig: "grid bits scale granularity surrogate act_bits",
}


@pytest.mark.parametrize("call", ORDER, ids=lambda call: call.__qualname__)
def test_positional_arguments_are_in_the_published_order(call):
    names = ORDER[call].split()
    parameters = list(inspect.signature(call).parameters.values())[: len(names)]
    assert [p.name for p in parameters] == names
    assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)


PUBLIC = [getattr(module, name) for module in (fogzo, fk) for name in module.__all__]
PUBLIC += [fogzo.QuantLinear.from_linear, fogzo.QuantLinear.to_linear]
CALLS = [each for each in PUBLIC if inspect.isroutine(each)]
LAYERS = [each for each in PUBLIC if inspect.isclass(each) and issubclass(each, QuantLayer)]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__qualname__)
def test_docstrings_say_what_goes_in_and_out(call):
    text = inspect.getdoc(call)
    wanted = ["Returns:", "Example:"]
    if any(name != "self" for name in inspect.signature(call).parameters):
        wanted += ["Args:", "Raises:"]
    assert [part for part in wanted if part not in text] == []


@pytest.mark.parametrize(
    "cls", [*LAYERS, fogzo.QuantConfig, fogzo.STE, fogzo.FOGZO, fogzo.NSPSA],
    ids=lambda cls: cls.__name__,
)  # fmt: skip
def test_layers_and_estimators_name_each_argument_and_a_source(cls):
    text = inspect.getdoc(cls)
    parts = ("Args:", "Raises:", "Example:", "Source:")
    assert [part for part in parts if part not in text] == []
    own = text[text.index("Args:") : text.index("Raises:")]
    names = [name for name in inspect.signature(cls).parameters if name not in ("self", "args")]
    assert [name for name in names if not re.search(rf"\b{name}\b", own)] == []
