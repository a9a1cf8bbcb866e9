"""Starting from a trained model: weights of a run, or of a bundle, under a new training.

A run holds both players, a bundle the averaged generator alone. What has the same name and shape is
taken; what hasn't, such as the parts that belong to classes, starts anew and is named. Steps,
optimisers and the data's order are not taken over: that is what resuming does.
"""

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.archive import read_arrays
from models.bundle import MANIFEST, Bundle
from models.errors import ModelError
from training.checkpoint import Checkpoints
from training.errors import CheckpointError
from training.state import State

WEIGHTS = "weights.npz"
_MAX_BYTES = 4 << 30  # of a bundle's weights: a stranger's archive may claim any size
_LEAST_SHARE = 0.5  # of a player's weights: below it, it is another network


@dataclass(frozen=True, kw_only=True)
class Source:
    """Weights to start from."""

    path: Path
    G: Mapping[str, Tensor]
    """Of the generator as it was trained; of a bundle, the average."""
    G_ema: Mapping[str, Tensor]
    """Of the averaged generator."""
    D: Mapping[str, Tensor] | None
    """Of the discriminator; None in a bundle."""


def pack(G_ema: nn.Module) -> bytes:
    """The weights of a generator as a bundle holds them: an .npz archive by parameter name."""
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
        return Source(path=path, G=content["G"], G_ema=content["G_ema"], D=content["D"])
    if (path / MANIFEST).is_file():
        weights = _bundle_weights(path)
        return Source(path=path, G=weights, G_ema=weights, D=None)
    raise CheckpointError(
        f"init_from is {str(path)!r}, allowed: a run's folder (with checkpoints/) or a bundle's "
        f"(with {MANIFEST}); name one with --init-from"
    )


def start_from(source: Source, state: State) -> list[str]:
    """Puts the weights into a fresh state.

    Returns:
        What was taken, a line for each player.

    Raises:
        CheckpointError: a player is another network than the source's.
    """
    lines = [_take(source.path, "G", source.G, state.G.network)]
    _take(source.path, "G_ema", source.G_ema, state.G_ema)
    if source.D is None:
        lines.append(f"D starts anew: {source.path} holds no discriminator")
    else:
        lines.append(_take(source.path, "D", source.D, state.D.network))
    if state.slow:
        torch._foreach_copy_(state.slow, [each.detach() for each in state.parameters()])
    return lines


def _bundle_weights(path: Path) -> dict[str, Tensor]:
    try:
        bundle = Bundle.open(path)
        if WEIGHTS not in bundle.manifest.files:
            raise CheckpointError(
                f"init_from is {str(path)!r}, which holds no {WEIGHTS}: it was exported by an "
                "older release; name the run's folder instead"
            )
        bundle.verify_files()
        arrays = read_arrays(path / WEIGHTS, names=None, max_bytes=_MAX_BYTES)
        return {name: torch.from_numpy(value) for name, value in arrays.items()}
    except (ModelError, OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise CheckpointError(f"init_from is {str(path)!r}: {error}") from error


def _take(path: Path, player: str, weights: Mapping[str, Tensor], network: nn.Module) -> str:
    """Copies what fits and says what didn't."""
    own = network.state_dict()
    fits = {
        name: value
        for name, value in weights.items()
        if name in own and own[name].shape == value.shape
    }
    num_own = sum(value.numel() for value in own.values())
    num_taken = sum(value.numel() for value in fits.values())
    if num_taken < _LEAST_SHARE * num_own:
        raise CheckpointError(
            f"init_from is {str(path)!r}, whose {player} is another network: {num_taken:,} of "
            f"{num_own:,} weights have the same name and shape; give this training the network, "
            "resolution and channels of that one"
        )
    network.load_state_dict(fits, strict=False)
    new = [name for name in own if name not in fits]
    rest = f"; new: {', '.join(new)}" if new else ""
    return f"{player} starts from {path}: {len(fits)} of {len(own)} tensors{rest}"
