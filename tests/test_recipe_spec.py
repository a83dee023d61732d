"""Estimators as typed: options parsed, every mistake named with its choices."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fogzo import recipes
from fogzo.recipes._spec import UsageError, parse_estimators

MNIST = recipes.get("mnist")


def test_options_are_parsed() -> None:
    ste, guided, spsa = parse_estimators("ste, fogzo:gamma=1e-3:probes=10,n-spsa:probes=100")
    assert (ste.label, ste.kind, dict(ste.options)) == ("ste", "ste", {})
    assert guided.options == {"gamma": 1e-3, "probes": 10}
    assert spsa.options == {"probes": 100}


def test_options_reach_the_estimator() -> None:
    (spec,) = parse_estimators("fogzo:gamma=0.25:probes=3:noise=rademacher:lr=0.5")
    with pytest.warns(UserWarning, match="n-SPSA regime"):
        estimator = spec.make(MNIST.model(0), seed=5)
    state = estimator.state_dict()
    assert (estimator.probes, estimator.noise, state["seed"]) == (3, "rademacher", 5)
    assert spec.learning_rate(MNIST, None) == 0.5


@pytest.mark.parametrize("kind", ["fogzo", "n-spsa"])
def test_probes_run_in_one_forward_where_asked(kind: str) -> None:
    plain, batched = parse_estimators(f"{kind},{kind}:probes_mode=batched:probes=2")
    images, labels = torch.rand(8, 784), torch.arange(8)
    for spec, mode in ((plain, "sequential"), (batched, "batched")):
        model = MNIST.model(0)
        estimator = spec.make(model, seed=5)
        estimator.backward(lambda model=model: F.cross_entropy(model(images), labels))
        assert estimator.last.probes_mode == mode


def test_a_surrogate_reaches_the_model() -> None:
    plain, clipped = parse_estimators("ste,fogzo:surrogate=clipped")
    for spec, name in ((plain, "identity"), (clipped, "clipped")):
        model = MNIST.model(0, **spec.model_options)
        assert [layer.surrogate for layer in (model[0], model[2])] == [name, name]
        spec.make(model, seed=5)


def test_learning_rate_prefers_the_option_then_lr_then_the_recipe() -> None:
    plain, own = parse_estimators("ste,fogzo:lr=0.25")
    assert plain.learning_rate(MNIST, None) == MNIST.learning_rates["ste"]
    assert plain.learning_rate(MNIST, 0.125) == 0.125
    assert own.learning_rate(MNIST, 0.125) == 0.25


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sgd", "estimator has name 'sgd', expected one of ste, fogzo, n-spsa"),
        ("", "estimator has name '', expected one of"),
        ("ste,", "estimator has name '', expected one of"),
        ("ste:probes=2", "ste has option 'probes', expected one of lr"),
        ("n-spsa:gamma=1", "n-spsa has option 'gamma', expected one of lr, probes, noise"),
        ("fogzo:probes=0", "option probes has '0', expected a whole number from 1 to 1048576"),
        ("n-spsa:probes=1048577", "probes has '1048577', expected a whole number from 1 to 1048"),
        ("fogzo:probes=two", "option probes has 'two', expected a whole number"),
        ("fogzo:probes", "option probes has no value, expected a whole number"),
        ("fogzo:gamma=1.5", "option gamma has '1.5', expected auto or a number from 0 to 1"),
        ("fogzo:gamma=nan", "option gamma has 'nan'"),
        ("fogzo:noise=normal", "option noise has 'normal', expected published or rademacher"),
        ("fogzo:probe_fraction=0", "option probe_fraction has '0', expected a number over 0"),
        ("n-spsa:difference=backward", "difference has 'backward', expected central or forward"),
        ("fogzo:probes_mode=vmap", "probes_mode has 'vmap', expected sequential or batched"),
        ("ste:probes_mode=batched", "ste has option 'probes_mode', expected one of lr"),
        ("ste:lr=inf", "option lr has 'inf', expected a positive number"),
        ("ste:surrogate=tanh", "surrogate has 'tanh', expected identity or clipped"),
        ("fogzo:probes=1:probes=2", "option 'probes' twice"),
        ("ste,fogzo,ste", "estimators has 'ste' twice, expected each once"),
    ],
)
def test_mistakes_are_named(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=r"^train: ") as caught:
        parse_estimators(text)
    assert says in str(caught.value)


def test_unknown_recipe_names_the_choices() -> None:
    with pytest.raises(ValueError, match="recipe has name 'x', expected one of mnist"):
        recipes.get("x")
