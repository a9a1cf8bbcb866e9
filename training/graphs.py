"""Networks as ONNX files: one file, standard operators, any batch, bytes at both ends.

Wraps G (and an encoder, where it has one) with the conversion between bytes and [-1, 1], so that
nothing is left to do outside the graph. Knows no bundle and no file.
"""

from collections.abc import Mapping

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from models.latents import latents
from models.networks import Encoding, Mapped
from training.errors import ExportError

OPSET = 20
MEAN_W_SEEDS = 10_000
_ROWS_AT_A_TIME = 1000


class UInt8Generator(nn.Module):
    """G with the conversion to bytes."""

    def __init__(self, G: nn.Module) -> None:
        super().__init__()
        self.G = G

    def forward(self, z: Tensor, label: Tensor | None = None, psi: Tensor | None = None) -> Tensor:
        """Z [N, z_dim] (+ label [N]) to [N, H, W, C] uint8; psi is not looked at."""
        return to_bytes(self.G(z, label))


class TruncatedGenerator(nn.Module):
    """A `Mapped` G that takes psi, which pulls w towards its mean (Karras et al. 2019, sec. B)."""

    w_mean: Tensor

    def __init__(self, mapping: nn.Module, synthesis: nn.Module, w_mean: Tensor) -> None:
        """w_mean: [w_dim], or [num_classes, w_dim]."""
        super().__init__()
        self.mapping = mapping
        self.synthesis = synthesis
        self.register_buffer("w_mean", w_mean)

    def forward(self, z: Tensor, label: Tensor | None = None, psi: Tensor | None = None) -> Tensor:
        """Z [N, z_dim] (+ label [N]) and psi [N] to [N, H, W, C] uint8; no psi stands for ones."""
        w = self.mapping(z, label)
        if psi is not None:
            w_mean = self.w_mean if label is None else self.w_mean[label]
            w = w_mean + psi[:, None] * (w - w_mean)
        return to_bytes(self.synthesis(w))


ByteGenerator = UInt8Generator | TruncatedGenerator


class UInt8Encoder(nn.Module):
    """An encoder of bytes: uint8 NHWC images to the posterior's mean, the z they are made of."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        """[N, H, W, C] uint8 (+ label [N]) to z [N, z_dim] float32."""
        img = image.permute(0, 3, 1, 2).to(torch.float32).sub(127.5).div(127.5)
        mu: Tensor = self.encoder(img, label)[0]
        return mu


def to_bytes(img: Tensor) -> Tensor:
    """[N, C, H, W] about [-1, 1] to [N, H, W, C] uint8, rounded half to even, clamped."""
    return ((img + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def byte_generator(G: nn.Module, *, z_dim: int, num_classes: int) -> ByteGenerator:
    """What is exported of a generator on the CPU in evaluation mode."""
    if isinstance(G, Mapped):
        w_mean = mean_w(G.mapping, z_dim=z_dim, num_classes=num_classes)
        return TruncatedGenerator(G.mapping, G.synthesis, w_mean).eval()
    return UInt8Generator(G).eval()


def byte_encoder(G: nn.Module) -> UInt8Encoder | None:
    """What is exported of a generator's encoder; None where it has none."""
    return UInt8Encoder(G.encoder).eval() if isinstance(G, Encoding) else None


@torch.no_grad()
def mean_w(mapping: nn.Module, *, z_dim: int, num_classes: int) -> Tensor:
    """Mean w over MEAN_W_SEEDS latents of the contract: [w_dim], or [num_classes, w_dim]."""
    z = torch.from_numpy(latents(np.arange(MEAN_W_SEEDS, dtype=np.uint64), z_dim))

    def of_class(label: int | None) -> Tensor:
        parts = []
        for rows in torch.split(z, _ROWS_AT_A_TIME):
            labels = None if label is None else torch.full((len(rows),), label)
            parts.append(mapping(rows, labels).double().sum(0))
        return torch.stack(parts).sum(0).div(len(z)).float()

    if not num_classes:
        return of_class(None)
    return torch.stack([of_class(label) for label in range(num_classes)])


def to_onnx(G: ByteGenerator, z_dim: int, *, conditional: bool) -> bytes:
    """The ONNX file of a generator on the CPU.

    Raises:
        ExportError: torch or onnx refuses; it says why.
    """
    given = {"z": torch.zeros(2, z_dim)}
    if conditional:
        given["label"] = torch.zeros(2, dtype=torch.int64)
    if isinstance(G, TruncatedGenerator):
        given["psi"] = torch.ones(2)
    return _convert(G, given, output="image", what="generator")


def encoder_to_onnx(encoder: UInt8Encoder, image: Tensor, *, conditional: bool) -> bytes:
    """The ONNX file of an encoder on the CPU. image: any two, [2, H, W, C] uint8.

    Raises:
        ExportError: torch or onnx refuses; it says why.
    """
    given = {"image": image}
    if conditional:
        given["label"] = torch.zeros(2, dtype=torch.int64)
    return _convert(encoder, given, output="z", what="encoder")


def _convert(module: nn.Module, given: Mapping[str, Tensor], *, output: str, what: str) -> bytes:
    """given: arguments of forward, of two rows each, by name and in its order."""
    try:
        batch = {0: torch.export.Dim("batch")}
        others = {0: torch.export.Dim.DYNAMIC}
        program = torch.onnx.export(
            module,
            kwargs=dict(given),
            dynamo=True,
            input_names=list(given),
            output_names=[output],
            dynamic_shapes={name: others if i else batch for i, name in enumerate(given)},
            opset_version=OPSET,
            verbose=False,
        )
        if program is None:
            raise ExportError("torch.onnx.export gave no program")
        model = program.model_proto
        _strip(model)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the exporter's own errors share no base but this
        raise ExportError(
            f"the {what} can't be exported to ONNX: {error}; use only operations that "
            "torch.onnx.export supports"
        ) from error
    foreign = {node.domain for node in model.graph.node} - {"", "ai.onnx"}
    if foreign or model.functions:
        raise ExportError(
            f"the {what}'s graph uses operators outside the ONNX standard ({sorted(foreign)}); "
            "replace the operations that need them"
        )
    return bytes(model.SerializeToString())


def _strip(model: onnx.ModelProto) -> None:
    """Takes the exporter's notes out: stack traces that name the folders of this machine."""
    graph = model.graph
    records = [model, graph, *graph.node, *graph.initializer, *graph.value_info]
    for record in [*records, *graph.input, *graph.output]:
        record.ClearField("metadata_props")
        record.ClearField("doc_string")
