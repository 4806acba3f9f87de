#!/usr/bin/env bash
# Makes build/peers-venv with what the peers need (requirements.txt). Runs again at no cost when nothing is missing.
#   PIP_INDEX_URL  the package index that pip uses, when not its default (the CPU-only index of LibTorch, a mirror)
set -euo pipefail
cd "$(dirname "$0")/../.."
say() { printf 'peers: %s\n' "$*"; }

environment=build/peers-venv
stamp=$environment/installed-requirements.txt
if ! cmp -s bench/peers/requirements.txt "$stamp"; then
  [ -x $environment/bin/python ] || { say "making the Python environment $environment"; /usr/bin/python3 -m venv $environment; }
  say "installing the Python packages of bench/peers/requirements.txt (some minutes the first time)"
  $environment/bin/python -m pip install --quiet --disable-pip-version-check -r bench/peers/requirements.txt
  cp bench/peers/requirements.txt "$stamp"
fi
# torch.compile builds C++ that includes Python.h; without it the PyTorch peer would fail later and less clearly.
header=$($environment/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["include"])')/Python.h
[ -f "$header" ] || { say "$header is missing, which torch.compile needs: install python3-dev" >&2; exit 1; }
command -v g++ >/dev/null || { say "g++ is missing, which torch.compile needs: run tools/setup/setup.sh" >&2; exit 1; }
