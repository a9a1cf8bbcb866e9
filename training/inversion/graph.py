"""An encoder as the files of a bundle: the graphs, and the values that they must give.

encoder.onnx has all residual passes in it, with the weights of both networks once. score.onnx
compares an image with its reconstruction in pixels and in the encoder's own features.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.bundle import ENCODER, Golden
from models.bundle.anomaly import SCORE
from models.bundle.inversion import (
    ENCODER_GOLDEN,
    EncoderGolden,
    EncoderTraits,
    golden_labels,
)
from models.bundle.runtime import open_session
from models.latents import latents
from training.errors import ExportError
from training.export.exporter import ENCODER_TOLERANCE
from training.export.onnx_graphs import convert
from training.inversion.corruption import random_masks
from training.inversion.fit import Subject, UnrolledEncoder
from training.inversion.network import ResidualEncoder

_NUM_GOLDEN = 4
_NUM_SCALE = 256
_STARTS = 2**33  # first seed of the golden starts
_SCORED_MAPS = 2  # of the encoder, the finest ones: coarser maps hardly see where pixels are


class ScoreGraph(nn.Module):
    """|x - y|^2 / n + |f(x) - f(y)|^2 / n_f, with features f that were scaled to variance 1."""

    def __init__(self, encoder: ResidualEncoder, scales: list[Tensor]) -> None:
        """scales: 1 / standard deviation of each channel of each scored map."""
        super().__init__()
        self.encoder = encoder
        for number, scale in enumerate(scales):
            self.register_buffer(f"scale{number}", scale[None, :, None, None])

    def forward(self, image: Tensor, reconstruction: Tensor) -> tuple[Tensor, Tensor]:
        """Bytes [N, H, W, C] each to score [N] and residual [N, H, W]."""
        x, y = _to_img(image), _to_img(reconstruction)
        residual = (x - y).square().mean(1)
        parts = [
            ((a - b) * self.get_buffer(f"scale{number}")).square().flatten(1)
            for number, (a, b) in enumerate(
                zip(scored_maps(self.encoder, x), scored_maps(self.encoder, y), strict=True)
            )
        ]
        features = torch.cat(parts, 1).mean(1)
        return residual.flatten(1).mean(1) + features, residual


def scored_maps(encoder: ResidualEncoder, x: Tensor) -> list[Tensor]:
    """The maps of an image alone, all of it known."""
    return encoder.maps(x, torch.zeros_like(x), torch.ones_like(x[:, :1]))[:_SCORED_MAPS]


@torch.no_grad()
def score_graph(encoder: ResidualEncoder, subject: Subject) -> ScoreGraph:
    """The score, with features scaled by their variance over the generator's own images."""
    z = torch.from_numpy(latents(np.arange(_NUM_SCALE, dtype=np.uint64), subject.z_dim))
    classes = subject.shape.num_classes
    label = torch.arange(_NUM_SCALE) % classes if classes else None
    maps = scored_maps(encoder, subject.G(z, label))
    return ScoreGraph(encoder, [1 / each.std((0, 2, 3)).clamp_min(1e-3) for each in maps]).eval()


def encoder_files(
    encoder: ResidualEncoder, subject: Subject, passes: int, golden: Golden
) -> dict[str, bytes]:
    """encoder.onnx, encoder_golden.npz and score.onnx.

    Args:
        encoder: in evaluation mode on the CPU.
        subject: its generator.
        passes: residual passes in the graph.
        golden: the bundle's golden images.

    Raises:
        ExportError: a graph can't be converted, or gives other values than torch.
    """
    whole = UnrolledEncoder(encoder, subject, passes).eval()
    shape = subject.shape
    size = (shape.height, shape.width)
    given: dict[str, Tensor] = {"image": torch.zeros(2, *size, shape.channels, dtype=torch.uint8)}
    if shape.num_classes:
        given["label"] = torch.zeros(2, dtype=torch.int64)
    given["mask"] = torch.ones(2, *size, dtype=torch.uint8)
    given["start"] = torch.zeros(2, subject.z_dim)
    outputs = ("z", "label_scores") if subject.infers_label else ("z",)
    graph = convert(whole, given, outputs=outputs, what="encoder")
    num = min(_NUM_GOLDEN, len(golden.images))
    draw = torch.Generator().manual_seed(0)
    masks = random_masks(num, *size, draw)[:, 0].to(torch.uint8).numpy()
    masks[0] = 1
    starts = latents(np.arange(_STARTS, _STARTS + num, dtype=np.uint64), subject.z_dim)
    starts[:1] = 0
    feed: dict[str, np.ndarray] = {"image": golden.images[:num], "mask": masks, "start": starts}
    traits = EncoderTraits(frozenset(given), infers_label=subject.infers_label)
    labels = golden_labels(traits, None if golden.labels is None else golden.labels[:num])
    if labels is not None:
        feed["label"] = labels
    found = _checked(ENCODER, graph, whole, feed, outputs)
    values = EncoderGolden(
        z=found[0],
        masks=masks,
        starts=starts,
        label_scores=found[1] if subject.infers_label else None,
    )
    scoring = score_graph(encoder, subject)
    # Two tensors: of one given twice the exporter would make one input.
    bytes_given = {name: given["image"].clone() for name in ("image", "reconstruction")}
    score = convert(scoring, bytes_given, outputs=("score", "residual"), what="score")
    compared = {"image": golden.images, "reconstruction": golden.images[::-1].copy()}
    _checked(SCORE, score, scoring, compared, ("score", "residual"))
    return {ENCODER: graph, ENCODER_GOLDEN: values.to_bytes(), SCORE: score}


def _checked(
    name: str,
    graph: bytes,
    module: nn.Module,
    feed: dict[str, np.ndarray],
    outputs: tuple[str, ...],
) -> list[np.ndarray]:
    """What the graph gives, which torch must give, too, and for each row alone."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(graph)
        session = open_session(path)
    parts = [
        session.run(list(outputs), {key: rows[part] for key, rows in feed.items()})
        for part in (slice(0, 1), slice(1, None))
    ]
    found = [np.concatenate(rows) for rows in zip(*parts, strict=True)]
    with torch.no_grad():
        made = module(**{key: torch.from_numpy(rows) for key, rows in feed.items()})
    expected = made if isinstance(made, tuple) else (made,)
    for output, one, other in zip(outputs, found, expected, strict=True):
        values = other.numpy()
        difference = float(np.abs(one - values).max())
        if not difference <= ENCODER_TOLERANCE * max(1.0, float(np.abs(values).max())):
            raise ExportError(
                f"{name} differs from torch by up to {difference:.2g} in {output}, allowed is "
                f"{ENCODER_TOLERANCE:g} of the largest; torch.onnx.export translates one of its "
                "operations wrongly, or a layer of the generator mixes the rows of a batch"
            )
    return found


def _to_img(image: Tensor) -> Tensor:
    return image.permute(0, 3, 1, 2).to(torch.float32).sub(127.5).div(127.5)
