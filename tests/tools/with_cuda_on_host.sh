#!/bin/bash
# Runs a Python command with the _cuda of build/cuda_host, which takes CPU tensors for a GPU's, under the sanitizers.
# Usage: with_cuda_on_host.sh COMMAND...
set -euo pipefail
FOGZO_CUDA_ON_HOST=$(echo "$PWD"/build/cuda_host/out/_cuda*.so)
export FOGZO_CUDA_ON_HOST OMP_NUM_THREADS=1
preload="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so) $(g++ -print-file-name=libstdc++.so)"
# Leaks are the interpreter's own; a wrong access ends the process.
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:detect_odr_violation=0:detect_stack_use_after_return=0
export UBSAN_OPTIONS=print_stacktrace=1
LD_PRELOAD=$preload exec "$@"
