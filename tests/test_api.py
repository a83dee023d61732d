"""The order of positional arguments that callers rely on: the published signatures."""

from __future__ import annotations

import inspect

import pytest

import fogzo
import fogzo_kernels as fk

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
    fogzo.quantize_: "model config filter_fn",
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
