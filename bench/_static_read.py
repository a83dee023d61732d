"""Read a compiled kernel: its PTX, its machine code, and what must not be in them."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

# Approximate, flushing or fused arithmetic; floors flush subnormals; without a rounding mode ptxas
# may fuse an addition into a multiplication.
INEXACT = re.compile(
    r"\b(?:div\.full|fma\.|cvt\.r[mp]i\.)\S*|\S*\.(?:approx|ftz)\b\S*|\b(?:add|sub|mul)\.f(?:32|64)\b"
)
TENSOR = {
    "int8": {80: "IMMA", 90: "IGMMA", 100: "UTCIMMA"},
    "half": {80: "HMMA", 90: "HGMMA", 100: "UTCHMMA"},
    "float8": {90: "QGMMA", 100: "UTCQMMA"},
}
LOCAL = ("STL", "LDL")
# bytes of shared memory that one program may have
SHARED = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
WIDE = 16
LOADED = -1

INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)(\S*)([^;]*);")
_LOAD = re.compile(r"(?P<op>ld\.global\S*|cp\.async\.c[ag]\.shared\.global\S*)\s(?P<rest>[^;]*);")
# Without a state space: a pointer whose memory the compiler did not know.
_GENERIC_LOAD = re.compile(r"(?P<op>ld\.v\d\S*)\s(?P<rest>[^;]*);")


@dataclass(frozen=True)
class Code:
    """Machine code of one kernel.

    counts: instructions by name up to its first dot. loop: instructions of its main loop (the
    innermost one with tensor-core instructions, else the longest), 0 without one. rest: all others.
    registers a thread; stack: bytes of stack and local memory.
    """

    counts: dict[str, int]
    loop: int
    rest: int
    registers: int
    stack: int


def machine_code(usage: str, sass: str) -> Code:
    """Code from what cuobjdump prints with --dump-resource-usage and with -sass.

    Raises:
        ValueError: text without them.
    """
    numbers = dict(re.findall(r"\b(REG|STACK|LOCAL):(\d+)", usage))
    lines = [(int(m[1], 16), m[2], m[4]) for m in INSTRUCTION.finditer(sass)]
    if "REG" not in numbers or not lines:
        raise ValueError(f"cuobjdump printed no kernel: {usage[:200]!r}")
    index = {address: at for at, (address, _, _) in enumerate(lines)}
    loops = []
    for at, (address, name, operands) in enumerate(lines):
        target = re.search(r"0x([0-9a-f]+)\s*$", operands.strip()) if name == "BRA" else None
        if target and int(target[1], 16) < address and int(target[1], 16) in index:
            loops.append(range(index[int(target[1], 16)], at + 1))

    products = [loop for loop in loops if any(is_tensor(lines[at][1]) for at in loop)]
    loop = min(map(len, products)) if products else max(map(len, loops), default=0)
    counts = Counter(name for _, name, _ in lines if name != "NOP")
    every = sum(counts.values())
    stack = int(numbers["STACK"]) + int(numbers["LOCAL"])
    return Code(dict(counts), loop, every - loop, int(numbers["REG"]), stack)


def is_tensor(name: str) -> bool:
    """Whether an instruction is a tensor core's; HFMA2.MMA is a way to load a constant."""
    return name.endswith("MMA") and name != "HFMA2"


def inexact(ptx: str) -> list[str]:
    """Instructions of PTX that do not round one operation at a time, each once."""
    text = re.sub(r"//.*", "", ptx)
    return list(dict.fromkeys(match[0] for match in INEXACT.finditer(text)))


def loads(ptx: str) -> list[tuple[int, int]]:
    """Every load from global memory: (number of the parameter it points into, bytes).

    An address is followed back through its arithmetic to a parameter, else to LOADED: an address
    that was itself loaded, as from a table of tensors.

    Raises:
        ValueError: an address that comes from neither, or from two parameters.
    """
    text = re.sub(r"//.*", "", ptx)
    pointers = {
        int(m[1])
        for m in re.finditer(r"\.param \.u64 \.ptr \.global \.align \d+ \w+_param_(\d+)", text)
    }
    sources: dict[str, set[str]] = {}
    parameters: dict[str, int] = {}
    found: list[tuple[int, str]] = []
    loaded_registers: set[str] = set()
    for line in text.splitlines():
        statement = re.sub(r"^\s*(@!?%p\d+\s+)?", "", line).strip()
        load = _LOAD.match(statement)
        if load is not None:
            found.append(_load(load["op"], load["rest"]))
            loaded_registers |= set(re.findall(r"%\w+", load["rest"].partition("[")[0]))
            continue
        loaded = re.match(r"ld\.param\.\w+\s+(%\w+), \[\w+_param_(\d+)\]", statement)
        if loaded is not None:
            parameters[loaded[1]] = int(loaded[2])
            continue
        registers = re.findall(r"%\w+", statement)
        if registers and not statement.startswith(("ld.", "st.", ".reg", "bra", "@")):
            sources.setdefault(registers[0], set()).update(registers[1:])
    known = {name: at for name, at in parameters.items() if at in pointers}
    return [(_origin(name, sources, known, loaded_registers), size) for size, name in found]


