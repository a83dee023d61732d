"""A resumed logger goes on where it was: its rows, its calls, its oscillation rates."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from logged_runs import loss_of, make, rows_of, train

from fogzo import FOGZO, STE, Logger


def test_a_resumed_run_cuts_what_it_will_write_again(tmp_path):
    path = tmp_path / "log.jsonl"
    model = make()
    est = FOGZO(model)
    with Logger(est, path) as logger:
        train(est, model, logger, 5)
    whole = path.read_bytes()
    again = make()
    est = FOGZO(again)
    with Logger(est, tmp_path / "part.jsonl") as logger:
        train(est, again, logger, 3)
        state, of_logger = est.state_dict(), copy.deepcopy(logger.state_dict())
        weights = {name: t.clone() for name, t in again.state_dict().items()}
        train(est, again, logger, 1)
    with (tmp_path / "part.jsonl").open("ab") as file:
        file.write(b'{"estimator": "fog')
    resumed = make()
    resumed.load_state_dict(weights)
    est = FOGZO(resumed)
    est.load_state_dict(state)
    with Logger(est, tmp_path / "part.jsonl", resume=True) as logger:
        logger.load_state_dict(of_logger)
        train(est, resumed, logger, 2)
    assert (tmp_path / "part.jsonl").read_bytes() == whole


def test_a_file_is_cut_by_the_first_row_that_is_written(tmp_path, monkeypatch):
    """Whichever state is loaded first, and by a file that takes its place."""
    path, model = tmp_path / "log.jsonl", make()
    est = FOGZO(model)
    with Logger(est, path) as logger:
        train(est, model, logger, 3)
        state, of_logger = est.state_dict(), logger.state_dict()
        train(est, model, logger, 1)
    with path.open("ab") as file:
        file.write(b'{"step": 1}')  # without the line's end
    whole = path.read_bytes()
    est = FOGZO(model)
    logger = Logger(est, path, resume=True)
    est.load_state_dict(state)
    logger.load_state_dict(of_logger)
    assert path.read_bytes() == whole
    train(est, model, logger, 1)
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("a full disk")))
        with pytest.raises(OSError, match="a full disk"):
            logger.flush()
    assert path.read_bytes() == whole
    train(est, model, logger, 1)
    logger.close()
    rows, before = rows_of(path), whole.splitlines()
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[3]["train_loss"] < json.loads(before[3])["train_loss"]  # trained a step more
    assert [p.name for p in tmp_path.iterdir()] == ["log.jsonl"]


def test_oscillation_and_the_rows_to_come_go_on_where_they_were(tmp_path):
    """Weights that swing: rates that a fresh start would have at 0."""
    rows = {}
    for name, stops in (("whole", ()), ("part", (3, 7))):
        path, model = tmp_path / f"{name}.jsonl", make()
        est = STE(model)
        logger = Logger(est, path, every=2, momentum=0.5)
        for step in range(12):
            if step in stops:
                state = logger.state_dict()
                assert len(rows_of(path)) == -(-step // 2)  # what waited is written
                logger.close()
                logger = Logger(est, path, every=2, momentum=0.5, resume=True)
                logger.load_state_dict(state)
            with torch.no_grad():
                for layer in (model[0], model[2]):
                    layer.weight.copy_(layer.scale * (0.6 if step % 2 else -0.6))
            est.backward(lambda model=model: loss_of(model))
            logger.log()
        logger.close()
        rows[name] = rows_of(path)
    assert [row["step"] for row in rows["part"]] == [0, 2, 4, 6, 8, 10]
    assert rows["part"] == rows["whole"]
    assert rows["whole"][-1]["oscillation"]["0.weight"] > 0.9
    assert rows["whole"][2]["oscillation"]["0.weight"] > 0.5  # after the first stop


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda s: None, TypeError, "Logger.load_state_dict: state is a NoneType, expected what"),
        (lambda s: {"calls": 1}, TypeError, "state is a dict, expected what state_dict"),
        (lambda s: s | {"calls": -1}, ValueError, "calls is -1, expected an int >= 0"),
        (lambda s: s | {"oscillation": None}, ValueError, "oscillation is None, expected oscillat"),
        (
            lambda s: s | {"oscillation": s["oscillation"] | {"momentum": 0.5}},
            ValueError,
            "momentum is 0.5, expected 0.01 as this one was made with",
        ),
        (
            lambda s: s | {"oscillation": s["oscillation"] | {"weights": {"x": {}}}},
            ValueError,
            "weights has 'x', expected the names of the estimator's weights",
        ),
        (
            lambda s: s | {"oscillation": s["oscillation"] | {"weights": {"0.weight": 3}}},
            TypeError,
            "0.weight is a int, expected what state_dict",
        ),
        (lambda s: s | {"oscillation": 3}, TypeError, "state is a int, expected what state_dict"),
        (
            lambda s: s | {"oscillation": s["oscillation"] | {"weights": [1]}},
            TypeError,
            "weights is a list, expected what state_dict",
        ),
        (
            lambda s: (
                s
                | {
                    "oscillation": s["oscillation"]
                    | {"weights": {"0.weight": {"codes": 1, "direction": 2, "rate": 3}}}
                }
            ),
            TypeError,
            "0.weight has codes, a int, expected a tensor",
        ),
        (
            lambda s: {
                "calls": 2,
                "oscillation": {
                    "momentum": 0.01,
                    "weights": {"0.weight": s["oscillation"]["weights"]["2.weight"]},
                },
            },
            ValueError,
            "0.weight has codes of shape .*, expected",
        ),
    ],
)
def test_a_state_of_another_kind_is_refused(change, error, text, tmp_path):
    model = make()
    est = STE(model)
    logger = Logger(est, tmp_path / "log.jsonl")
    for _ in range(2):
        est.backward(lambda: loss_of(model))
        logger.log()
    before = copy.deepcopy(logger.state_dict())
    with pytest.raises(error, match=text):
        logger.load_state_dict(change(copy.deepcopy(before)))
    after = logger.state_dict()
    assert after["calls"] == before["calls"] == 2
    for name, tables in before["oscillation"]["weights"].items():
        for key, tensor in tables.items():
            assert torch.equal(after["oscillation"]["weights"][name][key], tensor)
