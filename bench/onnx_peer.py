"""ONNX Runtime's MatMulNBits as a peer of probe_matmul, where onnx and onnxruntime are installed.

Apart from peers.py, which needs nothing but torch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import fogzo_kernels

BLOCK = 32


def missing(bits: float, k: int) -> str | None:
    """Why it is not measured; None where it is."""
    for name in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed"
    if bits != 4 or k % BLOCK:
        return f"it is built for 4 bits and rows of whole blocks of {BLOCK}"
    return None


def matmul_n_bits(
    x: Tensor, codes: Tensor, scale: Tensor, grid: fogzo_kernels.Grid, threads: int
) -> Callable[[], Tensor]:
    """A call of x [M, K] by 4-bit weights [N, K], int8 inside, one scale a block of 32.

    Its zero point is the whole number 8, so it multiplies values half a step below the mid-rise
    ones; the call adds nothing for that, the checked value does: see `offset`.
    """
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    n, k = codes.shape
    blocks = fogzo_kernels.pack(codes, 4).data.view(n, k // BLOCK, BLOCK // 2)
    scales = scale.expand(n, k // BLOCK).contiguous()
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft",
        K=k, N=n, bits=4, block_size=BLOCK, accuracy_level=4,
    )  # fmt: skip
    graph = helper.make_graph(
        [node],
        "probe_matmul",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(x.shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [len(x), n])],
        [
            numpy_helper.from_array(blocks.numpy(), "w"),
            numpy_helper.from_array(scales.numpy().reshape(-1), "s"),
        ],
    )
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=domains)
    model.ir_version = min(model.ir_version, 9)
    onnx.checker.check_model(model, check_custom_domain=False)
    choice = onnxruntime.SessionOptions()
    choice.intra_op_num_threads = threads
    choice.inter_op_num_threads = 1
    session: Any = onnxruntime.InferenceSession(
        model.SerializeToString(), choice, providers=["CPUExecutionProvider"]
    )
    given = {"x": x.numpy()}
    return lambda: torch.from_numpy(session.run(None, given)[0])


def offset(x: Tensor, scale: Tensor) -> Tensor:
    """What separates x by the mid-rise values from the call's result: half a step a term."""
    return 0.5 * x.double().sum(-1, keepdim=True) * scale.double().flatten()
