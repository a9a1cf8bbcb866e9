"""The graph of a style model in two, for what acts on w: mixing, truncation, directions."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.bundle.generator import Sampler
from models.bundle.runtime import open_session
from models.bundle.styles import MAPPING, STYLES, SYNTHESIS, StyleInfo, StyleRows, styled
from models.latents import latents
from training.errors import ExportError
from training.export.onnx_graphs import TruncatedGenerator, convert, to_bytes

TOLERANCE = 1  # in 8-bit steps: two graphs round w, one may not
_NUM_GOLDEN, _NUM_COMPARED = 4, 64
_COMPARED_PIXELS = 2**22  # fewer seeds of more than 256x256 pixels: one batch holds them all


class MappingGraph(nn.Module):
    """From z to w, and the mean of w of the same class."""

    w_mean: Tensor

    def __init__(self, G: TruncatedGenerator) -> None:
        super().__init__()
        self.mapping = G.mapping
        self.register_buffer("w_mean", G.w_mean.clone())

    def forward(self, z: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Z [N, z_dim] (and label [N]) to w and w_mean, [N, w_dim] each."""
        w = self.mapping(z, label)
        mean = self.w_mean if label is None else self.w_mean[label]
        return w, mean + torch.zeros_like(w)


class SynthesisGraph(nn.Module):
    """From one w for each style to uint8 NHWC images."""

    def __init__(self, G: TruncatedGenerator) -> None:
        super().__init__()
        self.synthesis = G.synthesis

    def forward(self, w: Tensor) -> Tensor:
        """W [N, num_styles, w_dim] to [N, H, W, C] uint8."""
        return to_bytes(self.synthesis(w))


def style_files(
    G: TruncatedGenerator, model: Sampler, z_dim: int, *, conditional: bool
) -> dict[str, bytes]:
    """The files of the two graphs; none where the synthesis network takes only one w.

    Args:
        G: on the CPU in evaluation mode.
        model: model.onnx, which their composition must equal.
        z_dim: width of z.
        conditional: True where G takes labels.

    Raises:
        ExportError: a graph can't be converted, or their composition gives other images.
    """
    num_styles = getattr(G.synthesis, "num_styles", None)
    if not isinstance(num_styles, int):
        return {}
    w_dim = G.w_mean.shape[-1]
    given = {"z": torch.zeros(2, z_dim)}
    if conditional:
        given["label"] = torch.zeros(2, dtype=torch.int64)
    mapping = convert(
        MappingGraph(G).eval(), given, outputs=("w", "w_mean"), what="mapping network"
    )
    synthesis = convert(
        SynthesisGraph(G).eval(),
        {"w": torch.zeros(2, num_styles, w_dim)},
        outputs=("image",),
        what="synthesis network",
    )
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder, MAPPING), Path(folder, SYNTHESIS)
        for path, data in zip(paths, (mapping, synthesis), strict=True):
            path.write_bytes(data)
        sessions = open_session(paths[0]), open_session(paths[1])
        height, width = model(np.zeros(1, dtype=np.uint64)).shape[1:3]
        fitting = max(_NUM_GOLDEN, _COMPARED_PIXELS // (height * width))
        seeds = np.arange(min(_NUM_COMPARED, fitting), dtype=np.uint64)
        psi = np.ones((len(seeds), num_styles), np.float32)
        z, labels = latents(seeds, z_dim), model.labels(seeds)
        found = styled(*sessions, z, labels, StyleRows(psi=psi))
        difference = int(np.abs(found.astype(np.int16) - model(seeds)).max())
        if difference > TOLERANCE:
            raise ExportError(
                f"{MAPPING} and {SYNTHESIS} differ from model.onnx by up to {difference}/255 on "
                f"{len(seeds)} seeds, allowed are {TOLERANCE}/255; torch.onnx.export translates an "
                "operation differently in them: compare the graphs layer by layer"
            )
        info = _golden(sessions, model, z_dim, num_styles, w_dim)
    return {MAPPING: mapping, SYNTHESIS: synthesis, STYLES: info.to_bytes()}


def _golden(
    sessions: tuple[object, object], model: Sampler, z_dim: int, num_styles: int, w_dim: int
) -> StyleInfo:
    """Images of a few seeds whose finer half of styles is another's, at falling psi."""
    seeds = np.arange(_NUM_GOLDEN, dtype=np.uint64)
    take = np.zeros((len(seeds), num_styles), np.float32)
    take[:, num_styles // 2 :] = 1
    falling = np.linspace(1, 0.5, num_styles, dtype=np.float32)
    info = StyleInfo(
        num_styles=num_styles,
        w_dim=w_dim,
        seeds=seeds,
        labels=model.labels(seeds),
        others=seeds + np.uint64(100),
        take=take,
        psi=np.repeat(falling[None], len(seeds), axis=0),
        images=np.zeros((0, 1, 1, 1), np.uint8),
    )
    images = styled(*sessions, latents(seeds, z_dim), info.labels, info.rows(z_dim))  # type: ignore[arg-type]
    values = {name: getattr(info, name) for name in info.__dataclass_fields__}
    return StyleInfo(**{**values, "images": images})
