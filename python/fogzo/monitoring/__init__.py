"""Seeing what happens in training: a diagnosis before it, a log of it."""

from __future__ import annotations

from .diagnose import Diagnosis, Finding, diagnose
from .logger import Logger
from .oscillation import Oscillation

__all__ = ["Diagnosis", "Finding", "Logger", "Oscillation", "diagnose"]
