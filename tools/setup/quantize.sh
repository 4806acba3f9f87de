#!/usr/bin/env bash
# usage: quantize.sh MODEL_FOLDER PHOTO_FOLDER [OUT_FOLDER] [options]    tools/quantize_backbone.py, in an environment of its
# own, build/quantize-venv, which is made (once) from quantize-requirements.txt: nothing else needs these packages.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
venv=$root/build/quantize-venv
wanted=$root/tools/setup/quantize-requirements.txt
if ! cmp -s "$wanted" "$venv/installed-requirements.txt"; then
  echo "setup: installing the packages of tools/setup/quantize-requirements.txt in build/quantize-venv" >&2
  [ -x "$venv/bin/python" ] || /usr/bin/python3 -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$wanted"
  cp "$wanted" "$venv/installed-requirements.txt"
fi
exec "$venv/bin/python" "$root/tools/quantize_backbone.py" "$@"
