"""The command line beside training: usage errors, --version, info, selftest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fogzo.cli import main


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train", "cifar"], "invalid choice: 'cifar'"),
        (["train", "mnist", "--steps", "0"], "--steps: got '0', expected a whole number"),
        (["train", "mnist", "--lr", "-1"], "--lr: got '-1', expected a positive number"),
        (["train", "mnist", "--checkpoint-seconds", "nan"], "got 'nan', expected a number of at"),
        (["train", "mnist", "--estimators", "adam"], "expected one of ste, fogzo, n-spsa"),
        (["train", "mnist", "--device", "abacus"], "--device has 'abacus', expected a device"),
        (["train", "mnist", "--batch-size", "60001"], "at most the 60000 training examples"),
        (["train", "mnist", "--device", "meta"], "--device has 'meta', expected a device that"),
        (["train", "mnist", "--threads", "3000000"], "got '3000000', expected a whole number from"),
        (["train", "mnist", "--threads", "100000000000"], "expected a whole number from 1 to 4096"),
        (["train", "mnist", "--threads", "0"], "got '0', expected a whole number from 1 to 4096"),
        (["train", "mnist", "--seeds", "65537"], "got '65537', expected a whole number from 1 to"),
        (["train", "mnist", "--out", ""], "--out: got '', expected a folder"),
        (["train", "mnist", "--resume", ""], "--resume: got '', expected a folder"),
        (["train", "mnist", "--data", ""], "--data: got '', expected a folder"),
        (["train", "mnist", "--estimators", "fogzo:probes=99999999999999"], "probes has '99999999"),
        (["plot"], "the following arguments are required: RUN"),
        (["plot", ""], "RUN: got '', expected a folder or file"),
        (["plot", "run", "--out", ""], "--out: got '', expected a file"),
        (["report"], "the following arguments are required: RUN"),
        (["report", ""], "RUN: got '', expected a folder"),
        (["selftest", "--backend", "abacus"], "invalid choice: 'abacus'"),
        (["bench", "nothing"], "got 'nothing', expected one of step"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_usage_errors_exit_with_2(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(words)
    except SystemExit as exit:
        code = exit.code
    assert code == 2
    assert says in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("fogzo-kernels 0.")


def test_info_names_each_backend_and_why_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert main(["info", "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["versions"]["torch"] == torch.__version__
    for name, reason in info["backends"].items():
        (line,) = (line for line in lines if line.startswith(f"{name}: "))
        assert line.startswith(f"{name}: used") if reason is None else reason in line
    assert info["backends"]["reference"] is None
    assert Path(info["files"]["mnist"]).is_dir()


def test_selftest_prints_one_hash_on_every_usable_backend(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["selftest", "--backend", "reference"]) == 0
    expected = capsys.readouterr().out
    assert len(expected) == 17
    assert main(["selftest"]) == 0
    assert capsys.readouterr().out == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="checks the refusal without a GPU")
def test_selftest_of_an_unusable_backend_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--backend", "triton"]) == 1
    assert "triton is not used: no CUDA device" in capsys.readouterr().err
