#!/usr/bin/env bash
# usage: format.sh [--check]    formats every .cc and .h that git knows; --check changes nothing and fails on a difference
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1-}" in
  "") mode=(-i) ;;
  --check) mode=(--dry-run --Werror) ;;
  *) sed -n 2p "$0" >&2; exit 2 ;;
esac
tool=.venv/bin/clang-format
[ -x $tool ] || { echo "format: $tool is missing: run tools/setup/setup.sh" >&2; exit 1; }
# Tracked files and new ones, less those deleted in the working tree.
mapfile -t files < <(git ls-files -co --exclude-standard -- '*.cc' '*.h' | while read -r f; do [ -f "$f" ] && echo "$f"; done)
[ ${#files[@]} -gt 0 ] || { echo "format: no source files" >&2; exit 1; }
printf '%s\0' "${files[@]}" | xargs -0 -n 16 -P "$(nproc)" $tool "${mode[@]}" ||
  { echo "format: not formatted (make format does it)" >&2; exit 1; }
echo "format: ${#files[@]} files${1:+, as they should be}"
