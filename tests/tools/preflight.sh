#!/bin/bash
# Names what is missing before anything is downloaded. Usage: preflight.sh PYTHON
set -euo pipefail
python=$1
apt="apt-get install -y g++ python3-dev python3-venv"

if ! command -v "$python" >/dev/null; then
  echo "make: $python not found, expected Python >= 3.11. Debian: $apt" >&2
  exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "make: $python is $("$python" -V 2>&1), expected Python >= 3.11 (PYTHON=python3.12 names another)" >&2
  exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  echo "make: $python has no venv module. Debian: apt-get install -y python3-venv" >&2
  exit 1
fi
if ! command -v "${CXX:-g++}" >/dev/null; then
  echo "make: no C++ compiler. Debian: $apt" >&2
  exit 1
fi
header='import pathlib, sys, sysconfig; sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())'
if ! "$python" -c "$header"; then
  echo "make: no Python.h: the native kernels will not be built and everything runs on the slow" >&2
  echo "reference. Debian: apt-get install -y python3-dev" >&2
fi
