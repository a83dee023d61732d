"""DESIGN 5.6: import works with nothing else there, and what is missing says how to get it.

A subprocess without site-packages has no torch; a folder of links gives it NumPy alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_same, finite

import fogzo_kernels as fk

ROOT = Path(__file__).resolve().parents[1]
NO_NATIVE = (
    "import sys; sys.modules.update({'fogzo_kernels._cpu': None, 'fogzo_kernels._cuda': None})"
)
NOT_BUILT = (
    "the native module fogzo_kernels._cpu is not built: install a C++20 compiler and Python.h "
    "(Debian: apt-get install -y g++ python3-dev) and reinstall fogzo-kernels from source"
)
NO_TORCH = "torch is not installed: pip install torch"
needs_native = pytest.mark.skipif(
    fk.why_not("cpu") is not None, reason="the native module is not built"
)


@pytest.fixture(scope="session")
def numpy_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    site = Path(np.__file__).parents[1]
    for name in ("numpy", "numpy.libs"):
        if (site / name).exists():
            (folder / name).symlink_to(site / name)
    return folder


def python(code: str, *paths: Path, bare: bool = True, **environment: str):
    """Run code; ``bare`` leaves out site-packages: only ``paths`` and the tree are there."""
    path = os.pathsep.join(str(p) for p in (ROOT, ROOT / "python", *paths))
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("FOGZO_", "PYTHON"))}
    return subprocess.run(
        [sys.executable, *(["-S"] if bare else []), "-c", code],
        env={**kept, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT / "tests",
    )


def said(code: str, *paths: Path, **named) -> str:
    done = python(code, *paths, **named)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_reads_no_torch_numpy_or_triton():
    code = (
        "import sys, fogzo_kernels\n"
        "print([n for n in ('torch', 'numpy', 'triton', 'fogzo_kernels._cpu') if n in sys.modules])"
    )
    assert said(code, bare=False) == "[]"


def test_nothing_is_there():
    """No torch, no NumPy, no native module: import works and every call names what is missing."""
    code = (
        f"{NO_NATIVE}\nimport fogzo_kernels as fk\n"
        "print(fk.backends())\nprint(fk.why_not('reference'))\nprint(fk.why_not('cpu'))\n"
        "print(fk.why_not('triton'))\nprint(fk.Grid('ternary').v_max, fk.radius('tanh') > 0.9)\n"
        "print(sorted(set(map(str, fk.capabilities()['noise'].values()))) != ['None'])\n"
        "try:\n    fk.noise((2,), 'identity', seed=0, step=0, tensor=0)\n"
        "except RuntimeError as error:\n    print(error)"
    )
    lines = said(code).splitlines()
    assert lines[:6] == ["()", NO_TORCH, NOT_BUILT, NO_TORCH, "1.0 True", "True"]
    wanted = f"noise: no backend takes this call: cpu: {NOT_BUILT}; reference: {NO_TORCH}"
    assert lines[6:] == [wanted]


def test_a_list_is_refused_by_name():
    code = (
        "import fogzo_kernels as fk\n"
        "try:\n    fk.quantize([1.0], [1.0], fk.Grid('sign'))\n"
        "except TypeError as error:\n    print(error)"
    )
    assert said(code) == "quantize: w is a list, expected a torch tensor or a NumPy array"


@needs_native
def test_numpy_without_torch_gives_the_references_bits(numpy_only, tmp_path):
    rng = np.random.default_rng(0)
    w, grad = finite(rng, (5, 1029)), finite(rng, (5, 1029))
    scale = np.full((5, 1), 0.37, np.float32)
    np.savez(tmp_path / "in.npz", w=w, grad=grad, scale=scale)
    body = """
