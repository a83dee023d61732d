"""fogzo.Logger: rows as the command line's, and nothing waits until they are written."""

from __future__ import annotations

import math
import sys

import pytest
import torch
import torch.nn.functional as F
from logged_runs import X, Y, loss_of, make, rows_of, train
from torch import Tensor

from fogzo import FOGZO, NSPSA, STE, Logger
from fogzo.recipes import get
from fogzo.recipes._run import Config, Session
from fogzo.recipes._spec import parse_estimators

EXTRA = ["ratio", "resolution", "norm", "fallbacks", "oscillation"]


@pytest.fixture(scope="module")
def task():
    return get("mnist").task(None, torch.device("cpu"))


@pytest.mark.parametrize("options", ["ste", "fogzo:probes=2", "fogzo:start=2", "n-spsa"])
def test_rows_begin_with_those_of_metrics_jsonl(options, task, tmp_path):
    specs = parse_estimators(options)
    config = Config("mnist", (options,), 4, 1, 64, None, "cpu", 1)
    run = Session(get("mnist"), task, config, specs)._make(0)
    run.steps = 4
    with Logger(run.estimator, tmp_path / "log.jsonl") as logger:
        metrics = []
        for _ in range(4):
            metrics.append(run.advance()[0])
            logger.log()
    rows = rows_of(tmp_path / "log.jsonl")
    for row, wanted in zip(rows, metrics, strict=True):
        wanted["estimator"] = options.partition(":")[0]
        wanted["seed"] = None if options == "ste" else run.seed
        wanted["predicted"] = [None if math.isnan(p) else p for p in wanted["predicted"]]
        assert list(row) == [*wanted, *EXTRA]
        assert {name: row[name] for name in wanted} == wanted


@pytest.mark.parametrize("kind", [FOGZO, NSPSA, STE])
def test_every_figure_is_that_of_last(kind, tmp_path):
    model = make()
    est = kind(model, **({} if kind is STE else {"probes": 2, "seed": 7}))
    with Logger(est, tmp_path / "log.jsonl") as logger:
        found = train(est, model, logger, 3)
    rows = rows_of(tmp_path / "log.jsonl")
    for step, (row, (last, predicted, forwards)) in enumerate(zip(rows, found, strict=True)):
        plain = [None if math.isnan(p) else p for p in predicted]
        assert row["step"] == step
        assert row["train_loss"] == last.loss.item()
        assert row["difference"] == last.difference.tolist()
        assert row["predicted"] == plain
        assert row["resolution"] == last.resolution.tolist()
        assert row["flips"] == last.flips
        assert row["forwards"] == forwards
        assert row["fallbacks"] == 0
        assert list(row["oscillation"]) == ["0.weight", "2.weight"]
        if kind is FOGZO:
            assert row["gamma"] == est.gamma
            assert row["norm"] == last.norm.item()
            assert row["ratio"] == [
                d / p for d, p in zip(row["difference"], predicted, strict=True)
            ]
        else:
            assert row["gamma"] == (1.0 if kind is NSPSA else None)
            assert row["norm"] is None
            assert row["ratio"] == [None] * len(predicted)


def test_every_tells_which_calls_make_rows_and_the_buffer_when_they_are_written(tmp_path):
    model, path = make(), tmp_path / "new" / "log.jsonl"
    est = FOGZO(model)
    logger = Logger(est, path, every=3, buffer=2)
    sizes = []
    for _ in range(10):
        est.backward(lambda: loss_of(model))
        logger.log()
        sizes.append(len(rows_of(path)))
    assert sizes == [0, 0, 0, 2, 2, 2, 2, 2, 2, 4]
    est.backward(lambda: loss_of(model))
    logger.log()
    logger.close()
    assert [row["step"] for row in rows_of(path)] == [0, 3, 6, 9]


def test_oscillation_is_tracked_at_calls_that_make_no_row(tmp_path):
    model = make()
    est = STE(model)
    with Logger(est, tmp_path / "log.jsonl", every=2, momentum=1.0) as logger:
        for i in range(5):
            est.backward(lambda: loss_of(model))
            logger.log()
            with torch.no_grad():  # one code to and fro, seen at even calls alone as no change
                model[0].weight[0, 0] = 5.0 if i % 2 == 0 else -5.0
                model.zero_grad()
    rates = [row["oscillation"]["0.weight"] for row in rows_of(tmp_path / "log.jsonl")]
    assert rates[2] == pytest.approx(1 / 128)


def test_without_oscillation_there_is_none(tmp_path):
    model = make()
    est = FOGZO(model)
    with Logger(est, tmp_path / "log.jsonl", oscillation=False) as logger:
        train(est, model, logger, 2)
    assert [row["oscillation"] for row in rows_of(tmp_path / "log.jsonl")] == [{}, {}]


def test_what_is_not_finite_is_null(tmp_path):
    model, count = make(), iter(range(9))
    est = FOGZO(model)
    with Logger(est, tmp_path / "log.jsonl") as logger:
        with pytest.warns(UserWarning, match="not finite"):
            est.backward(lambda: loss_of(model) * (math.inf if next(count) == 1 else 1))
        logger.log()
    (row,) = rows_of(tmp_path / "log.jsonl")
    assert row["difference"] == [None]
    assert row["ratio"] == [None]
    assert row["fallbacks"] == 1


