#!/usr/bin/env python3
"""What ONNX Runtime makes of an exported model: the tests of deep tails compare with it.

usage: export_oracle.py MODEL.onnx PHOTOS.raw LOGITS.raw CLASSES

PHOTOS: float32 [n, 3, height, width], normalised. Writes LOGITS: float32 [n, CLASSES], one photo at a time, and fails
unless all photos at once give the same where the model takes them.
"""

import json
import sys

import numpy as np
import onnx
import onnxruntime


def main() -> None:
    model, photos_file, logits_file, classes = sys.argv[1:5]
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    given, made = session.get_inputs()[0], session.get_outputs()[0]
    photos = np.fromfile(photos_file, np.float32).reshape(-1, *given.shape[1:])
    logits = np.concatenate([session.run(None, {given.name: photo[None]})[0] for photo in photos])
    assert len(session.get_outputs()) == 1 and made.type == "tensor(float)"
    assert logits.shape == (len(photos), int(classes)), logits.shape
    names = json.loads(session.get_modelmeta().custom_metadata_map["ndpipe.class_names"])
    assert names == [f"class {i}" for i in range(int(classes))]
    if given.shape[0] != 1:
        together = session.run(None, {given.name: photos})[0]
        np.testing.assert_allclose(together, logits, atol=1e-4 * np.abs(logits).max())
    logits.tofile(logits_file)


if __name__ == "__main__":
    main()
