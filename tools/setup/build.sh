#!/usr/bin/env bash
# usage: build.sh PRESET    configures (once), builds, and exports the pretrained backbone (once).
set -euo pipefail
cd "$(dirname "$0")/../.."
preset=$1
dir=build/$preset
if [ ! -f "$dir/build.ninja" ]; then
  echo "build: configuring $dir"
  cmake --preset "$preset" >"/tmp/ndpipe-configure.$$" 2>&1 || { cat "/tmp/ndpipe-configure.$$" >&2; exit 1; }
  rm -f "/tmp/ndpipe-configure.$$"
fi
echo "build: compiling $dir"
ninja -C "$dir" --quiet
if [ ! -f build/models/efficientnet-lite0/model.onnx ]; then
  echo "build: exporting EfficientNet-Lite0 with its ImageNet weights to build/models/efficientnet-lite0"
  .venv/bin/python tools/export_efficientnet_lite0.py build/models/efficientnet-lite0
fi
