"""The files of a bundle's units: the graph with masks as an input, and what was found."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.bundle.generator import Sampler
from models.bundle.runtime import inputs_of, open_session
from models.bundle.units import GRAPH, UNITS, UnitInfo, without_units
from models.latents import latents
from training.errors import ExportError
from training.export.onnx_graphs import ByteGenerator, TruncatedGenerator, convert
from training.interpretation.unit_layers import Layer, masked, num_units
from training.interpretation.units import Units

TOLERANCE = 1  # in 8-bit steps: a multiplication by 1 keeps torch.onnx from joining layers
_NUM_GOLDEN, _NUM_COMPARED = 4, 64


class MaskedGenerator(nn.Module):
    """A generator with uint8 NHWC images as output, and a mask over its units as an input."""

    def __init__(self, inner: ByteGenerator, layers: list[Layer]) -> None:
        super().__init__()
        self.inner = inner
        self.layers = layers

    def forward(
        self,
        z: Tensor,
        label: Tensor | None = None,
        psi: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """As the generator, with mask [N, units]."""
        assert mask is not None
        inner = self.inner
        network = inner if isinstance(inner, TruncatedGenerator) else inner.G
        with masked(dict(network.named_modules()), self.layers, mask):
            img: Tensor = inner(z, label, psi)
        return img


def unit_files(
    inner: ByteGenerator, model: Sampler, units: Units, z_dim: int, *, conditional: bool
) -> dict[str, bytes]:
    """The graph and units.npz.

    Args:
        inner: the generator, on the CPU in evaluation mode.
        model: model.onnx, which the graph must equal with every unit on.
        units: what was found.
        z_dim: width of z.
        conditional: True where it takes labels.

    Raises:
        ExportError: the graph can't be converted, or gives other images.
    """
    num = num_units(units.layers)
    given = {"z": torch.zeros(2, z_dim)}
    if conditional:
        given["label"] = torch.zeros(2, dtype=torch.int64)
    if isinstance(inner, TruncatedGenerator):
        given["psi"] = torch.ones(2)
    given["mask"] = torch.ones(2, num)
    graph = convert(
        MaskedGenerator(inner, units.layers).eval(),
        given,
        outputs=("image",),
        what="generator with masks",
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, GRAPH)
        path.write_bytes(graph)
        session = open_session(path)
        names = inputs_of(session)

        def made(seeds: np.ndarray, masks: np.ndarray) -> np.ndarray:
            psi = np.ones(len(seeds), np.float32)
            z, labels = latents(seeds, z_dim), model.labels(seeds)
            return without_units(session, names, z, labels, psi, masks)

        seeds = np.arange(_NUM_COMPARED, dtype=np.uint64)
        found = made(seeds, np.ones((len(seeds), num), np.float32))
        difference = int(np.abs(found.astype(np.int16) - model(seeds)).max())
        if difference > TOLERANCE:
            raise ExportError(
                f"{GRAPH} differs from model.onnx by up to {difference}/255 with every unit on, "
                f"allowed are {TOLERANCE}/255; torch.onnx.export translates an operation "
                "differently in it: compare the two layer by layer"
            )
        golden = np.arange(_NUM_GOLDEN, dtype=np.uint64)
        masks = np.ones((_NUM_GOLDEN, num), np.float32)
        for row in range(_NUM_GOLDEN):  # a few units of every layer
            masks[row, row :: max(2, num // 8)] = 0
        info = _info(units, golden, model, masks, made(golden, masks))
    return {GRAPH: graph, UNITS: info.to_bytes()}


def _info(
    units: Units, seeds: np.ndarray, model: Sampler, masks: np.ndarray, images: np.ndarray
) -> UnitInfo:
    effects, artifacts = units.effects, units.artifacts or ()
    size = len(effects[0].units) if effects else 0
    return UnitInfo(
        layers=np.array([layer.name for layer in units.layers], np.str_),
        channels=np.array([layer.channels for layer in units.layers], np.int64),
        concepts=np.array(units.concepts, np.str_),
        agreement=units.agreement.astype(np.float32),
        effect_concepts=np.array([each.concept for each in effects], np.str_),
        effect_units=np.array([each.units for each in effects], np.int64).reshape(-1, size),
        effects=np.array(
            [(each.effect, each.low, each.high, each.p) for each in effects], np.float32
        ).reshape(-1, 4),
        seeds=seeds,
        labels=model.labels(seeds),
        masks=masks,
        images=images,
        artifact_units=np.array([each.unit for each in artifacts], np.int64),
        artifact_gains=np.array(
            [(each.gain, each.low, each.high) for each in artifacts], np.float32
        ).reshape(-1, 3),
    )


def units_table(units: Units, num: int = 3) -> str:
    """Markdown: each concept's closest units, what a set of them does, and what spoils images."""
    lines = ["| concept | closest units (layer, agreement) |", "|---|---|"]
    places = [(layer.name, channel) for layer in units.layers for channel in range(layer.channels)]
    for column, concept in enumerate(units.concepts):
        best = np.argsort(-units.agreement[:, column], kind="stable")[:num]
        told = ", ".join(
            f"{unit} ({places[unit][0]}, {units.agreement[unit, column]:.2f})"
            for unit in best
            if units.agreement[unit, column] > 0
        )
        lines.append(f"| {concept} | {told or '-'} |")
    lines += ["", "| concept | units off | effect (sd) | range of chance around it | p (Holm) |"]
    lines.append("|---|---|---|---|---|")
    for each in units.effects:
        off = ", ".join(map(str, each.units))
        around = f"{each.low:+.2f} .. {each.high:+.2f}"
        lines.append(f"| {each.concept} | {off} | {each.effect:+.2f} | {around} | {each.p:.2g} |")
    if units.artifacts:
        lines += ["", "| artifact unit | Frechet distance falls by | interval |", "|---|---|---|"]
    elif units.artifacts is not None:
        lines += ["", "No artifact units: none was found without which images are surely closer."]
    for artifact in units.artifacts or ():
        where = f"{artifact.unit} ({places[artifact.unit][0]})"
        around = f"{artifact.low:.3g} .. {artifact.high:.3g}"
        lines.append(f"| {where} | {artifact.gain:.3g} | {around} |")
    return "\n".join(lines)