def _load(op: str, rest: str) -> tuple[int, str]:
    """Bytes and address register of one load."""
    addresses = re.findall(r"\[\s*(%\w+)", rest)
    if op.startswith("cp.async"):
        size = re.search(r",\s*(0x[0-9a-f]+|\d+)\s*(?:,|$)", rest)
        return int(size[1], 0) if size else 0, addresses[1]
    width = re.search(r"\.[busf](8|16|32|64|128)\b", op)
    vector = re.search(r"\.v(\d)\b", op)
    return int(width[1]) // 8 * int(vector[1] if vector else 1) if width else 0, addresses[0]


def _origin(
    register: str, sources: dict[str, set[str]], pointers: dict[str, int], loaded: set[str]
) -> int:
    """The one parameter that an address comes from, else LOADED."""
    seen, todo, found = {register}, [register], set()
    while todo:
        at = todo.pop()
        if at in pointers:
            found.add(pointers[at])
        if at not in loaded:
            new = sources.get(at, set()) - seen
            seen |= new
            todo += new
    if len(found) == 1:
        return found.pop()
    if not found and seen & loaded:
        return LOADED
    raise ValueError(f"the address {register} comes from {len(found)} parameters")


def narrow_loads(ptx: str, wide: dict[int, str]) -> list[str]:
    """Loads of less than 16 bytes through the pointers of ``wide``, and through loaded addresses.

    A table's tensors are told apart by nothing: of the bytes loaded from them three quarters must
    come 16 at a time; scales and counts are the rest.
    """
    narrow: Counter[tuple[str, int]] = Counter()
    shares: Counter[bool] = Counter()
    for pointer, size in loads(ptx):
        if pointer == LOADED:
            shares[size >= WIDE] += size
        elif pointer in wide and size < WIDE:
            narrow[wide[pointer], size] += 1
    found = [f"{name}: {count} loads of {size} bytes" for (name, size), count in narrow.items()]
    if shares[True] < 3 * shares[False] and shares[True] + shares[False] >= WIDE:
        found.append(
            f"tensors of the table: {shares[False]} bytes by narrow loads, {shares[True]} by wide"
        )
    return found


def wide_arrays(ptx: str) -> set[frozenset[str]]:
    """The arrays that CUDA C++ reads 16 bytes at a time, each by where its pointer comes from.

    That is a place among the kernel's parameters, or the place it was loaded from. Where the
    address alone does not tell the pointer, sizes that it was computed with are counted too.
    """
    sources: dict[str, set[str]] = {}
    origins: dict[str, str] = {}
    pointers: dict[str, str] = {}  # those that became addresses in global memory
    wide: list[str] = []
    for line in re.sub(r"//.*", "", ptx).splitlines():
        statement = re.sub(r"^\s*(@!?%p\d+\s+)?", "", line).strip()
        load = _LOAD.match(statement) or _GENERIC_LOAD.match(statement)
        place = re.match(r"ld\.\S+\s+(\{[^}]*\}|%\w+), \[([^\]]+)\]", statement)
        if load is not None:
            size, register = _load(load["op"], load["rest"])
            wide += [register] if size >= WIDE else []
        if place is not None:
            # Where in a table it was loaded from, whatever the table's address is.
            at = re.sub(r"%\w+", "loaded", place[2]).replace("_param_", " ")
            origins |= dict.fromkeys(re.findall(r"%\w+", place[1]), at)
            continue
        registers = re.findall(r"%\w+", statement)
        if statement.startswith("cvta.to.global"):
            pointers[registers[0]] = registers[1]
        if registers and not statement.startswith(("st.", ".reg", "bra", "@", "cp.async")):
            sources.setdefault(registers[0], set()).update(registers[1:])

    found = set()
    for register in wide:
        behind = _behind(register, sources)
        for pointer in [pointers[at] for at in behind if at in pointers]:
            behind = _behind(pointer, sources)
        found.add(frozenset(origins[at] for at in behind if at in origins))
    return found


def _behind(register: str, sources: dict[str, set[str]]) -> set[str]:
    """The registers that a register was computed from, and itself."""
    seen, todo = {register}, [register]
    while todo:
        new = sources.get(todo.pop(), set()) - seen
        seen |= new
        todo += new
    return seen


def resources(code: Code, shared: int, arch: int) -> list[str]:
    """Stack, spills and too much shared memory, a line each."""
    found = []
    if code.stack:
        found.append(f"{code.stack} bytes of stack and local memory")
    spills = {name: code.counts[name] for name in LOCAL if name in code.counts}
    if spills:
        found.append("spills: " + ", ".join(f"{count} {name}" for name, count in spills.items()))
    if shared > SHARED[arch]:
        found.append(f"{shared} bytes of shared memory, at most {SHARED[arch]}")
    return found


def findings(
    ptx: str,
    code: Code,
    shared: int,
    arch: int,
    *,
    exact: bool,
    tensor: str,
    wide: dict[int, str] | None,
) -> list[str]:
    """What a kernel must not have, a line each.

    wide: the pointers, by number, whose loads have to be 16 bytes wide, with their names; None: no
    pointer and no loaded address either.
    """
    found = resources(code, shared, arch)
    if tensor and TENSOR[tensor][arch] not in code.counts:
        used = [name for name in code.counts if is_tensor(name)]
        found.append(
            f"no {TENSOR[tensor][arch]}; tensor-core instructions: {', '.join(used) or 'none'}"
        )
    if exact:
        found += [f"not exact: {line}" for line in inexact(ptx)]
    return found if wide is None else found + narrow_loads(ptx, wide)
