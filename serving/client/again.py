"""Makes an image again, as the words in its file say it was made."""

import argparse
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from models.image_metadata import read_amounts
from models.seed_list import seeds_of
from serving.client.arguments import UsageError
from serving.client.sync_client import Client

_FORMATS = {"PNG": "png", "JPEG": "jpeg", "WEBP": "webp"}


def made_again(client: Client, told: Mapping[str, str], path: Path) -> tuple[bool, bytes]:
    """Has a server make an image again, in the format that it has.

    Args:
        client: of the server.
        told: the words in its file.
        path: the file.

    Returns:
        Whether the pixels are the same, and the new file.

    Raises:
        UsageError: the words don't say of which seeds it was made, or the server's model of that
            name and version is another one.
        ClientError: the server did not make it.
    """
    model, version = told.get("model"), told.get("version", "")
    seeds = told.get("seed") or told.get("seeds")
    if model is None or seeds is None or not (version.isascii() and version.isdigit()):
        raise UsageError(
            f"FILE is {path}: it says no model, version or seed, so it can't be made again"
        )
    served = client.model(model, version=int(version))
    if served.digest != told.get("digest", served.digest):
        raise UsageError(
            f"FILE is {path}: its model has the digest {told['digest'][:12]}..., version {version} "
            f"of {model} at {client.url} has {served.digest[:12]}...: another model"
        )
    with Image.open(path) as before:
        kind = _FORMATS.get(before.format or "")
        pixels = np.asarray(before)
    if kind is None:
        raise UsageError(f"FILE is {path}: a server makes {', '.join(_FORMATS)}, no other images")
    try:
        numbers = seeds_of(seeds)
        options: dict[str, Any] = {
            "labels": _labels(told),
            "truncation": float(told.get("truncation", "1")),
            "model": model,
            "version": int(version),
            "format": kind,
            **_changes(told),
        }
    except (ValueError, argparse.ArgumentTypeError) as error:  # somebody has altered it
        raise UsageError(f"FILE is {path}: what it says can't be read: {error}") from None
    if "seed" in told:
        data = client.encoded(numbers[0], **options)
    else:
        data = client.grid_file(numbers, **options)
    with Image.open(io.BytesIO(data)) as after:
        return np.array_equal(pixels, np.asarray(after)), data


def _changes(told: Mapping[str, str]) -> dict[str, Any]:
    """Directions, styles and units, as fields of a request."""
    found: dict[str, Any] = {}
    if "directions" in told:
        found["directions"] = read_amounts(told["directions"])
    if "styles" in told:
        found["styles"] = json.loads(told["styles"])
    if "units_off" in told:
        found["units_off"] = [int(unit) for unit in told["units_off"].split(",")]
    return found


def _labels(told: Mapping[str, str]) -> int | list[int] | None:
    if "labels" in told:
        return [int(label) for label in told["labels"].split(",")]
    return int(told["label"]) if "label" in told else None
