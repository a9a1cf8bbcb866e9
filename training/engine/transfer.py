"""Starting from a trained model: the weights of a run or a bundle begin a new training.

A run has both players, a bundle the averaged generator alone. Tensors of the same name and shape
are taken; others, such as those that belong to classes, start anew and are named. From another
resolution a tensor is taken where it acted on maps of the same size. Steps, optimisers and the
data's order are not taken over: that is resuming.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.bundle import MANIFEST, Bundle
from models.bundle.archive import read_arrays
from models.errors import ModelError
from models.networks import Family, ImageShape
from training.engine.checkpoint import Checkpoints
from training.engine.resolutions import renamed
from training.engine.state import State
from training.errors import CheckpointError

WEIGHTS = "weights.npz"
MAX_WEIGHTS_BYTES = 4 << 30  # of a bundle's weights: a stranger's archive may claim any size
_LEAST_SHARE = 0.5  # of a player's weights: below it, it is another network


@dataclass(frozen=True, kw_only=True)
class Source:
    """Weights to start from."""

    path: Path
    G: Mapping[str, Tensor]
    """Weights of the trained generator; of a bundle, those of the average."""
    G_ema: Mapping[str, Tensor]
    """Weights of the averaged generator."""
    D: Mapping[str, Tensor] | None
    """Weights of the discriminator; None in a bundle."""
    network: Mapping[str, Any]
    """Recorded options of the network that they belong to, with its family; empty if unknown."""
    resolution: Any = None
    """Of its images, as in a configuration."""


def pack(G_ema: nn.Module) -> bytes:
    """Packs the weights of a generator for a bundle: an .npz archive by parameter name."""
    buffer = io.BytesIO()
    arrays = {name: value.cpu().numpy() for name, value in G_ema.state_dict().items()}
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def open_source(path: Path) -> Source:
    """Reads a run folder or a bundle.

    Raises:
        CheckpointError: it is neither, or holds no weights.
    """
    if (path / "checkpoints").is_dir():
        content = Checkpoints(path / "checkpoints").latest().content
        resolution = _resolution(content["config"]["data"]["resolution"])
        return Source(
            path=path,
            G=content["G"],
            G_ema=content["G_ema"],
            D=content["D"],
            resolution=resolution,
            network=_recorded(path / "config.json"),
        )
    if (path / MANIFEST).is_file():
        weights, size = _bundle_weights(path)
        resolution = size[0] if size[0] == size[1] else size
        network = Bundle.open(path).manifest.options.get("network", {})
        return Source(
            path=path, G=weights, G_ema=weights, D=None, resolution=resolution, network=network
        )
    raise CheckpointError(
        f"init_from is {str(path)!r}, allowed: a run's folder (with checkpoints/) or a bundle's "
        f"(with {MANIFEST}); name one with --init-from"
    )


def check_network(source: Source, network: Family) -> None:
    """Refuses weights of another form of the same family, whose tensors fit and mean other images.

    Raises:
        CheckpointError: an option that changes what the weights do differs; it is named.
    """
    if source.network.get("family") != network.name:
        return
    recorded = {**network.before, **source.network}
    for option in network.before:
        then, now = recorded[option], getattr(network, option)
        if then != now:
            raise CheckpointError(
                f"init_from is {str(source.path)!r}, whose network has {option} {then!r}, this "
                f"training's has {now!r}: set --network.{option} {then}"
            )


def start_from(source: Source, state: State, network: Family, shape: ImageShape) -> list[str]:
    """Copies the weights into a new state.

    Args:
        source: what they are from.
        state: of this training.
        network: the family that made its players.
        shape: of its images.

    Returns:
        A line for each player that says what was taken.

    Raises:
        CheckpointError: a player is another network than the source's.
    """
    lines = [_take(source, "G", source.G, state.G.network, network, shape)]
    _take(source, "G_ema", source.G_ema, state.G_ema, network, shape)
    if source.D is None:
        lines.append(f"D starts anew: {source.path} holds no discriminator")
    else:
        lines.append(_take(source, "D", source.D, state.D.network, network, shape))
    if state.slow:
        torch._foreach_copy_(state.slow, [each.detach() for each in state.parameters()])
    return lines


def _recorded(path: Path) -> Mapping[str, Any]:
    """Reads the network's options from a run's configuration; empty where it has none."""
    try:
        network: Mapping[str, Any] = json.loads(path.read_text())["training"]["network"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return network


def _resolution(value: int | str) -> int | tuple[int, int]:
    """An image's size as an `ImageShape` has it, from --data.resolution: 64, or WIDTHxHEIGHT."""
    width, _, height = str(value).partition("x")
    if not height or width == height:
        return int(width)
    return int(height), int(width)


