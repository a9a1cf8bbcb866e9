"""Exports the averaged generator as a verified bundle: the last step of a training.

The graph's output is uint8 NHWC images, so that no Python touches a pixel when it is served. A
bundle is written only if the ONNX file makes the same images as torch. How a network becomes a
graph is in `training.export.onnx_graphs`.
"""

import copy
import datetime
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from models.bundle import ENCODER, Bundle, Golden, write_bundle
from models.bundle.directions import verify_directions
from models.bundle.generator import CpuGenerator, Generate, Images, Sampler
from models.bundle.manifest import (
    Dataset,
    ImageSpec,
    Manifest,
    Metric,
    Parity,
    tensor_specs,
)
from models.bundle.runtime import ort
from models.bundle.styles import verify_styles
from models.bundle.verification import MAX_BATCH_ROWS, batch_sizes, check_sampler
from models.errors import ModelError
from models.grid import grid, png, sample_layout
from models.networks import ImageShape
from training.data import ImageSet
from training.engine.transfer import WEIGHTS, pack
from training.errors import ExportError
from training.export.model_card import model_card
from training.export.onnx_graphs import (
    TruncatedGenerator,
    UInt8Encoder,
    byte_encoder,
    byte_generator,
    encoder_to_onnx,
    to_onnx,
)
from training.export.style_graphs import style_files
from training.export.torch_generator import TorchGenerator

PARITY_SEEDS = 256  # up to 256x256 pixels; fewer of larger images, which take minutes
_PARITY_PIXELS, _MIN_PARITY_SEEDS = 2**24, 16
PARITY_TOLERANCE = 1  # in 8-bit steps: torch and ONNX Runtime add in different orders
GOLDEN_SEEDS = 16
BATCH_SIZES = (1, 2, 3, 64)
ENCODER_TOLERANCE = 1e-3  # times the largest |z|, or times 1 where that is larger
ENCODER_IMAGES = 256

Metrics = Callable[[Path], tuple[Metric, ...]]


@dataclass(frozen=True)
class Part:
    """An optional part of a bundle."""

    files: Mapping[str, bytes]
    """Content by file name."""
    card: str
    """A section of the model card, in Markdown."""


MakePart = Callable[[nn.Module, Generate, int], Part | None]
"""Makes a part of G (on the CPU, in evaluation mode), the exported model and z_dim, or none."""


def export(
    *,
    G_ema: nn.Module,
    z_dim: int,
    image_set: ImageSet,
    recipe: str,
    options: dict[str, Any],
    metrics: Metrics | None,
    name: str,
    destination: Path,
    parts: Sequence[MakePart] = (),
) -> Bundle:
    """Exports a generator and writes its bundle. Nothing is written if a step fails.

    Args:
        G_ema: (z, label or None) to images in [-1, 1]; on any device, and not changed.
        z_dim: width of its latent.
        image_set: the data that it was trained on.
        recipe: the recipe's name, for the manifest.
        options: the resolved configuration as JSON types.
        metrics: measures the exported model.onnx; None for no figures.
        name: the model's name.
        destination: the bundle's folder, which must not exist yet.
        parts: makers of its optional parts.

    Raises:
        ExportError: torch can't export the generator or its encoder, the ONNX file gives other
            results than torch, results depend on the batch, or the folder exists or can't be
            written.
    """
    if destination.exists():
        raise ExportError(f"{destination}: exists already; export into a new folder")
    num_classes = image_set.shape.num_classes
    conditional = num_classes > 0
    plain = copy.deepcopy(G_ema).to("cpu", torch.float32).eval().requires_grad_(False)
    G = byte_generator(plain, z_dim=z_dim, num_classes=num_classes)
    data = to_onnx(G, z_dim, conditional=conditional)
    encoder = _encoder(byte_encoder(plain), image_set)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(data)
        onnx_model = Sampler(CpuGenerator(path), z_dim=z_dim, num_classes=num_classes)
        check_served_batches(onnx_model, _image_of(image_set))
        parity = check_parity(
            Sampler(TorchGenerator(G), z_dim=z_dim, num_classes=num_classes), onnx_model
        )
        check_batch_independence(onnx_model)
        figures = metrics(path) if metrics else ()
        styles = (
            style_files(G, onnx_model, z_dim, conditional=conditional)
            if isinstance(G, TruncatedGenerator)
            else {}
        )
        made = [each(plain, CpuGenerator(path), z_dim) for each in parts]
    if encoder:
        figures += (encoder.parity,)
    manifest = _manifest(
        name=name,
        recipe=recipe,
        options=options,
        z_dim=z_dim,
        image_set=image_set,
        has_mapping=isinstance(G, TruncatedGenerator),
        metrics=figures,
        parity=parity,
    )
    files = {
        "model.onnx": data,
        "golden.npz": _golden(onnx_model).to_bytes(),
        "samples.png": _samples(onnx_model, image_set.shape),
        "card.md": model_card(
            manifest,
            has_encoder=encoder is not None,
            sections=[part.card for part in made if part],
        ).encode(),
    }
    files |= styles
    for part in made:
        files |= part.files if part else {}
    files[WEIGHTS] = pack(plain)
    if encoder:
        files[ENCODER] = encoder.content
    return _write(destination, manifest, files)


