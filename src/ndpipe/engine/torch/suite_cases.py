#!/usr/bin/env python3
"""Writes the node cases of the onnx package, which follow later opsets than Debian's files, in the same layout.

usage: suite_cases.py OUT_FOLDER

OUT_FOLDER/NAME/model.onnx, OUT_FOLDER/NAME/test_data_set_0/{input,output}_N.pb. Only cases of plain tensors.
"""

import pathlib
import sys
import warnings

import numpy as np
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases


def write_tensors(folder: pathlib.Path, kind: str, values) -> None:
    for index, value in enumerate(values):
        tensor = numpy_helper.from_array(np.asarray(value))
        (folder / f"{kind}_{index}.pb").write_bytes(tensor.SerializeToString())


def main() -> None:
    out = pathlib.Path(sys.argv[1])
    for case in collect_testcases(None):
        inputs, outputs = case.data_sets[0]
        if not all(isinstance(value, (np.ndarray, np.generic)) for value in [*inputs, *outputs]):
            continue
        folder = out / case.name / "test_data_set_0"
        folder.mkdir(parents=True)
        (folder.parent / "model.onnx").write_bytes(case.model.SerializeToString())
        write_tensors(folder, "input", inputs)
        write_tensors(folder, "output", outputs)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
