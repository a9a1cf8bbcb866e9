"""Converts networks to ONNX: one file, standard operators, any batch size, uint8 images.

G, and its encoder where it has one, are wrapped with the conversion between bytes and [-1, 1], so
that callers handle uint8 images only. This module returns bytes and writes no file.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from models.latents import latents
from models.networks import Encoding, Mapped
from training.errors import ExportError

OPSET = 20
MEAN_W_SEEDS = 10_000
_CHUNK_ROWS = 1000


class UInt8Generator(nn.Module):
    """G without a mapping network, with uint8 NHWC images as output."""

    def __init__(self, G: nn.Module) -> None:
        super().__init__()
        self.G = G
        self.span = float(getattr(G, "span", 1.0))

    def forward(self, z: Tensor, label: Tensor | None = None, psi: Tensor | None = None) -> Tensor:
        """Z [N, z_dim] (and label [N]) to [N, H, W, C] uint8. psi is ignored."""
        img = self.G(z, label)
        return to_bytes(img if self.span == 1 else img / self.span)


class TruncatedGenerator(nn.Module):
    """A `Mapped` G with uint8 NHWC images as output and the truncation psi as input.

    psi scales the distance of w from its mean (Karras et al. 2019, sec. B).
    """

    w_mean: Tensor

    def __init__(self, mapping: nn.Module, synthesis: nn.Module, w_mean: Tensor) -> None:
        """w_mean: [w_dim], or [num_classes, w_dim] of a conditional model."""
        super().__init__()
        self.mapping = mapping
        self.synthesis = synthesis
        self.register_buffer("w_mean", w_mean)

    def forward(self, z: Tensor, label: Tensor | None = None, psi: Tensor | None = None) -> Tensor:
        """Z [N, z_dim] (and label [N]) and psi [N] to [N, H, W, C] uint8. Without psi it is 1."""
        w = self.mapping(z, label)
        if psi is not None:
            w_mean = self.w_mean if label is None else self.w_mean[label]
            w = w_mean + psi[:, None] * (w - w_mean)
        return to_bytes(self.synthesis(w))


ByteGenerator = UInt8Generator | TruncatedGenerator


class UInt8Encoder(nn.Module):
    """An encoder with uint8 NHWC images as input and the posterior's mean of z as output."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        """[N, H, W, C] uint8 (and label [N]) to z [N, z_dim] float32."""
        img = image.permute(0, 3, 1, 2).to(torch.float32).sub(127.5).div(127.5)
        mu: Tensor = self.encoder(img, label)[0]
        return mu


def to_bytes(img: Tensor) -> Tensor:
    """[N, C, H, W] in [-1, 1] to [N, H, W, C] uint8, rounded half to even; the rest is clamped."""
    return ((img + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def byte_generator(G: nn.Module, *, z_dim: int, num_classes: int) -> ByteGenerator:
    """Wraps a generator for export. G: on the CPU in evaluation mode."""
    if isinstance(G, Mapped):
        w_mean = mean_w(G.mapping, z_dim=z_dim, num_classes=num_classes)
        return TruncatedGenerator(G.mapping, G.synthesis, w_mean).eval()
    return UInt8Generator(G).eval()


def byte_encoder(G: nn.Module) -> UInt8Encoder | None:
    """Wraps a generator's encoder for export; None where it has none."""
    return UInt8Encoder(G.encoder).eval() if isinstance(G, Encoding) else None


@torch.no_grad()
def mean_w(mapping: nn.Module, *, z_dim: int, num_classes: int) -> Tensor:
    """The mean of w over the latents of MEAN_W_SEEDS seeds: [w_dim], or [num_classes, w_dim]."""
    z = torch.from_numpy(latents(np.arange(MEAN_W_SEEDS, dtype=np.uint64), z_dim))

    def of_class(label: int | None) -> Tensor:
        parts = []
        for rows in torch.split(z, _CHUNK_ROWS):
            labels = None if label is None else torch.full((len(rows),), label)
            parts.append(mapping(rows, labels).double().sum(0))
        return torch.stack(parts).sum(0).div(len(z)).float()

    if not num_classes:
        return of_class(None)
    return torch.stack([of_class(label) for label in range(num_classes)])


def to_onnx(G: ByteGenerator, z_dim: int, *, conditional: bool) -> bytes:
    """Converts a generator on the CPU to the content of an ONNX file.

    Raises:
        ExportError: torch or onnx can't convert it; the message has their reason.
    """
    given = {"z": torch.zeros(2, z_dim)}
    if conditional:
        given["label"] = torch.zeros(2, dtype=torch.int64)
    if isinstance(G, TruncatedGenerator):
        given["psi"] = torch.ones(2)
    return convert(G, given, outputs=("image",), what="generator")


def encoder_to_onnx(encoder: UInt8Encoder, image: Tensor, *, conditional: bool) -> bytes:
    """Converts an encoder on the CPU to the content of an ONNX file.

    image: any two images of its size, [2, H, W, C] uint8.

    Raises:
        ExportError: torch or onnx can't convert it; the message has their reason.
    """
    given = {"image": image}
    if conditional:
        given["label"] = torch.zeros(2, dtype=torch.int64)
    return convert(encoder, given, outputs=("z",), what="encoder")


def convert(
    module: nn.Module, given: Mapping[str, Tensor], *, outputs: Sequence[str], what: str
) -> bytes:
    """Converts a module whose inputs share a batch dimension of any size.

    Args:
        module: on the CPU in evaluation mode.
        given: the arguments of forward by name, in its order, two rows each.
        outputs: names of what it gives, in its order.
        what: the module in words, for messages.

    Raises:
        ExportError: torch or onnx can't convert it; the message has their reason.
    """
    try:
        batch = {0: torch.export.Dim("batch")}
        others = {0: torch.export.Dim.DYNAMIC}
        program = torch.onnx.export(
            module,
            kwargs=dict(given),
            dynamo=True,
            input_names=list(given),
            output_names=list(outputs),
            dynamic_shapes={name: others if i else batch for i, name in enumerate(given)},
            opset_version=OPSET,
            verbose=False,
        )
        if program is None:
            raise ExportError("torch.onnx.export gave no program")
        model = program.model_proto
        _strip(model)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the exporter's errors have no other base class in common
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
    """Removes the exporter's notes, which hold stack traces with paths of this machine."""
    graph = model.graph
    records = [model, graph, *graph.node, *graph.initializer, *graph.value_info]
    for record in [*records, *graph.input, *graph.output]:
        record.ClearField("metadata_props")
        record.ClearField("doc_string")
