"""Kernels that committed rows put first: the shipped table, how it is made, and who follows it."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest
import torch
from fogzo_bench import _report, _rows, ahead

from fogzo.cli import main
from fogzo_kernels import _ahead, _dispatch, _info
from fogzo_kernels._ahead import Shown

native = importlib.import_module("fogzo_kernels.probe_matmul.native")
FILES = sorted((_report.SOURCE / "bench/results").glob("*.jsonl"))


def test_the_shipped_table_is_what_the_committed_rows_say():
    rows = [row for path in FILES for row in _rows.load(path)]
    assert rows
    assert ahead.table(rows) == _ahead.TABLE


def times(median: float, spread: float = 0.01) -> dict[str, float]:
    return {"median": median, "low": median * (1 - spread), "high": median * (1 + spread)}


def row(op: str, variants: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """A row as an H200 would give it."""
    found = {name: time if type(time) is dict else times(time) for name, time in variants.items()}
    made = {"op": op, "shape": {"N": 8, "x": "int8"}, "times": found, "copy": times(1), "bars": []}
    made |= {"threads": 1, "gpu": "NVIDIA H200", "architecture": 90, "dirty": False}
    return {**made, "commit": "a" * 40, "time": "2026-01-01T00:00:00+00:00", **changed}


def test_rows_of_one_commit_are_joined_and_their_ratio_is_kept():
    rows = [row("noise", {"triton": 2.0, "torch": 1.0}), row("noise", {"cuda": 1.5})]
    assert ahead.table(rows) == {"noise": {90: Shown(0.75, "NVIDIA H200", "a" * 12)}}


@pytest.mark.parametrize(
    ("what", "rows"),
    [
        ("one kernel alone", [row("noise", {"cuda": 1.0})]),
        ("slower", [row("noise", {"cuda": 2.0, "triton": 1.0})]),
        ("within the noise", [row("noise", {"cuda": times(0.9, 0.1), "triton": times(1, 0.1)})]),
        ("an earlier run overlaps", [
            row("noise", {"cuda": 1.0, "triton": 2.0}), row("noise", {"cuda": times(1, 1.5)}),
        ]),
        ("slower in another shape", [
            row("noise", {"cuda": 1.0, "triton": 2.0}),
            row("noise", {"cuda": 2.0, "triton": 1.0}, shape={"N": 9}),
        ]),
        ("slower at a later commit", [
            row("noise", {"cuda": 2.0, "triton": 1.0}, commit="b" * 40, time="2026-02-01"),
            row("noise", {"cuda": 1.0, "triton": 2.0}),
        ]),
        ("another GPU's", [
            row("noise", {"cuda": 1.0}), row("noise", {"triton": 2.0}, gpu="NVIDIA H100"),
        ]),
        ("another commit's", [
            row("noise", {"cuda": 1.0}), row("noise", {"triton": 2.0}, commit="b" * 40),
        ]),
        ("a changed tree's", [row("noise", {"cuda": 1.0, "triton": 2.0}, dirty=True)]),
        ("a CPU's", [row("noise", {"cuda": 1.0, "triton": 2.0}, gpu=None, architecture=None)]),
    ],
)  # fmt: skip
def test_what_shows_nothing_ahead(what, rows):
    assert ahead.table(rows) == {}, what


def test_each_architecture_and_the_worst_shape_count():
    rows = [
        row("noise", {"cuda n=1": 1.0, "triton n=1": 2.0, "cuda n=4": 3.0, "triton n=4": 4.0}),
        row("noise", {"cuda n=1": 2.0, "triton n=1": 1.0}, gpu="NVIDIA A100", architecture=80),
        row("pack", {"cuda": 1.0, "triton": 2.0}, gpu="NVIDIA B200", architecture=100),
    ]
    assert ahead.table(rows) == {
        "noise": {90: Shown(0.75, "NVIDIA H200", "a" * 12)},
        "pack": {100: Shown(0.5, "NVIDIA B200", "a" * 12)},
    }


def test_products_of_warpgroups_are_judged_against_those_of_warps():
    rows = [
        row("probe_matmul", {"cuda": 3.0, "cuda, mma": 3.0, "cuda, wgmma": 1.5, "triton": 2.0}),
        row("probe_matmul", {"cuda, mma": 3.0, "cuda, wgmma": 3.1}, shape={"x": "bfloat16"}),
    ]
    found = ahead.table(rows)
    assert found == {"probe_matmul.wgmma.int8": {90: Shown(0.5, "NVIDIA H200", "a" * 12)}}


def test_the_printed_table_is_python(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    _rows.append(path, row("noise", {"cuda": 1.5, "triton": 2.0}))
    assert main(["bench", "--ahead", str(path)]) == 0
    printed = capsys.readouterr().out
    names: dict[str, Any] = {"Shown": Shown}
    exec(printed, names)
    assert names["TABLE"] == ahead.table(_rows.load(path))
    assert main(["bench", "--ahead", *map(str, FILES)]) == 0
    assert capsys.readouterr().out.strip() in (KERNELS / "_ahead.py").read_text()


KERNELS = _report.SOURCE / "fogzo_kernels"
TABLE = {"noise": {90: Shown(0.75, "NVIDIA H200", "0123456789ab")},
         "probe_matmul.wgmma.int8": {90: Shown(0.5, "NVIDIA H200", "0123456789ab")}}  # fmt: skip


@pytest.fixture
def h200(monkeypatch):
    """A machine with such a GPU, where every kernel would run, and a table with two rows."""
    monkeypatch.setattr(_ahead, "TABLE", TABLE)
    monkeypatch.setattr(_ahead, "_architecture", lambda: 90)
    monkeypatch.setattr(_dispatch, "why_not", lambda backend: None)
    monkeypatch.setattr(_dispatch, "device_of", lambda backend: "cuda")
    monkeypatch.setattr(_dispatch, "_room", lambda op, backend: Room())
    monkeypatch.setattr(_dispatch, "_logged", set())


class Room:
    def supports(self, op: str, backend: str, case: Any) -> str | None:
        return None if case is None or case[0] != backend else "not this case"

    def __getattr__(self, name: str) -> str:
        return name


def chosen(op: str, case: tuple[str, ...] = ("",)) -> str:
    return _dispatch._choose(op, "torch", "cuda", case, "auto")[0]


@pytest.mark.usefixtures("h200")
def test_auto_takes_cuda_where_it_was_shown_ahead(monkeypatch, capsys):
    monkeypatch.setenv("FOGZO_LOG", "dispatch")
    assert (chosen("noise"), chosen("pack")) == ("cuda", "triton")
    why = "0.750 of the time of triton at most on NVIDIA H200, commit 0123456789ab"
    logged = capsys.readouterr().err.splitlines()
    assert logged == [f"fogzo: noise: cuda ({why})", "fogzo: pack: triton"]
    assert chosen("noise", ("cuda",)) == "triton"
    monkeypatch.setattr(_ahead, "_architecture", lambda: 80)
    assert chosen("noise") == "triton"


@pytest.mark.usefixtures("h200")
def test_a_call_for_many_tensors_follows_its_operation(monkeypatch):
    monkeypatch.setattr(_ahead, "TABLE", {"perturb_quantize": TABLE["noise"]})
    assert chosen("perturb_quantize_many") == "cuda"
    assert chosen("assemble_gradient_many") == "triton"


def test_other_devices_keep_their_order(monkeypatch):
    monkeypatch.setattr(_ahead, "TABLE", TABLE)
    monkeypatch.setattr(_ahead, "_architecture", lambda: pytest.fail("a GPU was asked for"))
    assert _dispatch._order("noise", "cpu") == (("cpu", "reference"), None)
    assert _dispatch._order("pack", "cuda") == (("triton", "cuda", "reference"), None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_ahead(monkeypatch):
    monkeypatch.setattr(_ahead, "TABLE", TABLE)
    assert _ahead.shown("noise") is None


def test_info_says_what_is_first_and_why(monkeypatch):
    usual = "auto on a GPU: triton, then cuda, then the reference"
    described = _info.described()
    assert described["ahead"] == _ahead.lines()
    assert f"{usual}: no committed row shows cuda ahead" in _info.lines({**described, "ahead": []})
    monkeypatch.setattr(_ahead, "TABLE", TABLE)
    described = _info.described()
    assert json.loads(json.dumps(described))["ahead"] == described["ahead"]
    rest = "at most on NVIDIA H200, commit 0123456789ab"
    assert [line for line in _info.lines(described) if usual in line] == [
        f"{usual}; but noise on sm_90: 0.750 of the time of triton {rest}",
        f"{usual}; but probe_matmul.wgmma.int8 on sm_90: 0.500 of the time of mma {rest}",
    ]


@pytest.mark.usefixtures("h200")
def test_the_cuda_product_by_warpgroups(monkeypatch):
    """Only where a row shows it ahead for that x, with more than a few rows, or if asked for."""
    assert native._kernel("int8", 33) == "wgmma"
    assert (native._kernel("int8", 32), native._kernel("bfloat16", 33)) == ("mma", "mma")
    with native.use_kernel("mma"):
        assert native._kernel("int8", 33) == "mma"
    with native.use_kernel("wgmma"):
        assert native._kernel("float32", 1) == "wgmma"
    monkeypatch.setattr(native, "_FROM_ENVIRONMENT", "wgmma")
    assert native._kernel("bfloat16", 1) == "wgmma"
    with native.use_kernel("auto"):
        assert native._kernel("bfloat16", 1) == "mma"
    monkeypatch.setattr(native, "_FROM_ENVIRONMENT", "wmma")
    with pytest.raises(ValueError, match=r"FOGZO_CUDA_MATMUL: value is 'wmma', expected one of"):
        native._kernel("int8", 1)
