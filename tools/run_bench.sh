#!/usr/bin/env bash
# usage: run_bench.sh BUILD_DIR    the benchmarks, one JSON line a figure
set -euo pipefail
[ $# -eq 1 ] || { sed -n 2p "$0" >&2; exit 2; }
cd "$(dirname "$0")/.."
[ -x "$1/ndpipe" ] || { echo "bench: $1/ndpipe is not built: run make build" >&2; exit 1; }
exec "$1/ndpipe" bench all
