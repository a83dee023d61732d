#!/bin/bash
# What a machine with a GPU and no network can check in ten minutes: builds in place with this
# python's own cmake, ninja, pybind11 and setuptools, then tests, compute-sanitizer and the benches;
# rows go to OUT/rows.jsonl. Usage: gpu.sh PYTHON OUT; `fogzo bench --tune` comes after it.
set -uo pipefail
python=$1 out=$2
mkdir -p "$out"
export FOGZO_CUDA=on PYTHONPATH="$PWD:$PWD/python" PYTHONSAFEPATH=1
[ -d build/gpu-site ] || { mkdir -p build/gpu-site && ln -sfn "$PWD/bench" build/gpu-site/fogzo_bench; }
PYTHONPATH="$PYTHONPATH:$PWD/build/gpu-site"
failed=0

step() { # name, most seconds, command...
  local name=$1 most=$2
  shift 2
  echo "== $name"
  timeout -k 5 "$most" "$@" >"$out/$name.log" 2>&1 ||
    { failed=1 && echo "FAILED or longer than $most s, see $out/$name.log"; }
  tail -n 25 "$out/$name.log"
}

archs=$("$python" -c 'import torch; m, n = torch.cuda.get_device_capability(); print(f"{m}{n}" + "a" * (m >= 9) + "-real")') ||
  { echo "gpu: this python sees no CUDA device through torch" >&2 && exit 1; }
export CMAKE_ARGS="${CMAKE_ARGS:--DFOGZO_CUDA_ARCHS=$archs}"
step build 120 "$python" setup.py -q build_ext --inplace
[ "$failed" = 0 ] || exit 1
# Most of the time goes into compiling kernels, one process a core: eight parts side by side.
tests() {
  local parts=() status=0
  for i in 0 1 2 3 4 5 6 7; do
    FOGZO_SHARD=$i/8 "$python" -m pytest -m gpu -q -p no:cacheprovider tests >"$out/tests-$i.log" 2>&1 &
    parts+=($!)
  done
  for part in "${parts[@]}"; do wait "$part" || status=1; done
  tail -n 4 "$out"/tests-?.log
  return $status
}
export python out
export -f tests
step tests 200 bash -c tests
if command -v compute-sanitizer >/dev/null; then
  step memcheck 75 compute-sanitizer --error-exitcode 9 "$python" -m pytest -m gpu -q tests/test_native_cuda.py \
    tests/test_triton_gpu.py tests/test_probe_matmul_cuda.py
  step racecheck 60 compute-sanitizer --tool racecheck --error-exitcode 9 "$python" -m pytest -m gpu -q \
    -k "not float" tests/test_native_cuda.py tests/test_probe_matmul_cuda.py
else
  echo "gpu: no compute-sanitizer on PATH: memory accesses were not watched"
fi
# The tests have run: rows of every operation, then of steps, whose eager peers take longest.
step bench 150 "$python" -m fogzo.cli bench --device cuda --no-tests --repeat 20 --json "$out/rows.jsonl" \
  perturb_quantize probe_matmul assemble_gradient whitened_norm fake_quantize quantize pack noise \
  hadamard hadamard_quantize compute_scale quantize_activation
# The CUDA C++ kernels beside Triton's, in the same file; auto's table is made of both.
step bench-cuda 90 "$python" -m fogzo.cli bench --device cuda --backend cuda --no-tests --no-compile --repeat 20 \
  --json "$out/rows.jsonl" perturb_quantize probe_matmul assemble_gradient fake_quantize noise
step bench-step 60 "$python" -m fogzo.cli bench --device cuda --no-tests --no-compile --repeat 20 \
  --json "$out/rows.jsonl" step --model blocks
exit $failed
