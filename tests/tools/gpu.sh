#!/bin/bash
# What a machine with a GPU and no network can check: builds in place with this python's own cmake,
# ninja, pybind11 and setuptools, then tests, compute-sanitizer and the bench. Usage: gpu.sh PYTHON OUT
set -uo pipefail
python=$1 out=$2
mkdir -p "$out"
export FOGZO_CUDA=on PYTHONPATH="$PWD:$PWD/python" PYTHONSAFEPATH=1
[ -d build/gpu-site ] || { mkdir -p build/gpu-site && ln -sfn "$PWD/bench" build/gpu-site/fogzo_bench; }
PYTHONPATH="$PYTHONPATH:$PWD/build/gpu-site"
failed=0

step() { # name, command...
  local name=$1
  shift
  echo "== $name"
  "$@" >"$out/$name.log" 2>&1 || { failed=1 && echo "FAILED, see $out/$name.log"; }
  tail -n 25 "$out/$name.log"
}

archs=$("$python" -c 'import torch; m, n = torch.cuda.get_device_capability(); print(f"{m}{n}" + "a" * (m >= 9) + "-real")') ||
  { echo "gpu: this python sees no CUDA device through torch" >&2 && exit 1; }
export CMAKE_ARGS="${CMAKE_ARGS:--DFOGZO_CUDA_ARCHS=$archs}"
step build "$python" setup.py -q build_ext --inplace
[ "$failed" = 0 ] || exit 1
step tests "$python" -m pytest -m gpu -q tests
if command -v compute-sanitizer >/dev/null; then
  step memcheck compute-sanitizer --error-exitcode 9 "$python" -m pytest -m gpu -q tests/test_native_cuda.py tests/test_triton_gpu.py
  step racecheck compute-sanitizer --tool racecheck --error-exitcode 9 "$python" -m pytest -m gpu -q tests/test_native_cuda.py
else
  echo "gpu: no compute-sanitizer on PATH: memory accesses were not watched"
fi
step bench "$python" -m fogzo.cli bench noise
exit $failed