def _manifest(
    *,
    name: str,
    recipe: str,
    options: dict[str, Any],
    z_dim: int,
    image_set: ImageSet,
    has_mapping: bool,
    metrics: tuple[Metric, ...],
    parity: Parity,
) -> Manifest:
    """The manifest of a new bundle, without the digests of its files."""
    image = _image_of(image_set)
    inputs, outputs = tensor_specs(
        z_dim, image, conditional=image_set.shape.num_classes > 0, has_mapping=has_mapping
    )
    return Manifest(
        schema_version=image.schema_version,
        name=name,
        version=1,  # the repository sets the real one when it publishes
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        z_dim=z_dim,
        image=image,
        labels=image_set.label_names,
        inputs=inputs,
        outputs=outputs,
        recipe=recipe,
        options=options,
        dataset=Dataset(
            name=image_set.name,
            num_images=len(image_set),
            fingerprint=image_set.fingerprint,
            content=None if image_set.weights is None else image_set.content,
        ),
        source_commit=source_commit(),
        metrics=metrics,
        parity=parity,
        files={},
    )


def _image_of(image_set: ImageSet) -> ImageSpec:
    """The images that a generator makes which was trained on these."""
    shape = image_set.shape
    channels: dict[int, Literal[1, 3, 4]] = {1: 1, 3: 3, 4: 4}
    return ImageSpec(height=shape.height, width=shape.width, channels=channels[shape.channels])


def _samples(sampler: Sampler, shape: ImageShape) -> bytes:
    """samples.png: the images of the first seeds."""
    columns, rows = sample_layout(shape.height, shape.width)
    return png(grid(sampler(np.arange(columns * rows, dtype=np.uint64)), columns))


