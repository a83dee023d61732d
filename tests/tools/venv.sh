#!/bin/bash
# Makes or updates a virtual environment: torch first, by itself, so that nothing replaces it.
# Usage: venv.sh PYTHON DIR TORCH_REQUIREMENT PIP_ARGUMENT...
set -euo pipefail
python=$1 dir=$2 torch=$3
shift 3
export PIP_DISABLE_PIP_VERSION_CHECK=1
[ -x "$dir/bin/python" ] || "$python" -m venv "$dir"
echo "installing $torch into $dir"
# shellcheck disable=SC2086  # TORCH may hold several words, such as an index option
"$dir/bin/python" -m pip install --quiet $torch
echo "installing $*"
"$dir/bin/python" -m pip install --quiet "$@"
