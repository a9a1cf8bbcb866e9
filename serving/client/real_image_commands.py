"""The commands for real images: encode, edit, inpaint, upscale, score."""

import argparse
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from models.image_files import require_free, write_file
from models.seed_list import seeds_of
from serving.client.arguments import UsageError, amounts
from serving.client.real_image_answers import Restored
from serving.client.sync_client import Client

MakeClient = Callable[[argparse.Namespace], Client]


def add_commands(commands: Any) -> None:
    """Adds the commands' parsers."""
    known = {
        "encode": ("the latents of images", True),
        "edit": ("a real image, changed along directions", False),
        "inpaint": ("a part of a real image, filled", False),
        "upscale": ("a small image, enlarged to the model's size", False),
        "score": ("how unusual images are, and where", True),
    }
    for name, (about, several) in known.items():
        command = commands.add_parser(name, help=about)
        files = {"nargs": "+", "metavar": "FILE"} if several else {"metavar": "FILE"}
        command.add_argument(
            "files" if several else "file", type=Path, help="PNG, JPEG, WebP, npy", **files
        )
        command.add_argument("--label", type=int, help="the class, where the model doesn't find it")
        command.add_argument("--model")
        command.add_argument("--version", type=int)
        command.add_argument("--force", action="store_true", help="overwrite files")
        if name != "upscale":
            command.add_argument(
                "--fit",
                choices=("exact", "crop", "stretch"),
                default="exact",
                help="what becomes of another size than the model's (default: %(default)s)",
            )
        if not several:
            command.add_argument(
                "--out", type=Path, required=True, metavar="PNG", help="several as OUT-SEED.png"
            )
        if name in ("inpaint", "upscale"):
            seeds = "an answer for each, 1-4"
            command.add_argument("--seeds", type=seeds_of, help=seeds)
        if name == "inpaint":
            command.add_argument(
                "--mask", type=Path, metavar="FILE", help="white is to be filled; else transparency"
            )
        if name == "edit":
            command.add_argument(
                "--directions",
                type=amounts,
                required=True,
                metavar="NAME:UNITS,...",
                help="0:1.5,slant:-1",
            )
        if name == "encode":
            command.add_argument("--npy", type=Path, metavar="FILE", help="the latents [N, z_dim]")
        if name == "score":
            command.add_argument("--maps", type=Path, metavar="FOLDER", help="where, NAME.npy each")


def encode(options: argparse.Namespace, make_client: MakeClient) -> int:
    """Prints the latents of images, a line of JSON each, or writes them into a file."""
    if options.npy is not None:
        require_free([options.npy], force=options.force)
    with make_client(options) as client:
        found = client.encode(options.files, reconstruct=True, **_common(options, "labels"))
    for path, each in zip(options.files, found, strict=True):
        told = {"file": str(path), "label": each.label, "error": each.error}
        latent = {} if options.npy is not None else {"latent": each.latent.tolist()}
        print(json.dumps(told | latent))
    if options.npy is not None:
        buffer = io.BytesIO()
        np.save(buffer, np.stack([each.latent for each in found]))
        write_file(options.npy, buffer.getvalue())
    return 0


def edit(options: argparse.Namespace, make_client: MakeClient) -> int:
    """Writes an image that was changed along directions."""
    require_free([options.out], force=options.force)
    with make_client(options) as client:
        fields = _common(options, "label") | {"directions": options.directions}
        found = client.edit(options.file, **fields)
    return _write(found, [options.out])


def inpaint(options: argparse.Namespace, make_client: MakeClient) -> int:
    """Writes a filled image, or one for each seed."""
    paths = _paths(options)
    with make_client(options) as client:
        found = client.inpaint(
            options.file, options.mask, seeds=options.seeds, **_common(options, "label")
        )
    return _write(found, paths)


def upscale(options: argparse.Namespace, make_client: MakeClient) -> int:
    """Writes an enlarged image, or one for each seed."""
    paths = _paths(options)
    with make_client(options) as client:
        found = client.upscale(options.file, seeds=options.seeds, **_common(options, "label"))
    return _write(found, paths)


def score(options: argparse.Namespace, make_client: MakeClient) -> int:
    """Prints how unusual images are, a line of JSON each."""
    maps = [] if options.maps is None else [options.maps / f"{p.stem}.npy" for p in options.files]
    if len(set(maps)) < len(maps):
        raise UsageError("--maps: two files have the same name; score them one after the other")
    require_free(maps, force=options.force)
    with make_client(options) as client:
        found = client.score(options.files, maps=bool(maps), **_common(options, "labels"))
    for path, each in zip(options.files, found, strict=True):
        print(json.dumps({"file": str(path), "score": each.score, "p": each.p}))
    for target, each in zip(maps, found, strict=False):
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(each.map))
        write_file(target, buffer.getvalue())
    return 0


def _common(options: argparse.Namespace, label: str) -> dict[str, Any]:
    fields = {label: options.label, "model": options.model, "version": options.version}
    return fields | ({"fit": options.fit} if hasattr(options, "fit") else {})


def _paths(options: argparse.Namespace) -> list[Path]:
    """A file for each answer."""
    out: Path = options.out
    paths = [out]
    if options.seeds is not None and len(options.seeds) > 1:
        paths = [out.with_name(f"{out.stem}-{seed}{out.suffix}") for seed in options.seeds]
    require_free(paths, force=options.force)
    return paths


def _write(found: Restored, paths: list[Path]) -> int:
    for path, data, error in zip(paths, found.files, found.errors, strict=True):
        write_file(path, data)
        print(json.dumps({"file": str(path), "error": error}))
    spread = "" if found.spread is None else f"; they differ by {found.spread:.1f}/255"
    print(f"{found.note}{spread}")
    return 0


COMMANDS = {
    "encode": encode,
    "edit": edit,
    "inpaint": inpaint,
    "upscale": upscale,
    "score": score,
}
