"""The table of what composes with what: printed after the tests, kept as docs/composition.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from _table import Table

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "composition.md"
TABLE = Table()


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "write docs/composition.md from the verdicts of tests/compose"
    parser.addoption("--write-composition", action="store_true", help=text)


@pytest.fixture(scope="session")
def table() -> Table:
    return TABLE


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if TABLE.verdicts:
        terminalreporter.section("what composes with what")
        terminalreporter.write_line(TABLE.plain())
    if config.getoption("--write-composition", default=False):
        DOCUMENT.write_text(TABLE.document(), encoding="utf-8")
