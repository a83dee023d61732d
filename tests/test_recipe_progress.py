"""What a waiting user sees, and how a run is interrupted."""

from __future__ import annotations

import io
import os
import signal
import sys

import pytest

from fogzo.recipes import _progress
from fogzo.recipes._run import Interrupt


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def show(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, quiet: bool = False) -> str:
    """What two steps and a finished run write to stderr."""
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(_progress, "_REFRESH_SECONDS", 0)
    with _progress.Progress(total=10, done=4, quiet=quiet) as progress:
        progress.start("fogzo seed 1")
        progress.step(1.0)
        progress.step(0.5)
        progress.say("fogzo seed 1: done")
    return stream.getvalue()


def test_bar_has_the_run_the_steps_and_the_live_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm", reason="the bar needs the extra `train`")
    shown = show(Terminal(), monkeypatch)
    assert "fogzo seed 1:  60%" in shown
    assert "6/10" in shown
    assert "loss 0.9750" in shown


def test_without_tqdm_a_plain_line_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_progress, "tqdm", None)
    shown = show(Terminal(), monkeypatch)
    assert "\rfogzo seed 1: step 6 of 10, loss 0.9750\x1b[K" in shown


def test_no_bar_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert show(io.StringIO(), monkeypatch) == "fogzo seed 1: done\n"


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_quiet_is_quiet(stream: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    assert show(stream(), monkeypatch, quiet=True) == ""


def test_a_second_sigint_ends_the_process_as_usual() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupt() as interrupt:
        assert not interrupt.requested
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.requested
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is before
