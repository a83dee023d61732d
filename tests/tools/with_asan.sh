#!/bin/bash
# Runs a Python command with the sanitized _cpu of build/asan in place of the installed one.
# Usage: with_asan.sh COMMAND...
set -euo pipefail
site=$PWD/build/asan/site
rm -rf "$site"
mkdir -p "$site"
cp -r fogzo_kernels "$site/"
rm -f "$site"/fogzo_kernels/*.so
cp build/asan/out/_cpu*.so "$site/fogzo_kernels/"
preload="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so) $(g++ -print-file-name=libstdc++.so)"
# Leaks are the interpreter's own; a wrong access ends the process.
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:detect_odr_violation=0
export UBSAN_OPTIONS=print_stacktrace=1
export PYTHONPATH="$site:$PWD/python" PYTHONSAFEPATH=1 FOGZO_SANITIZED=1
LD_PRELOAD=$preload exec "$@"