grid, place = fk.Grid('mid-rise', 2), dict(seed=5, step=6, tensor=7)
out = np.empty((3, 700), np.float32)
norm = fk.whitened_norm([grad], [scale], 'clipped')
named = dict(gamma=0.3, norm=norm, **place)
results = dict(
    noise=fk.noise((3, 700), 'tanh', out=out, **place),
    norm=norm,
    fake=fk.fake_quantize(w, scale, grid),
    codes=fk.perturb_quantize(w, grad, scale, grid, form='codes', probes=2, **named),
    packed=fk.perturb_quantize(w, grad, scale, grid, form='packed', **named).data,
    g=fk.assemble_gradient(grad, scale, np.array([0.5, -1.0], np.float32), 'clipped', **named),
)
"""
    code = (
        f"import sys, numpy as np, fogzo_kernels as fk\narrays = np.load(r'{tmp_path}/in.npz')\n"
        f"w, grad, scale = (arrays[n] for n in ('w', 'grad', 'scale'))\n{body}"
        f"np.savez(r'{tmp_path}/out.npz', **results)\nprint('torch' in sys.modules, fk.backends())"
    )
    assert said(code, numpy_only) == "False ('cpu',)"
    names = {"w": w, "grad": grad, "scale": scale, "np": np, "fk": fk}
    with fk.use_backend("reference"):
        exec(body, names)
    got = np.load(tmp_path / "out.npz")
    assert sorted(got.files) == sorted(names["results"])
    for name, want in names["results"].items():
        assert_same(got[name], want, name)


@needs_native
def test_without_torch_what_has_no_native_kernel_says_so(numpy_only):
    code = (
        "import numpy as np, fogzo_kernels as fk\n"
        "try:\n    fk.compute_scale(np.ones((2, 4), np.float32), fk.Grid('sign'))\n"
        "except RuntimeError as error:\n    print(error)"
    )
    reason = fk.capabilities()["compute_scale"]["cpu"]
    if reason is None:
        pytest.skip("it has one")
    wanted = f"compute_scale: no backend takes this call: cpu: {reason}; reference: {NO_TORCH}"
    assert said(code, numpy_only) == wanted


@needs_native
def test_noise_is_a_numpy_array_where_there_is_no_torch(numpy_only):
    code = (
        "import fogzo_kernels as fk\n"
        "u = fk.noise((2, 3), 'identity', seed=1, step=0, tensor=0)\nprint(type(u).__module__)"
    )
    assert said(code, numpy_only) == "numpy"


def test_fogzo_without_torch_says_what_to_install():
    done = python("import fogzo")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last == "ImportError: fogzo needs torch >= 2.11: pip install torch"


def test_fogzo_with_an_older_torch_says_what_it_found(tmp_path):
    (tmp_path / "torch.py").write_text('__version__ = "2.10.1+cu128"\n')
    done = python("import fogzo", tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == (
        "ImportError: fogzo needs torch >= 2.11, found 2.10.1+cu128: pip install --upgrade torch"
    )


COMMAND = "import sys, fogzo_command\nsys.exit(fogzo_command.main({}))"


def test_the_command_without_torch_still_describes_the_kernels():
    lines = said(COMMAND.format(["info"])).splitlines()
    assert lines[-1] == "fogzo: not usable: fogzo needs torch >= 2.11: pip install torch"
    assert f"reference: not used: {NO_TORCH}" in lines
    assert any(line.startswith("CPU: ") for line in lines)
    info = json.loads(said(COMMAND.format(["info", "--json"])))
    assert info["backends"]["reference"] == NO_TORCH
    assert info["fogzo"] == "fogzo needs torch >= 2.11: pip install torch"
    assert said(COMMAND.format(["--version"])) == f"fogzo-kernels {fk.__version__}"


def test_the_command_without_torch_refuses_the_rest_with_a_line():
    done = python(COMMAND.format(["train", "mnist"]))
    assert done.returncode == 1
    assert done.stderr == "fogzo: fogzo needs torch >= 2.11: pip install torch\n"


def test_the_command_interrupted_while_torch_loads_is_one_line(tmp_path):
    (tmp_path / "torch.py").write_text("raise KeyboardInterrupt\n")
    done = python(COMMAND.format(["train", "mnist"]), tmp_path)
    assert (done.returncode, done.stderr) == (130, "fogzo: interrupted\n")


def test_the_command_with_torch_is_fogzos_own():
    assert "mnist in: " in said(COMMAND.format(["info"]), bare=False)


def test_torch_without_the_native_module_runs_on_the_reference():
    code = (
        f"{NO_NATIVE}\nimport torch, fogzo_kernels as fk\nprint(fk.backends())\n"
        "print(fk.quantize(torch.tensor([0.3]), torch.tensor(1.0), fk.Grid('sign')).tolist())"
    )
    site = Path(np.__file__).parents[1]
    assert said(code, site, bare=False) == "('reference',)\n[1]"


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_the_environment_names_the_backend(name):
    if (reason := fk.why_not(name)) is not None:
        pytest.skip(reason)
    code = (
        "import torch, fogzo_kernels as fk\n"
        "for _ in range(2):\n    fk.noise((4,), 'identity', seed=0, step=0, tensor=0)\n"
        "    fk.fake_quantize(torch.ones(3), torch.tensor(1.0), fk.Grid('sign'))"
    )
    done = python(code, bare=False, FOGZO_BACKEND=name, FOGZO_LOG="dispatch")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [f"fogzo: noise: {name}", f"fogzo: fake_quantize: {name}"]


def test_the_log_says_why_a_better_backend_was_passed_over():
    code = (
        f"{NO_NATIVE}\nimport fogzo_kernels as fk\n"
        "fk.noise((4,), 'identity', seed=0, step=0, tensor=0)"
    )
    done = python(code, bare=False, FOGZO_LOG="dispatch")
    assert done.stderr.splitlines() == [f"fogzo: noise: reference (cpu: {NOT_BUILT})"]


def test_an_unknown_name_in_the_environment_is_an_error():
    code = "import fogzo_kernels as fk\nfk.noise((4,), 'identity', seed=0, step=0, tensor=0)"
    done = python(code, bare=False, FOGZO_BACKEND="gpu")
    assert done.returncode == 1
    wanted = (
        "ValueError: FOGZO_BACKEND: value is 'gpu', expected one of cuda, triton, cpu, reference, "
        "auto"
    )
    assert done.stderr.strip().splitlines()[-1] == wanted
