"""Gradient estimators: STE (plain back-propagation), n-SPSA, and FOGZO."""

from __future__ import annotations

from .fogzo import FOGZO
from .nspsa import NSPSA
from .record import Last
from .ste import STE

__all__ = ["FOGZO", "NSPSA", "STE", "Last"]
