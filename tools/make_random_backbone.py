#!/usr/bin/env python3
"""Makes a backbone with random weights, for tests and for measuring speed: OUT_DIR/model.onnx and OUT_DIR/manifest.json.

usage: make_random_backbone.py NAME OUT_DIR [--seed N] [--opset N]

NAME: resnet50, vit-tiny, vit-small or vit-b16. Seeded. Batch-norm statistics, scales and gains are random too: with
those of a fresh model all photos give nearly the same logits, and a comparison of two engines would compare nothing.
"""

import argparse
import json
import pathlib
import shutil
import sys
import tempfile
import warnings

import torch
from torch import nn
from torch.nn import functional


class Bottleneck(nn.Module):
    """ResNet's block of three convolutions, the stride in the middle one (v1.5)."""

    def __init__(self, num_in: int, width: int, stride: int):
        super().__init__()
        num_out = width * 4
        self.conv1 = nn.Conv2d(num_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, num_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(num_out)
        self.shortcut = nn.Identity()
        if stride != 1 or num_in != num_out:
            self.shortcut = nn.Sequential(nn.Conv2d(num_in, num_out, 1, stride, bias=False), nn.BatchNorm2d(num_out))

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        return functional.relu(self.bn3(self.conv3(y)) + self.shortcut(x))


class ResNet50(nn.Module):
    def __init__(self, num_classes: int = 1000):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        blocks = []
        num_in = 64
        for stage, num_blocks in enumerate((3, 4, 6, 3)):
            width = 64 << stage
            for block in range(num_blocks):
                blocks.append(Bottleneck(num_in, width, 2 if block == 0 and stage > 0 else 1))
                num_in = width * 4
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(num_in, num_classes)

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = functional.adaptive_avg_pool2d(self.blocks(x), 1)
        return self.fc(torch.flatten(x, 1))


class Attention(nn.Module):
    """Multi-head self-attention, written out so that the graph holds plain operators."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.head_width = width // num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)

    def forward(self, x):
        num_tokens, width = x.shape[1], x.shape[2]
        qkv = self.qkv(x).reshape(-1, num_tokens, 3, self.num_heads, self.head_width).permute(2, 0, 3, 1, 4)
        scores = qkv[0] @ qkv[1].transpose(-2, -1) * self.head_width**-0.5
        mixed = torch.softmax(scores, dim=-1) @ qkv[2]
        return self.projection(mixed.transpose(1, 2).reshape(-1, num_tokens, width))


class Block(nn.Module):
    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))


class VisionTransformer(nn.Module):
    """ViT with patches of 16 × 16 and a class token."""

    def __init__(self, width: int, depth: int, num_heads: int, side: int = 224, num_classes: int = 1000):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.class_token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, (side // 16) ** 2 + 1, width))
        self.blocks = nn.Sequential(*(Block(width, num_heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


MODELS = {
    "resnet50": ResNet50,
    "vit-tiny": lambda: VisionTransformer(192, 12, 3),
    "vit-small": lambda: VisionTransformer(384, 12, 6),
    "vit-b16": lambda: VisionTransformer(768, 12, 12),
}


def randomise(model: nn.Module) -> None:
    """Weights that keep activations at about unit scale, and statistics that differ from channel to channel."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=(2.0 / fan_in) ** 0.5 if isinstance(module, nn.Conv2d) else fan_in**-0.5)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
        elif isinstance(module, nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)


def calibrate(model: nn.Module) -> None:
    """Sets batch-norm statistics to those of structured random input, so that no channel dies or explodes."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    coarse = torch.randn(16, 3, 28, 28)
    photos = functional.interpolate(coarse, size=224, mode="bilinear") + 0.3 * torch.randn(16, 3, 224, 224)
    for norm in norms:
        norm.momentum = None  # the plain average
        norm.reset_running_stats()
    model.train()
    with torch.no_grad():
        model(photos)
    model.eval()
    for norm in norms:  # away from the exact statistics, as those of a trained model are on new photos
        norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.8, 1.25)


def export(model: nn.Module, path: pathlib.Path, opset: int) -> None:
    with warnings.catch_warnings():
        # The exporter that needs no further package is the one called deprecated.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.zeros(2, 3, 224, 224),),
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}},
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(MODELS))
    parser.add_argument("out_dir", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--opset", type=int, default=17)
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    model = MODELS[arguments.name]().eval()
    randomise(model)
    calibrate(model)
    manifest = {
        "name": f"{arguments.name}-random",
        "preprocess": {"resize_short_side": 256, "crop_height": 224, "crop_width": 224, "interpolation": "bilinear"},
        "mean": [123.675, 116.28, 103.53],
        "std": [58.395, 57.12, 57.375],
    }
    out_dir = arguments.out_dir.absolute()
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{out_dir.name}-", dir=out_dir.parent))
    try:
        temporary.chmod(0o755)
        export(model, temporary / "model.onnx", arguments.opset)
        (temporary / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        if out_dir.exists():
            shutil.rmtree(out_dir)
        temporary.rename(out_dir)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
