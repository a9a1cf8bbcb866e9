"""The torch generator of a bundle: its network by the manifest's options, with its weights."""

import zipfile
import zlib

import msgspec
import torch
from torch import nn

from models.bundle import Bundle
from models.bundle.archive import read_arrays
from models.networks import FAMILIES, ImageShape
from training.config.training import completed
from training.engine.transfer import MAX_WEIGHTS_BYTES, WEIGHTS
from training.errors import CheckpointError


def trained_generator(bundle: Bundle) -> nn.Module:
    """The generator, on the CPU in evaluation mode.

    bundle: whose files were verified.

    Raises:
        CheckpointError: it holds no weights, or this release has no such network.
    """
    manifest, where = bundle.manifest, bundle.path / WEIGHTS
    if WEIGHTS not in manifest.files:
        raise CheckpointError(
            f"{bundle.path} holds no {WEIGHTS}: it was exported by an older release; export its "
            "run again with `python -m training.runs export`"
        )
    image = manifest.image
    shape = ImageShape(
        resolution=(image.height, image.width),
        channels=image.channels,
        num_classes=len(manifest.labels or ()),
    )
    try:
        options = dict(completed({"network": manifest.options.get("network")})["network"])
        family = FAMILIES[options.pop("family")]
        G = msgspec.convert(options, family).generator(shape)
        arrays = read_arrays(where, names=None, max_bytes=MAX_WEIGHTS_BYTES)
        G.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
    except (
        *(KeyError, TypeError, ValueError, RuntimeError, OSError),
        *(msgspec.ValidationError, zipfile.BadZipFile, zlib.error),
    ) as error:
        raise CheckpointError(
            f"{where}: {error}; the network was written by another release: export its run again"
        ) from error
    return G.eval().requires_grad_(False)
