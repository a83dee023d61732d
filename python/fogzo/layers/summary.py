"""What of a model is quantized, how, and what stayed float and why."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from .layout import Layout, check_model
from .quant_layer import QuantLayer


@dataclass(frozen=True)
class Row:
    """One parameter.

    Attributes:
        name: as in named_parameters(). shape: its shape.
        grid: grid and bits, "disabled" after them where that is so; "float" where not quantized.
        scale: scale rule and granularity, "" for a float one.
        bytes: packed codes and scales, or the float parameter's own; 0 of a learned scale, which
            its weight counts.
        inputs: bits that its layers' inputs are quantized to, "" where they stay float.
        why: why it stayed float, "" for a quantized one.
    """

    name: str
    shape: tuple[int, ...]
    grid: str
    scale: str
    bytes: int
    why: str = ""
    inputs: str = ""


class Summary:
    """The rows of ``summary(model)``; print it for a table.

    Attributes:
        rows: one Row a parameter, in named_parameters() order.
    """

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows

    @property
    def quantized(self) -> list[Row]:
        return [row for row in self.rows if not row.why]

    @property
    def floating(self) -> list[Row]:
        return [row for row in self.rows if row.why]

    def __str__(self) -> str:
        head = ("weight", "shape", "grid", "scale", "bytes", "inputs", "why float")
        table = [head] + [
            (r.name, "x".join(map(str, r.shape)), r.grid, r.scale, f"{r.bytes:,}", r.inputs, r.why)
            for r in self.rows
        ]
        widths = [max(len(line[i]) for line in table) for i in range(len(head))]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) for line in table
        ]
        quantized, floating = self.quantized, self.floating
        total = (
            f"{len(quantized)} quantized ({sum(r.bytes for r in quantized):,} bytes), "
            f"{len(floating)} float ({sum(r.bytes for r in floating):,} bytes)"
        )
        return "\n".join(line.rstrip() for line in [*lines, total])


def summary(model: nn.Module) -> Summary:
    """Each parameter of ``model``: name, shape, grid, scale, bytes, inputs, why it stayed float.

    Args:
        model: any nn.Module, with quantized layers or without.

    Returns:
        A Summary: ``rows`` in named_parameters() order, ``quantized`` and ``floating`` of them, and
        a table where it is printed. Bytes are those of packed codes and float32 scales, or of the
        float parameter.

    Raises:
        TypeError: ``model`` is no nn.Module.

    Example:
        >>> print(summary(model))
        weight    shape  grid         scale              bytes  inputs  why float
        0.weight  2x4    mid-rise, 2  fixed per channel  10     8 bits
        0.bias    2      float                           8              bias: only the weight of ...
    """
    check_model("summary", model)
    layout = Layout(model)
    counted = layout.learned_scales()
    quantized = dict(layout.quantized())
    rows = []
    for name, parameter in layout.parameters.items():
        shape = tuple(parameter.shape)
        if name in quantized:
            rows.append(_quantized_row(name, shape, quantized[name]))
            continue
        why = layout.why_float(layout.holders[id(parameter)][0])
        size = 0 if id(parameter) in counted else parameter.numel() * parameter.element_size()
        rows.append(
            Row(name, shape, "float", "", size, why or "not selected by filter_fn or overrides")
        )
    return Summary(rows)


def _quantized_row(name: str, shape: tuple[int, ...], layers: list[QuantLayer]) -> Row:
    layer = layers[0]
    grid, config = layer.grid, layer.config
    bits = f", {grid.bits} bits" if grid.bits is not None else ""
    group = f" of {config.group_size}" if config.group_size is not None else ""
    packed = shape[0] * -(-math.prod(shape[1:]) * grid.storage_bits // 8)
    size = packed + layer.scale.numel() * layer.scale.element_size()
    scale = f"{config.scale} per {config.granularity}{group}"
    act_bits = next((each.act_bits for each in layers if each.act_bits is not None), None)
    inputs = {1: "1 bit", None: ""}.get(act_bits, f"{act_bits} bits")
    off = "" if all(each.enabled for each in layers) else ", disabled"
    return Row(name, shape, grid.kind + bits + off, scale, size, inputs=inputs)
