"""Seeing what happens in training: a diagnosis before it, a log of it."""

from __future__ import annotations

from .diagnose import diagnose
from .logger import Logger
from .oscillation import Oscillation
from .verdicts import Diagnosis, Finding

__all__ = ["Diagnosis", "Finding", "Logger", "Oscillation", "diagnose"]
