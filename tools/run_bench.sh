#!/usr/bin/env bash
# usage: run_bench.sh BUILD_DIR [PHOTO_FOLDER]    the benchmarks, one JSON line a figure; half an hour
# Photos are generated where no folder is given. The lines are also kept in BUILD_DIR/bench/.
set -euo pipefail
[ $# -ge 1 ] && [ $# -le 2 ] || { sed -n 2,3p "$0" >&2; exit 2; }
cd "$(dirname "$0")/.."
build=$1
photos=${2:-}
[ -x "$build/ndpipe" ] || { echo "bench: $build/ndpipe is not built: run make build" >&2; exit 1; }

resnet=build/models/resnet50-random
[ -f "$resnet/manifest.json" ] || .venv/bin/python tools/make_random_backbone.py resnet50 "$resnet" >&2
vit=build/models/vit-b16-random
[ -f "$vit/manifest.json" ] || .venv/bin/python tools/make_random_backbone.py vit-b16 "$vit" >&2
precisions=fp32
grep -q -w -E 'avx512_bf16|amx_bf16' /proc/cpuinfo && precisions="fp32 bf16"

mkdir -p "$build/bench"
lines=$build/bench/$(date -u +%Y-%m-%dT%H%M%SZ).jsonl
bench() { "$build/ndpipe" bench "$@" | tee -a "$lines"; }

bench codecs efficientnet-lite0 "$photos"
bench catalog
bench balance
bench derived
bench delta -- --folder "$build/bench" efficientnet-lite0 "$resnet" "$vit"
if [ -f build/models/efficientnet-lite0/int8/manifest.json ]; then
  bench int8 efficientnet-lite0 build/models/efficientnet-lite0/int8 "$photos"
else
  echo "bench: int8 left out: tools/quantize_backbone.py makes build/models/efficientnet-lite0/int8" >&2
fi
for model in efficientnet-lite0 "$resnet"; do
  bench relabel -- --folder "$build/bench" "$model" "$photos" "${precisions##* }"
done
bench relabel -- --folder "$build/bench" million
bench engine efficientnet-lite0 "$resnet"
for model in efficientnet-lite0 "$resnet"; do
  for precision in $precisions; do bench pipeline "$model" "$photos" "$precision"; done
done
if [ -d build/peers-venv ] && [ -n "$photos" ]; then
  for model in build/models/efficientnet-lite0 "$resnet"; do
    bench/peers/run.py --program "$build/ndpipe" --model "$model" --photos "$photos" \
      --settings build/peers-settings.json | tee -a "$lines"
  done
else
  echo "bench: peers left out: see bench/peers/README.md" >&2
fi
echo "bench: the lines are in $lines" >&2
