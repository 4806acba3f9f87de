"""What every peer does alike before its model: the model's manifest, and a photo made network input by Pillow."""

import dataclasses
import json
import pathlib
import time

import numpy as np
from PIL import Image

INTERPOLATIONS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
DECODES = ("full", "scaled")


@dataclasses.dataclass(frozen=True)
class Model:
    """A backbone's folder and the part of its manifest that a peer needs."""

    folder: pathlib.Path
    name: str
    short_side: int
    crop: tuple[int, int]  # height, width
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def onnx_file(self) -> pathlib.Path:
        return self.folder / "model.onnx"


def read_model(folder: pathlib.Path) -> Model:
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    rule = manifest["preprocess"]
    return Model(
        folder=folder,
        name=manifest["name"],
        short_side=rule["resize_short_side"],
        crop=(rule["crop_height"], rule["crop_width"]),
        interpolation=rule["interpolation"],
        mean=tuple(manifest["mean"]),
        std=tuple(manifest["std"]),
    )


class Decoder:
    """Photo file -> uint8 HWC, as torchvision's Resize and CenterCrop would make it.

    decode: "full" is what people write; "scaled" lets libjpeg leave out what the resize would throw away
    (Pillow's draft), which few know and which is faster. Threads may share one; it can be pickled.
    """

    def __init__(self, model: Model, decode: str):
        if decode not in DECODES:
            raise ValueError(f"decode {decode!r}: one of {', '.join(DECODES)} expected")
        self.model = model
        self.decode = decode

    def __call__(self, path: str) -> np.ndarray:
        with Image.open(path) as photo:
            side = self.model.short_side
            if self.decode == "scaled":
                photo.draft("RGB", (side, side))
            rgb = photo.convert("RGB")
        width, height = rgb.size
        if width < height:
            size = (side, int(side * height / width))
        else:
            size = (int(side * width / height), side)
        rgb = rgb.resize(size, INTERPOLATIONS[self.model.interpolation])
        crop_height, crop_width = self.model.crop
        left = round((size[0] - crop_width) / 2)
        top = round((size[1] - crop_height) / 2)
        return np.asarray(rgb.crop((left, top, left + crop_width, top + crop_height)))

    def batch(self, paths: list[str], size: int | None = None) -> tuple[np.ndarray, float]:
        """The photos as [size, height, width, 3], the last ones zero where paths are fewer, and the thread's CPU seconds."""
        started = time.thread_time()
        pixels = np.zeros((size or len(paths), *self.model.crop, 3), np.uint8)
        for i, path in enumerate(paths):
            pixels[i] = self(path)
        return pixels, time.thread_time() - started


def batches_of(paths: list[str], size: int) -> list[list[str]]:
    return [paths[i : i + size] for i in range(0, len(paths), size)]


def top1(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class index and softmax confidence of each row."""
    logits = logits.astype(np.float32)
    best = logits.argmax(axis=1)
    highest = logits[np.arange(len(best)), best]
    return best, 1 / np.exp(logits - highest[:, None]).sum(axis=1)
