#!/bin/bash
# Builds _cuda for the host with the emulator of tests/cuda_on_host, and the emulator's tests, in a tree of its own.
# Usage: cuda_host_build.sh PYTHON DIR [SANITIZERS]
set -euo pipefail
python=$1 tree=$2 sanitize=${3:-}
bin=$(dirname "$("$python" -c 'import sys; print(sys.executable)')")
mkdir -p "$tree"
if ! {
  PATH="$bin:$PATH" cmake -S . -B "$tree" -G Ninja -DFOGZO_CUDA_ON_HOST=ON -DFOGZO_MODULES=ON -DFOGZO_LIBRARY=OFF \
    -DFOGZO_SANITIZE="$sanitize" "-DPython_EXECUTABLE=$("$python" -c 'import sys; print(sys.executable)')" \
    "-Dpybind11_DIR=$("$python" -m pybind11 --cmakedir)" "-DCMAKE_MAKE_PROGRAM=$bin/ninja" \
    "-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=$PWD/$tree/out" -DCMAKE_BUILD_TYPE=Release &&
    PATH="$bin:$PATH" ninja -C "$tree" _cuda $(cd tests/cuda_on_host && ls *_test.cpp | sed 's/\.cpp$//')
} >"$tree/build.log" 2>&1; then
  cat "$tree/build.log" >&2
  exit 1
fi
grep -A5 'warning:' "$tree/build.log" || true
