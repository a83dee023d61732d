"""The planted faults still fit the tree; `make mutants` runs them."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location("mutants", ROOT / "tests/tools/mutants.py")
assert spec is not None
assert spec.loader is not None
mutants = importlib.util.module_from_spec(spec)
sys.modules["mutants"] = mutants  # its dataclass looks itself up there
spec.loader.exec_module(mutants)


def test_every_fault_applies_once_and_names_tests_that_exist():
    for mutant in mutants.load():
        if mutant.file.endswith(".py"):
            text = (ROOT / mutant.file).read_text().replace(mutant.find, mutant.replace)
            compile(text, mutant.file, "exec")  # a fault that does not parse proves nothing
        for test in mutant.tests:
            if test in mutants.TOOLS:
                continue
            file, _, rest = test.partition("::")
            text = (ROOT / file).read_text()
            for module in re.findall(r"^from (\w+) import \*", text, re.M):
                text += (ROOT / f"tests/{module}.py").read_text()
            for name in re.sub(r"\[.*", "", rest).split("::") if rest else []:
                assert re.search(rf"\b(def|class) {name}\b", text), f"{mutant.name}: {test}"


def test_there_are_enough():
    assert len(mutants.load()) >= 14
