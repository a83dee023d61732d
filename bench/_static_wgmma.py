"""Registers that products of warpgroups have in flight, which nothing else may touch until then."""

from __future__ import annotations

import re

from ._static_read import INSTRUCTION

# "D, A, gdesc[..], C, gsb0": A may be in shared memory too; gsb0 ends a group.
_PRODUCT = re.compile(r"R(?P<d>\d+), (?:R(?P<a>\d+)|gdesc\[\w+\]), gdesc.*?(?P<commit>, gsb0)?\s*$")
_WRITES_NO_REGISTER = ("ST", "RED", "BAR", "LDGSTS", "BRA", "EXIT", "MEMBAR", "R2UR", "ISETP")
_WIDTHS = {"64": 2, "128": 4}


def touched_in_flight(sass: str) -> list[str]:
    """Instructions that touch a product's registers before it is waited for, a line each.

    Sums may be neither read nor written, operands not written; a product may follow on the same
    sums. Instructions are read straight on.
    """
    found: list[str] = []
    groups: list[tuple[set[int], set[int]]] = []  # operands and sums of each group under way
    operands: set[int] = set()
    sums: set[int] = set()
    for match in INSTRUCTION.finditer(sass):
        address, name, suffix, text = match[1], match[2], match[3], match[4].strip()
        product = _PRODUCT.match(text) if name.endswith("GMMA") else None
        if product is not None:
            columns = re.search(r"\.64x(\d+)x", suffix)
            sums |= _registers(int(product["d"]), int(columns[1]) // 2 if columns else 0)
            operands |= _registers(int(product["a"]), 4) if product["a"] else set()
            if product["commit"]:
                groups.append((operands, sums))
                operands, sums = set(), set()
        elif name == "WARPGROUP" and suffix.startswith(".DEPBAR"):
            left = int(text.rpartition("0x")[2], 16)
            groups = groups[len(groups) - left :] if left else []
        elif name != "WARPGROUP":
            written, read = _touched(name, suffix, text)
            busy = set().union(sums, *(group[1] for group in groups))
            if (written | read) & busy or written & operands.union(*(g[0] for g in groups)):
                found.append(f"{name}{suffix} at {address} touches registers of a product")
    return found


def _registers(first: int, count: int) -> set[int]:
    return set(range(first, first + count))


def _touched(name: str, suffix: str, text: str) -> tuple[set[int], set[int]]:
    """Registers that an instruction writes and those that it reads."""
    named = [int(number) for number in re.findall(r"\bR(\d+)", text)]
    if name.startswith(_WRITES_NO_REGISTER) or not re.match(r"R\d", text):
        return set(), set(named)
    width = 2 if "WIDE" in suffix or name == "CS2R" else 1
    if name.startswith("LD"):
        width = _WIDTHS.get(suffix.rpartition(".")[2], 1)
    return _registers(named[0], width), set(named[1:])
