#!/usr/bin/env bash
# Installs what building and testing need: the Debian packages of debian-packages.txt and, in .venv, the Python packages
# of python-requirements.txt. Runs again at no cost when nothing is missing.
#   PIP_INDEX_URL  the package index that pip uses, when not its default (the CPU-only index of LibTorch, a mirror)
set -euo pipefail
cd "$(dirname "$0")/../.."
say() { printf 'setup: %s\n' "$*"; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else
    say "cannot install packages: run as root, or install sudo" >&2
    exit 1
  fi
}

install_debian_packages() {
  local wanted missing=()
  wanted=$(grep -v '^#' tools/setup/debian-packages.txt)
  for package in $wanted; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  say "installing ${#missing[@]} Debian packages: ${missing[*]}"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

install_python_packages() {
  local stamp=.venv/installed-requirements.txt
  cmp -s tools/setup/python-requirements.txt "$stamp" && return
  # Debian's own interpreter, so that the environment does not depend on one that a user happens to have first in PATH.
  [ -x .venv/bin/python ] || { say "making the Python environment .venv"; /usr/bin/python3 -m venv .venv; }
  say "installing the Python packages of tools/setup/python-requirements.txt (some minutes the first time)"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r tools/setup/python-requirements.txt
  cp tools/setup/python-requirements.txt "$stamp"
}

install_debian_packages
install_python_packages
