#!/usr/bin/env bash
# usage: lint.sh PRESET    format, layering and clang-tidy; builds first, because clang-tidy reads generated headers
set -euo pipefail
[ $# -eq 1 ] || { sed -n 2p "$0" >&2; exit 2; }
cd "$(dirname "$0")/.."
tools/setup/build.sh "$1"
failed=0
tools/format.sh --check || failed=1
/usr/bin/python3 tools/check_includes.py || failed=1
/usr/bin/python3 tools/run_clang_tidy.py "build/$1" || failed=1
[ $failed -eq 0 ] && echo "lint: clean" || { echo "lint: failed" >&2; exit 1; }