def test_no_value_is_read_before_rows_are_written(tmp_path, monkeypatch):
    """What would wait for a device raises while steps are logged."""
    model = make()
    est = FOGZO(model, probes=2)
    logger = Logger(est, tmp_path / "log.jsonl", oscillation=False)

    def waits(*_: object) -> None:
        raise AssertionError("waits for the device")

    for _ in range(3):
        est.backward(lambda: loss_of(model))
        assert est.last.predicted.isfinite().all()  # its operations read what lies on a CPU
        with monkeypatch.context() as patch:
            for name in ("item", "tolist", "__bool__", "__float__", "__int__", "cpu", "numpy"):
                patch.setattr(Tensor, name, waits)
            logger.log()
    logger.close()
    assert [row["step"] for row in rows_of(tmp_path / "log.jsonl")] == [0, 1, 2]


@pytest.mark.gpu
def test_logging_does_not_wait_for_a_gpu(tmp_path):
    model = make().cuda()
    est = FOGZO(model, probes=2)
    x, y = X.cuda(), Y.cuda()
    logger = Logger(est, tmp_path / "log.jsonl")
    for _ in range(3):
        est.backward(lambda: F.cross_entropy(model(x), y))
        torch.cuda.set_sync_debug_mode("error")
        try:
            logger.log()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    logger.close()
    assert len(rows_of(tmp_path / "log.jsonl")) == 3


def test_figures_are_copies_of_what_a_captured_step_writes_anew(tmp_path):
    model = make()
    est = FOGZO(model)
    with Logger(est, tmp_path / "log.jsonl") as logger:
        est.backward(lambda: loss_of(model))
        logger.log()
        loss = est.last.loss.item()
        est.last.loss.zero_()
        est.last.flip_counts()[0][1].zero_()
    (row,) = rows_of(tmp_path / "log.jsonl")
    assert row["train_loss"] == loss


def test_a_file_with_rows_is_not_written_over(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 0}\n')
    with pytest.raises(FileExistsError, match=r"log.jsonl has 12 bytes, expected a new file \(re"):
        Logger(STE(make()), path)
    assert path.read_text() == '{"step": 0}\n'


class Writer:
    def __init__(self) -> None:
        self.scalars: list[tuple[str, float, int]] = []

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.scalars.append((tag, value, step))


def test_a_writer_gets_every_scalar_that_is_finite(tmp_path):
    model, writer = make(), Writer()
    est = FOGZO(model, probes=2)
    with Logger(est, tensorboard=writer) as logger:
        found = train(est, model, logger, 2)
    at = {(tag, step): value for tag, value, step in writer.scalars}
    assert {tag for tag, _ in at} == {
        "loss", "gamma", "norm", "slope/measured", "slope/predicted", "ratio", "fallbacks",
        "flips/0.weight", "flips/2.weight", "oscillation/0.weight", "oscillation/2.weight",
    }  # fmt: skip
    last, predicted, _ = found[1]
    ds = last.difference.tolist()
    assert at["loss", 1] == last.loss.item()
    assert at["slope/measured", 1] == sum(map(abs, ds)) / 2
    assert at["slope/predicted", 1] == sum(map(abs, predicted)) / 2
    assert at["ratio", 1] == pytest.approx(
        sum(d * p for d, p in zip(ds, predicted, strict=True)) / sum(p * p for p in predicted)
    )
    assert at["flips/0.weight", 1] == last.flips["0.weight"]


def test_a_plain_steps_scalars(tmp_path):
    model, writer = make(), Writer()
    with Logger(STE(model), tensorboard=writer, oscillation=False) as logger:
        train(logger._est, model, logger, 1)
    assert [tag for tag, _, _ in writer.scalars] == ["loss"]


def test_tensorboard_reads_them_back(tmp_path):
    pytest.importorskip("tensorboard", reason="pip install 'fogzo-kernels[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model = make()
    est = FOGZO(model)
    with Logger(est, tensorboard=tmp_path / "events") as logger:
        found = train(est, model, logger, 3)
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    losses = [event.value for event in events.Scalars("loss")]
    assert losses == [last.loss.item() for last, _, _ in found]
    assert "flips/0.weight" in events.Tags()["scalars"]


def test_without_tensorboard_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    text = r"Logger: tensorboard needs the package tensorboard \(.*pip install 'fogzo-kernels\[t"
    with pytest.raises(ImportError, match=text):
        Logger(STE(make()), tensorboard=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"est": 3, "path": "x"}, TypeError, "est is a int, expected fogzo.STE, NSPSA or FOGZO"),
        ({}, ValueError, "path is None, expected a file, or tensorboard="),
        ({"path": 3}, TypeError, "Logger: path is 3, expected a str or a pathlib.Path"),
        ({"path": "."}, ValueError, "Logger: path is the folder ., expected a file in it"),
        ({"path": "x", "every": 0}, ValueError, "every is 0, expected an int >= 1"),
        ({"path": "x", "buffer": 1.5}, ValueError, "buffer is 1.5, expected an int >= 1"),
        ({"path": "x", "momentum": 0}, ValueError, "momentum is 0, expected a number over 0 and"),
        ({"path": "x", "momentum": "a"}, TypeError, "momentum is 'a', expected a number over 0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, error, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=text):
        Logger(**{"est": STE(make()), **arguments})
    assert list(tmp_path.iterdir()) == []


def test_there_is_nothing_to_log_before_the_first_call(tmp_path):
    with Logger(STE(make()), tmp_path / "x") as logger, pytest.raises(RuntimeError) as caught:
        logger.log()
    text = "Logger.log: last is None, expected a call of backward() before it"
    assert str(caught.value) == text
