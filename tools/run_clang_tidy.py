#!/usr/bin/env python3
"""usage: run_clang_tidy.py BUILD_DIR [FILE.cc...]

Runs clang-tidy (.clang-tidy) over the project's own sources that BUILD_DIR compiles, in parallel. A source is skipped
when it, the project headers that it includes, its flags and the checks are as they were when it last passed: the
stamps lie in build/lint-cache, and may be deleted.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = ROOT / "build" / "lint-cache"
TOOL = ROOT / ".venv" / "bin" / "clang-tidy"
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"', re.MULTILINE)
INCLUDE_FLAG = re.compile(r"-(?:I|isystem )(\S+)")
FILE_TIMEOUT_S = 300


def project_headers(text, folders, seen):
    """Adds to `seen` the quoted headers, of the project or generated for it, that `text` leads to."""
    for name in INCLUDE.findall(text):
        for folder in folders:
            header = folder / name
            if header in seen:
                break
            if header.is_file():
                seen[header] = header.read_bytes()
                project_headers(seen[header].decode("utf-8", "replace"), folders, seen)
                break
    return seen


def stamp_of(entry, checks):
    """A digest of all that decides what clang-tidy says of one source."""
    source = pathlib.Path(entry["file"])
    text = source.read_bytes()
    folders = [pathlib.Path(folder) for folder in INCLUDE_FLAG.findall(entry["command"])]
    headers = project_headers(text.decode("utf-8", "replace"), folders, {})
    digest = hashlib.sha256(checks)
    for part in [entry["command"].encode(), text, *(headers[path] for path in sorted(headers))]:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def check(entry, build, checks):
    """(source, what clang-tidy says, or "" when it is clean, whether a stamp was there, seconds)"""
    source = os.path.relpath(entry["file"], ROOT)
    stamp = CACHE / stamp_of(entry, checks)
    if stamp.exists():
        return source, "", True, 0.0
    start = time.monotonic()
    try:
        result = subprocess.run([TOOL, "-p", build, "--quiet", entry["file"]], cwd=ROOT, capture_output=True,
                                text=True, timeout=FILE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return source, f"clang-tidy took longer than {FILE_TIMEOUT_S} s", False, FILE_TIMEOUT_S
    if result.returncode == 0:
        stamp.touch()
        return source, "", False, time.monotonic() - start
    return source, result.stdout.strip() or result.stderr.strip(), False, time.monotonic() - start


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    build = pathlib.Path(sys.argv[1]).resolve()
    wanted = {str(pathlib.Path(file).resolve()) for file in sys.argv[2:]}
    try:
        entries = json.loads((build / "compile_commands.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        print(f"lint: {build} has no compile_commands.json: run make build", file=sys.stderr)
        return 1
    generated = str(ROOT / "build") + os.sep
    entries = [entry for entry in entries
               if entry["file"].startswith(str(ROOT) + os.sep) and not entry["file"].startswith(generated)
               and (not wanted or entry["file"] in wanted)]
    if not entries:
        print("lint: no sources to check", file=sys.stderr)
        return 1
    CACHE.mkdir(parents=True, exist_ok=True)
    version = subprocess.run([TOOL, "--version"], capture_output=True, check=True).stdout
    checks = version + (ROOT / ".clang-tidy").read_bytes()
    num_bad = num_known = 0
    slowest = (0.0, "")
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for future in concurrent.futures.as_completed([pool.submit(check, entry, build, checks) for entry in entries]):
            source, said, known, seconds = future.result()
            num_known += known
            slowest = max(slowest, (seconds, source))
            if said:
                num_bad += 1
                print(f"-- {source}\n{said}", flush=True)
    print(f"clang-tidy: {len(entries)} sources, {num_known} unchanged since they passed, {num_bad} with findings" +
          (f"; the slowest took {slowest[0]:.0f} s ({slowest[1]})" if slowest[1] else ""))
    return 1 if num_bad else 0


if __name__ == "__main__":
    sys.exit(main())