def _bundle_weights(path: Path) -> tuple[dict[str, Tensor], tuple[int, int]]:
    """The weights in a bundle, and the height and width of its images."""
    try:
        bundle = Bundle.open(path)
        if WEIGHTS not in bundle.manifest.files:
            raise CheckpointError(
                f"init_from is {str(path)!r}, which holds no {WEIGHTS}: it was exported by an "
                "older release; name the run's folder instead"
            )
        bundle.verify_files()
        arrays = read_arrays(path / WEIGHTS, names=None, max_bytes=MAX_WEIGHTS_BYTES)
        image = bundle.manifest.image
        weights = {name: torch.from_numpy(value) for name, value in arrays.items()}
        return weights, (image.height, image.width)
    except (ModelError, OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise CheckpointError(f"init_from is {str(path)!r}: {error}") from error


def _take(
    source: Source,
    player: str,
    weights: Mapping[str, Tensor],
    module: nn.Module,
    network: Family,
    shape: ImageShape,
) -> str:
    """Copies the tensors that fit; returns a line that says what went where."""
    own, path = module.state_dict(), source.path
    sources = _sources(source, player, own, network, shape)
    fits = {
        name: weights[other]
        for name, other in sources.items()
        if other in weights and own[name].shape == weights[other].shape
    }
    num_own = sum(value.numel() for value in own.values())
    num_taken = sum(value.numel() for value in fits.values())
    if num_taken < _LEAST_SHARE * num_own:
        alike = "same name and shape"
        if source.resolution != shape.resolution:
            alike = (
                f"same place at the same resolution, from {source.resolution} pixels to "
                f"{shape.resolution}, and the same shape"
            )
        raise CheckpointError(
            f"init_from is {str(path)!r}, whose {player} is another network: {num_taken:,} of "
            f"{num_own:,} weights have the {alike}; give this training the network, resolution "
            "and channels of that one"
        )
    module.load_state_dict(fits, strict=False)
    new = [name for name in own if name not in fits]
    moved = dict.fromkeys(
        f"{_module(name)} from {_module(sources[name])}" for name in fits if sources[name] != name
    )
    line = f"{player} starts from {path}: {len(fits)} of {len(own)} tensors"
    if source.resolution != shape.resolution:
        line += f", from {source.resolution} to {shape.resolution} pixels, by resolution"
    line += f"; moved: {', '.join(moved)}" if moved else ""
    return line + (f"; new: {', '.join(new)}" if new else "")


def _sources(
    source: Source,
    player: str,
    own: Mapping[str, Tensor],
    network: Family,
    shape: ImageShape,
) -> dict[str, str]:
    """The source's name for each tensor that it may have.

    Raises:
        CheckpointError: this family makes no network of the source's resolution.
    """
    if source.resolution in (None, shape.resolution):
        return {name: name for name in own}
    try:
        names = renamed(network, player[0], shape, source.resolution)
    except ValueError as error:
        raise CheckpointError(
            f"init_from is {str(source.path)!r}, of another resolution, which this network can't "
            f"have: {error}"
        ) from error
    found = {name: names.source_of(name) for name in own}
    return {name: other for name, other in found.items() if other is not None}


def _module(name: str) -> str:
    """The part of a network that a tensor belongs to, as far as the first number in its name."""
    words = name.split(".")
    number = next((i for i, word in enumerate(words) if word.isdigit()), len(words) - 2)
    return ".".join(words[: number + 1])
