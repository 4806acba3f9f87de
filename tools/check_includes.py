#!/usr/bin/env python3
"""usage: check_includes.py [--self-test]

Checks the layering of src/ndpipe (docs/architecture.md): a folder includes only itself and the folders above it, a
library's headers stay in the folder that wraps the library, every folder has a README.md, every header `#pragma once`.
"""

import pathlib
import re
import sys
import tempfile

# In the order of the layering; the folders of one row do not include each other.
LAYERS = [["base"], ["photo"], ["model"], ["engine"], ["extract"], ["train"], ["plan"], ["label"], ["rpc"],
          ["pipestore", "tuner"], ["gateway"], ["cli"]]
RANK = {folder: rank for rank, row in enumerate(LAYERS) for folder in row}

# Headers of a library, as a pattern over the included path, and the folders that may include them.
LIBRARY_HEADERS = [
    ("LibTorch", re.compile(r"(torch|ATen|c10|caffe2)/"), ["train", "engine/torch"]),
    ("OpenVINO", re.compile(r"openvino/"), ["engine/openvino"]),
    ("protobuf or gRPC", re.compile(r"(google/protobuf|grpc|grpcpp|grpc\+\+)/|.*\.pb\.h$"), ["rpc"]),
]
# One translation unit with two of these would hold two versions of fmt, or two of protobuf.
LIBTORCH = LIBRARY_HEADERS[0][1]
NOT_BESIDE_LIBTORCH = re.compile(r"(fmt|spdlog|google/protobuf|grpc|grpcpp)/|ndpipe/base/log\.h$|.*\.pb\.h$")

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.MULTILINE)


def lies_in(folder, allowed):
    return folder == allowed or folder.startswith(allowed + "/")


def check_file(path, root):
    """Yields what is wrong with one file of `root` (src/ndpipe)."""
    text = path.read_text(encoding="utf-8")
    folder = path.relative_to(root).parent.as_posix()
    top = folder.split("/")[0]
    if path.suffix == ".h" and "#pragma once" not in text:
        yield "has no #pragma once"
    includes = [(match[2], text.count("\n", 0, match.start()) + 1) for match in INCLUDE.finditer(text)]
    sees_libtorch = any(LIBTORCH.match(target) for target, _ in includes)
    for target, line in includes:
        if target.startswith("ndpipe/") and not target.endswith(".pb.h"):
            other = target.split("/")[1]
            if other not in RANK:
                yield f"line {line} includes {target}: {other} is no folder of the layering"
            elif other != top and RANK[other] >= RANK[top]:
                yield f"line {line} includes {target}: {top} may include only folders above it, and {other} is not"
        elif target.startswith("."):
            yield f"line {line} includes {target}: name it from src/"
        for library, pattern, allowed in LIBRARY_HEADERS:
            if pattern.match(target) and not any(lies_in(folder, place) for place in allowed):
                yield f"line {line} includes {target}: only {' and '.join(allowed)} may see {library}"
        if sees_libtorch and NOT_BESIDE_LIBTORCH.match(target):
            yield f"line {line} includes {target} beside LibTorch, which brings its own version"


def check_tree(root):
    """All that is wrong under `root`, as lines of text."""
    errors = []
    for folder in sorted(path for path in root.rglob("*") if path.is_dir()):
        name = folder.relative_to(root).as_posix()
        if not any(path.suffix in (".h", ".cc") for path in folder.iterdir()):
            continue
        if name.split("/")[0] not in RANK:
            errors.append(f"{folder}: is no folder of the layering; add it to tools/check_includes.py")
            continue
        if not (folder / "README.md").is_file():
            errors.append(f"{folder}: has no README.md that says why it exists and what belongs in it")
        for path in sorted(folder.iterdir()):
            if path.suffix in (".h", ".cc"):
                errors += [f"{path}: {error}" for error in check_file(path, root)]
    return errors


