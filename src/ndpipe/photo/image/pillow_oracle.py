"""Writes synthetic photos of every format, mode and orientation, and what Pillow makes of them.

    pillow_oracle.py FOLDER [PHOTOS.tar]

FOLDER/cases.txt has a line a case: file, short side, crop height, crop width, interpolation. FILE.EXPECTED holds the
case's uint8 [height, width, 3]. The test beside this file compares Preprocess() with them.
"""

import io
import pathlib
import sys
import tarfile

import numpy as np
from PIL import Image, ImageOps

RULES = [(256, 224, 224, "bicubic"), (63, 40, 57, "bilinear")]
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
PNG_MODES = ["1", "L", "LA", "P", "RGB", "RGBA"]


def scene(width: int, height: int) -> Image.Image:
    """Waves, edges and noise: smooth and sharp parts, all colours."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    channels = [127 + 120 * np.sin(x / (5 + c * 7) + y / (11 - c * 3)) for c in range(3)]
    picture = np.stack(channels, axis=-1)
    picture[height // 3 : height // 2, width // 4 : width // 2] = (250, 20, 90)
    picture += np.random.default_rng(width * 7919 + height).normal(0, 12, picture.shape)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def preprocess(data: bytes, short_side: int, crop_height: int, crop_width: int, interpolation: str) -> bytes:
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode.startswith("I"):
        # Pillow clips 16-bit grey to white; Preprocess() takes the high byte.
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    image = image.convert("RGB")
    width, height = image.size
    short = min(width, height)
    size = (short_side * width // short, short_side * height // short)
    image = image.resize(size, FILTERS[interpolation])
    left, top = round((size[0] - crop_width) / 2), round((size[1] - crop_height) / 2)
    return image.crop((left, top, left + crop_width, top + crop_height)).tobytes()


def encode(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def oriented(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def photos():
    sizes = [(500, 375), (375, 500), (333, 257), (32, 32), (1, 1), (7, 300), (641, 480)]
    for width, height in sizes:
        yield f"size-{width}x{height}.png", encode(scene(width, height), "PNG")
        yield f"size-{width}x{height}.jpg", encode(scene(width, height), "JPEG", quality=90)
    picture = scene(401, 300)
    for orientation in range(1, 9):
        exif = oriented(orientation)
        yield f"orient{orientation}.png", encode(picture, "PNG", exif=exif)
        yield f"orient{orientation}.jpg", encode(picture, "JPEG", exif=exif)
        yield f"orient{orientation}.webp", encode(picture, "WEBP", exif=exif, lossless=True)
    for mode in PNG_MODES:
        converted = picture.convert(mode)
        if mode in ("LA", "RGBA"):
            converted.putalpha(picture.convert("L"))
        yield f"mode-{mode}.png", encode(converted, "PNG")
    grey16 = np.asarray(picture.convert("L")).astype(np.uint16) * 251 + 99
    yield "grey16.png", encode(Image.fromarray(grey16), "PNG")
    yield "palette16.png", encode(picture.quantize(11), "PNG", bits=4)
    yield "transparent-palette.png", encode(picture.quantize(100), "PNG", transparency=3)
    for mode in ("L", "CMYK"):
        yield f"mode-{mode}.jpg", encode(picture.convert(mode), "JPEG")
    yield "rgb-stored.jpg", encode(picture, "JPEG", keep_rgb=True)
    for subsampling in range(3):
        yield f"sub{subsampling}.jpg", encode(picture, "JPEG", subsampling=subsampling, quality=85)
        yield f"progressive{subsampling}.jpg", encode(picture, "JPEG", subsampling=subsampling, progressive=True)
    yield "restarts.jpg", encode(picture, "JPEG", restart_marker_rows=1)
    yield "lossy.webp", encode(picture, "WEBP", quality=80)
    alpha = picture.copy()
    alpha.putalpha(picture.convert("L"))
    yield "alpha.webp", encode(alpha, "WEBP", lossless=True, exact=True)
    # Large enough to be decoded at a reduced scale.
    smooth = picture.resize((2003, 1501), Image.Resampling.BICUBIC)
    yield "scaled.jpg", encode(smooth, "JPEG", quality=92)
    yield "scaled-turned.jpg", encode(smooth, "JPEG", quality=92, exif=oriented(6))


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    samples = list(photos())
    if len(sys.argv) > 2:
        with tarfile.open(sys.argv[2]) as archive:
            files = (member for member in archive if member.isfile())
            samples += [("real-" + pathlib.Path(f.name).name, archive.extractfile(f).read()) for f in files]
    lines = []
    for name, data in samples:
        (folder / name).write_bytes(data)
        for index, rule in enumerate(RULES[:1] if name.startswith("real-") else RULES):
            (folder / f"{name}.{index}").write_bytes(preprocess(data, *rule))
            lines.append(f"{name} {index} " + " ".join(str(part) for part in rule))
    (folder / "cases.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
