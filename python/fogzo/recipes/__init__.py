"""Training recipes by name: what `fogzo train NAME` runs.

A recipe is one module here with a `RECIPE` (see _recipe.py) and one line in `_MODULES`.
"""

from __future__ import annotations

from importlib import import_module

from ._recipe import Batch, Recipe, Task

__all__ = ["Batch", "Recipe", "Task", "get", "names"]

_MODULES = {"mnist": "mnist"}


def names() -> list[str]:
    """Names of all recipes, as typed after `fogzo train`."""
    return sorted(_MODULES)


def get(name: str) -> Recipe:
    """The recipe of that name.

    Args:
        name: one of names().

    Returns:
        Its Recipe; the module is imported only now.

    Raises:
        ValueError: no such recipe.

    Example:
        >>> get("mnist").batch_size
        512
    """
    if name not in _MODULES:
        raise ValueError(f"train: recipe has name {name!r}, expected one of {', '.join(names())}")
    recipe = import_module(f"{__name__}.{_MODULES[name]}").RECIPE
    assert isinstance(recipe, Recipe)
    return recipe