# (file, its text, what the error must say; "" where there must be none)
CASES = [
    ("base/a.h", "#pragma once\n#include <vector>\n", ""),
    ("base/a.h", "#include <vector>\n", "pragma once"),
    ("base/a.cc", '#include "ndpipe/photo/b.h"\n', "photo is not"),
    ("cli/a.cc", '#include "ndpipe/tuner/b.h"\n#include "ndpipe/rpc/b.h"\n', ""),
    ("photo/image/a.cc", '#include "ndpipe/photo/b.h"\n', ""),
    ("photo/image/a.cc", '  # include "ndpipe/train/b.h"\n', "train is not"),
    ("tuner/a.cc", '#include "ndpipe/pipestore/b.h"\n', "pipestore is not"),
    ("pipestore/a.cc", '#include "ndpipe/tuner/b.h"\n', "tuner is not"),
    ("label/a.cc", '#include "ndpipe/rpc/b.h"\n', "rpc is not"),
    ("base/a.cc", '#include "../photo/b.h"\n', "from src/"),
    ("base/a.cc", '#include "ndpipe/misc/b.h"\n', "no folder of the layering"),
    ("misc/a.cc", "\n", "no folder of the layering"),
    ("train/a.cc", "#include <ATen/core/Tensor.h>\n", ""),
    ("engine/torch/a.cc", "#include <torch/torch.h>\n", ""),
    ("engine/a.cc", "#include <torch/torch.h>\n", "may see LibTorch"),
    ("train/a.cc", "#include <c10/util/Half.h>\n#include <fmt/format.h>\n", "beside LibTorch"),
    ("train/a.cc", '#include <c10/util/Half.h>\n#include "ndpipe/base/log.h"\n', "beside LibTorch"),
    ("engine/openvino/a.cc", "#include <openvino/openvino.hpp>\n", ""),
    ("engine/a.cc", "#include <openvino/openvino.hpp>\n", "may see OpenVINO"),
    ("rpc/a.cc", '#include <grpcpp/grpcpp.h>\n#include "ndpipe/v1/tuner.pb.h"\n', ""),
    ("tuner/a.cc", "#include <grpcpp/grpcpp.h>\n", "may see protobuf or gRPC"),
    ("tuner/a.cc", '#include "ndpipe/v1/tuner.grpc.pb.h"\n', "may see protobuf or gRPC"),
]


def self_test():
    failures = 0
    for file, text, wanted in CASES:
        with tempfile.TemporaryDirectory() as root:
            path = pathlib.Path(root, file)
            path.parent.mkdir(parents=True)
            path.write_text(text, encoding="utf-8")
            (path.parent / "README.md").write_text("# a\n", encoding="utf-8")
            errors = check_tree(pathlib.Path(root))
        if (wanted == "" and errors) or (wanted and not any(wanted in error for error in errors)):
            print(f"check_includes: self-test: {file} with {text!r}: wanted {wanted!r}, got {errors}")
            failures += 1
    with tempfile.TemporaryDirectory() as root:
        pathlib.Path(root, "base").mkdir()
        pathlib.Path(root, "base/a.cc").write_text("\n", encoding="utf-8")
        if not any("README.md" in error for error in check_tree(pathlib.Path(root))):
            print("check_includes: self-test: a folder without README.md was let through")
            failures += 1
    print(f"check_includes: self-test: {len(CASES) + 1} cases, {failures} failed")
    return 1 if failures else 0


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    if sys.argv[1:]:
        print(__doc__, file=sys.stderr)
        return 2
    root = pathlib.Path(__file__).resolve().parent.parent / "src" / "ndpipe"
    num_files = sum(1 for path in root.rglob("*") if path.suffix in (".h", ".cc"))
    if num_files == 0:
        print(f"check_includes: no source files under {root}", file=sys.stderr)
        return 1
    errors = check_tree(root)
    for error in errors:
        print(error)
    print(f"check_includes: {num_files} files, {len(errors)} errors")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
