#!/bin/bash
# Builds the CPU code, its C++ tests and _cpu in a tree of its own.
# Usage: native_build.sh PYTHON DIR [SANITIZERS [TARGET...]]
set -euo pipefail
python=$1 tree=$2 sanitize=${3:-} targets=("${@:4}")
bin=$(dirname "$("$python" -c 'import sys; print(sys.executable)')")
mkdir -p "$tree"
if ! {
  PATH="$bin:$PATH" cmake -S . -B "$tree" -G Ninja -DFOGZO_TESTS=ON -DFOGZO_MODULES=ON -DFOGZO_LIBRARY=OFF -DFOGZO_CUDA=off \
    -DFOGZO_SANITIZE="$sanitize" -DCMAKE_BUILD_TYPE=Release "-DPython_EXECUTABLE=$("$python" -c 'import sys; print(sys.executable)')" \
    "-Dpybind11_DIR=$("$python" -m pybind11 --cmakedir)" "-DCMAKE_MAKE_PROGRAM=$bin/ninja" \
    "-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=$PWD/$tree/out" &&
    PATH="$bin:$PATH" cmake --build "$tree" --target "${targets[@]:-all}"
} >"$tree/build.log" 2>&1; then
  cat "$tree/build.log" >&2
  exit 1
fi
grep -A5 'warning:' "$tree/build.log" || true