def check_parity(expected: Sampler, found: Sampler) -> Parity:
    """Compares images of the same seeds, PARITY_SEEDS at most, from two generators.

    Raises:
        ExportError: a pixel differs by more than PARITY_TOLERANCE.
    """
    height, width = expected(np.zeros(1, dtype=np.uint64)).shape[1:3]
    fitting = max(_MIN_PARITY_SEEDS, _PARITY_PIXELS // (height * width))
    seeds = np.arange(min(PARITY_SEEDS, fitting), dtype=np.uint64)
    difference = _difference(expected(seeds), found(seeds))
    if difference > PARITY_TOLERANCE:
        raise ExportError(
            f"model.onnx differs from torch by up to {difference}/255 on {len(seeds)} seeds, "
            f"allowed are {PARITY_TOLERANCE}/255; torch.onnx.export translates one of the "
            "generator's operations wrongly: compare the two layer by layer"
        )
    return Parity(max_abs_diff=difference, num_seeds=len(seeds))


def check_batch_independence(sampler: Sampler) -> None:
    """Compares the images of the same seeds between batches of every size in BATCH_SIZES.

    Raises:
        ExportError: an image depends on the other images of its batch.
    """
    seeds = np.arange(max(BATCH_SIZES), dtype=np.uint64)
    expected = sampler(seeds)
    for size in BATCH_SIZES:
        parts = [sampler(seeds[i : i + size]) for i in range(0, len(seeds), size)]
        difference = _difference(expected, np.concatenate(parts))
        if difference:
            raise ExportError(
                f"images of the same seeds differ by up to {difference}/255 between batches of "
                f"{size} and of {len(seeds)}: the generator mixes the images of a batch; remove "
                "the layer that does (batch statistics in eval mode, a minibatch layer)"
            )


def check_served_batches(sampler: Sampler, image: ImageSpec) -> None:
    """Makes batches of every size that a server runs, odd ones too; image: their shape.

    Raises:
        ExportError: a batch can't be made, or its images depend on its size.
    """
    try:
        check_sampler(sampler, image, batch_sizes(MAX_BATCH_ROWS), where="model.onnx")
    except ModelError as error:
        raise ExportError(str(error)) from error


@dataclass(frozen=True)
class _Encoder:
    """The content of encoder.onnx, and its largest difference from torch."""

    content: bytes
    parity: Metric


def _encoder(encoder: UInt8Encoder | None, image_set: ImageSet) -> _Encoder | None:
    """Exports an encoder and compares it with torch on real images; None for None."""
    if encoder is None:
        return None
    images = image_set.images[:ENCODER_IMAGES].cpu().permute(0, 2, 3, 1).contiguous()
    labels = None if image_set.labels is None else image_set.labels[:ENCODER_IMAGES].cpu()
    blank = torch.zeros(2, *images.shape[1:], dtype=torch.uint8)
    data = encoder_to_onnx(encoder, blank, conditional=labels is not None)
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = encoder(images, labels).numpy()
    feed = {"image": images.numpy()} | ({} if labels is None else {"label": labels.numpy()})
    # In two batches, so that an encoder that mixes images of a batch differs.
    parts = [
        session.run(["z"], {name: rows[part] for name, rows in feed.items()})[0]
        for part in (slice(0, 1), slice(1, None))
    ]
    difference = float(np.abs(np.concatenate(parts) - expected).max())
    if not difference <= ENCODER_TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise ExportError(
            f"{ENCODER} differs from torch by up to {difference:.2g} in z on {len(images)} images, "
            f"allowed is {ENCODER_TOLERANCE:g} of the largest |z|; the encoder mixes the images of "
            "a batch, or torch.onnx.export translates one of its operations wrongly: compare the "
            "two layer by layer"
        )
    name = "encoder parity with torch (max difference of z)"
    return _Encoder(data, Metric(name=name, value=difference, protocol={"images": len(images)}))


def source_commit() -> str | None:
    """The git commit of this code, with "-dirty" after local changes; None outside a checkout."""
    here = Path(__file__)
    try:
        # An installed copy may lie inside another project's checkout, which doesn't track it.
        _git("ls-files", "--error-unmatch", here.name)
        return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return result.stdout.strip()


def _difference(expected: Images, found: Images) -> int:
    """The largest difference of two pixels, in 8-bit steps."""
    if expected.shape != found.shape:
        raise ExportError(
            f"model.onnx gives images {list(found.shape)}, expected are {list(expected.shape)}; "
            "the generator's output must be [N, C, H, W] for any N"
        )
    return int(np.abs(expected.astype(np.int16) - found).max())


def _golden(sampler: Sampler) -> Golden:
    seeds = np.arange(GOLDEN_SEEDS, dtype=np.uint64)
    return Golden(seeds=seeds, labels=sampler.labels(seeds), images=sampler(seeds))


def _write(destination: Path, manifest: Manifest, files: dict[str, bytes]) -> Bundle:
    """Writes and verifies a bundle beside its destination, and renames it at the end.

    A killed export leaves no half bundle at the destination.
    """
    staging = destination.with_name(f".{destination.name}.partial")
    try:
        shutil.rmtree(staging, ignore_errors=True)
        bundle = write_bundle(staging, manifest, files)
        bundle.verify_files()
        generate = CpuGenerator(bundle.model_path)
        bundle.verify_golden(generate)
        verify_directions(bundle, generate)
        verify_styles(bundle)
        staging.rename(destination)  # fails where the destination has come to hold files
    except OSError as error:
        raise ExportError(f"{error.filename or destination}: {error.strerror}") from error
    except ModelError as error:
        raise ExportError(str(error)) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Bundle.open(destination)
