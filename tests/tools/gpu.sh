#!/bin/bash
# What a machine with a GPU and no network can check in ten minutes: builds in place with this
# python's own cmake, ninja, pybind11 and setuptools, then tests, benches and compute-sanitizer, what
# tells most first. A step that takes too long is cut and the next one runs: the limits add up to less
# than ten minutes, and none reaches past the end. Every row is in OUT/rows.jsonl once it is measured.
# Usage: gpu.sh PYTHON OUT. `fogzo bench --tune --limit SECONDS` is a call of its own.
set -uo pipefail
python=$1 out=$2
mkdir -p "$out"
export FOGZO_CUDA=on PYTHONPATH="$PWD:$PWD/python" PYTHONSAFEPATH=1
[ -d build/gpu-site ] || { mkdir -p build/gpu-site && ln -sfn "$PWD/bench" build/gpu-site/fogzo_bench; }
PYTHONPATH="$PYTHONPATH:$PWD/build/gpu-site"
SECONDS=0 end=595 grace=5 failed=0

step() { # name, most seconds, command...
  local name=$1 most=$2 left=$((end - grace - SECONDS))
  shift 2
  [ "$left" -lt "$most" ] && most=$left
  echo "== $name, $SECONDS s after the start"
  [ "$most" -gt 0 ] || { failed=1 && echo "NOT RUN: the ten minutes are over" && return; }
  timeout -k $grace "$most" "$@" >"$out/$name.log" 2>&1 ||
    { failed=1 && echo "FAILED or cut after $most s, see $out/$name.log"; }
  tail -n 25 "$out/$name.log"
}

bench() { # step, most seconds, words of fogzo bench...
  local name=$1 most=$2
  shift 2
  step "$name" "$most" "$python" -m fogzo.cli bench --device cuda --no-tests --repeat 20 \
    --json "$out/rows.jsonl" "$@"
}

archs=$("$python" -c 'import torch; m, n = torch.cuda.get_device_capability(); print(f"{m}{n}" + "a" * (m >= 9) + "-real")') ||
  { echo "gpu: this python sees no CUDA device through torch" >&2 && exit 1; }
export CMAKE_ARGS="${CMAKE_ARGS:--DFOGZO_CUDA_ARCHS=$archs}"
step build 110 "$python" setup.py -q build_ext --inplace
# Most of the time goes into compiling kernels, one process a core: eight parts side by side.
tests() {
  local parts=() status=0
  for i in 0 1 2 3 4 5 6 7; do
    FOGZO_SHARD=$i/8 "$python" -m pytest -m gpu -q -p no:cacheprovider tests >"$out/tests-$i.log" 2>&1 &
    parts+=($!)
  done
  for part in "${parts[@]}"; do wait "$part" || status=1; done
  return $status
}
export python out
export -f tests
step tests 170 bash -c tests
tail -n 4 "$out"/tests-?.log
bench bench 110 perturb_quantize probe_matmul assemble_gradient whitened_norm fake_quantize quantize \
  hadamard hadamard_quantize quantize_activation noise pack compute_scale
# The CUDA C++ kernels beside Triton's, in the same file; auto's table is made of both.
bench bench-cuda 45 --backend cuda --no-compile perturb_quantize probe_matmul assemble_gradient fake_quantize noise
if command -v compute-sanitizer >/dev/null; then
  step memcheck 50 compute-sanitizer --error-exitcode 9 "$python" -m pytest -m gpu -q tests/test_native_cuda.py tests/test_triton_gpu.py
  step racecheck 30 compute-sanitizer --tool racecheck --error-exitcode 9 "$python" -m pytest -m gpu -q tests/test_native_cuda.py
else
  echo "gpu: no compute-sanitizer on PATH: memory accesses were not watched"
fi
# Steps come last: their eager peers take longest.
bench bench-step 45 --no-compile step --model blocks
echo "== $SECONDS s; $(cat "$out/rows.jsonl" 2>/dev/null | wc -l) rows in $out/rows.jsonl"
exit $failed
