#!/usr/bin/env bash
# usage: run_tests.sh BUILD_DIR    every test of a built tree: layering, then ctest
set -euo pipefail
[ $# -eq 1 ] || { sed -n 2p "$0" >&2; exit 2; }
cd "$(dirname "$0")/.."
build=$1
[ -f "$build/CTestTestfile.cmake" ] || { echo "tests: $build is not built: run make build" >&2; exit 1; }

/usr/bin/python3 tools/check_includes.py --self-test
/usr/bin/python3 tools/check_includes.py

# Two at a time: some tests start servers that load all cores. --no-tests: a tree without tests must not look tested.
# ctest ends with its own summary, which stays the last thing printed.
ctest --test-dir "$build" --parallel 2 --output-on-failure --no-tests=error
