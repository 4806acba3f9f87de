#!/usr/bin/env python3
"""What ONNX Runtime makes of photos at several cuts of a backbone: the engines' tests compare with it.

usage: ort_oracle.py MODEL_FOLDER PHOTOS OUT_FOLDER

MODEL_FOLDER: model.onnx and manifest.json. PHOTOS: uint8 [n, height, width, 3] of the manifest's crop size, raw.
Writes OUT_FOLDER/cuts.txt, one "index name" a line: the graph's single-tensor edges at a third and at two thirds of its
depth that are no vectors, the last one before the logits, and the logits; and OUT_FOLDER/<index>.raw, float32
[n, elements of the cut], for each.
"""

import json
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime


def single_tensor_edges(graph: onnx.GraphProto) -> list[str]:
    """The tensors that all paths of photo data run through, in order. Shapes are no photo data."""
    last_use = {name: i for i, node in enumerate(graph.node) for name in node.input}
    live = {graph.input[0].name}
    edges = []
    for i, node in enumerate(graph.node):
        if node.op_type == "Shape" or not live & set(node.input):
            continue
        live |= set(node.output)
        live = {name for name in live if last_use.get(name, -1) > i or name == graph.output[0].name}
        if len(live) == 1:
            edges += live
    return edges


def choose_cuts(model: onnx.ModelProto) -> list[str]:
    inferred = onnx.shape_inference.infer_shapes(model)
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in inferred.graph.value_info}
    edges = single_tensor_edges(model.graph)
    wide = [name for name in edges if ranks.get(name, 0) > 2]
    return [wide[len(wide) // 3], wide[2 * len(wide) // 3], edges[-2], edges[-1]]


def main() -> None:
    folder, photos_file, out = (pathlib.Path(argument) for argument in sys.argv[1:4])
    manifest = json.loads((folder / "manifest.json").read_text())
    height, width = (manifest["preprocess"][f"crop_{side}"] for side in ("height", "width"))
    photos = np.fromfile(photos_file, np.uint8).reshape(-1, height, width, 3).astype(np.float32)
    inputs = (photos - np.float32(manifest["mean"])) / np.float32(manifest["std"])
    inputs = np.ascontiguousarray(inputs.transpose(0, 3, 1, 2))

    model = onnx.load(folder / "model.onnx")
    cuts = choose_cuts(model)
    known = {output.name for output in model.graph.output}
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(cut, onnx.TensorProto.FLOAT, None) for cut in cuts if cut not in known
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    # One photo at a time: an oracle that batches would hide what batching changes.
    features = [session.run(cuts, {model.graph.input[0].name: inputs[i : i + 1]}) for i in range(len(inputs))]
    lines = []
    for index, cut in enumerate(cuts):
        np.concatenate([photo[index].reshape(1, -1) for photo in features]).tofile(out / f"{index}.raw")
        lines.append(f"{index} {cut}\n")
    (out / "cuts.txt").write_text("".join(lines))


if __name__ == "__main__":
    main()
