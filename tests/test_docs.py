"""The documents: Python blocks run, commands parse, links lead somewhere, figures match the run."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import torch

from fogzo.cli import _parser
from fogzo.recipes._summary import table

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[tuple[str, str]]:
    """(document and number, text) of every fenced block in that language."""
    return [
        (f"{path.name}-{number}", text)
        for path in DOCUMENTS
        for number, text in enumerate(
            re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)
        )
    ]


def commands() -> list[str]:
    lines = [line for _, text in blocks("bash") for line in text.splitlines()]
    return [line.partition("#")[0].strip() for line in lines if line.startswith("fogzo ")]


@pytest.mark.parametrize(("name", "code"), blocks("python"), ids=lambda value: value[:20])
def test_python_blocks_run(name: str, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    exec(compile(code, name, "exec"), {})


def test_the_readme_has_blocks() -> None:
    """The patterns above must not come to match nothing."""
    assert any(name.startswith("README") for name, _ in blocks("python"))
    assert len(commands()) >= 5


@pytest.mark.parametrize("command", commands())
def test_commands_are_accepted(command: str) -> None:
    args = _parser().parse_args(shlex.split(command)[1:])
    assert callable(args.run)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files_and_headings(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        name, _, heading = target.partition("#")
        path = document.parent / name if name else document
        assert path.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
            slugs = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
            assert heading in slugs, target


def test_the_readmes_table_is_the_committed_runs() -> None:
    summary = json.loads((ROOT / "docs" / "results" / "mnist-summary.json").read_text())
    assert table(summary["rows"]) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readmes_bars_are_those_of_the_committed_rows() -> None:
    from fogzo_bench import _rows

    files = ("cpu-avx2.jsonl", "cpu-avx2-zen5.jsonl")
    rows = [row for name in files for row in _rows.load(ROOT / "bench" / "results" / name)]
    assert "\n".join(_rows.table(rows)) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_picture_is_small() -> None:
    assert (ROOT / "docs" / "img" / "curves.png").stat().st_size < 200_000


def test_every_option_of_train_is_a_known_word() -> None:
    """Spelling check of options named in prose, e.g. `--resume`."""
    known = set()
    for action in _parser()._subparsers._group_actions[0].choices.values():
        known.update(action._option_string_actions)
    known |= {"--version"}
    for document in DOCUMENTS:
        named = re.findall(r"`(--[a-z][a-z-]*)", document.read_text(encoding="utf-8"))
        assert set(named) <= known
