"""G_ema to ONNX to a bundle that was checked: the last step of a training.

The graph ends in uint8 NHWC images, so no Python touches a pixel when it is served. Nothing is
written unless the file does what torch does. Knows the generator's call and the bundle; not how
the generator was trained, nor how a network becomes a graph (`training.graphs`).
"""

import copy
import datetime
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from models.bundle import ENCODER, Bundle, Golden, write_bundle
from models.errors import ModelError
from models.generator import CpuGenerator, Images, Sampler
from models.grid import grid, png
from models.manifest import (
    SCHEMA_VERSION,
    Dataset,
    ImageSpec,
    Manifest,
    Metric,
    Parity,
    tensor_specs,
)
from models.runtime import ort
from training.card import card
from training.data import ImageSet
from training.errors import ExportError
from training.graphs import (
    TruncatedGenerator,
    UInt8Encoder,
    byte_encoder,
    byte_generator,
    encoder_to_onnx,
    to_onnx,
)
from training.transfer import WEIGHTS, pack

PARITY_SEEDS = 256
PARITY_TOLERANCE = 1  # in 8-bit steps: torch and ONNX Runtime sum in another order
GOLDEN_SEEDS = 16
SAMPLE_SEEDS = 100
BATCH_SIZES = (1, 2, 3, 64)
ENCODER_TOLERANCE = 1e-3  # of the largest |z|, at least of 1
ENCODER_IMAGES = 256

Metrics = Callable[[Path], tuple[Metric, ...]]


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
) -> Bundle:
    """Exports a generator and writes its bundle, or raises and writes nothing.

    Args:
        G_ema: (z, label or None) to images in [-1, 1]; on any device, left as it is.
        z_dim: width of its latent.
        image_set: what it was trained on.
        recipe: the recipe's name, for the manifest.
        options: the resolved configuration, as JSON takes it.
        metrics: measures the exported model.onnx; None for no figures.
        name: the model's name.
        destination: the bundle's folder; made here.

    Raises:
        ExportError: torch can't export it, the file gives other images than torch, its images
            depend on the batch, or the folder exists or can't be written; the same of an
            encoder.
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
        parity = check_parity(
            Sampler(_TorchGenerator(G), z_dim=z_dim, num_classes=num_classes), onnx_model
        )
        check_batch_independence(onnx_model)
        figures = metrics(path) if metrics else ()
    if encoder:
        figures += (encoder.parity,)
    shape = image_set.shape
    image = ImageSpec(
        height=shape.resolution, width=shape.resolution, channels=1 if shape.channels == 1 else 3
    )
    has_mapping = isinstance(G, TruncatedGenerator)
    inputs, outputs = tensor_specs(z_dim, image, conditional=conditional, has_mapping=has_mapping)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        version=1,  # the repository gives the next one
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
        metrics=figures,
        parity=parity,
        files={},
    )
    files = {
        "model.onnx": data,
        "golden.npz": _golden(onnx_model).to_bytes(),
        "samples.png": png(grid(onnx_model(np.arange(SAMPLE_SEEDS, dtype=np.uint64)), 10)),
        "card.md": card(manifest, has_encoder=encoder is not None).encode(),
    }
    files[WEIGHTS] = pack(plain)
    if encoder:
        files[ENCODER] = encoder.content
    return _write(destination, manifest, files)


def check_parity(expected: Sampler, found: Sampler) -> Parity:
    """Compares two generators seed by seed.

    Raises:
        ExportError: they differ by more than PARITY_TOLERANCE.
    """
    seeds = np.arange(PARITY_SEEDS, dtype=np.uint64)
    difference = _difference(expected(seeds), found(seeds))
    if difference > PARITY_TOLERANCE:
        raise ExportError(
            f"model.onnx differs from torch by up to {difference}/255 on {PARITY_SEEDS} seeds, "
            f"allowed are {PARITY_TOLERANCE}/255; the generator holds something that "
            "torch.onnx.export translates wrongly: compare the two layer by layer"
        )
    return Parity(max_abs_diff=difference, num_seeds=PARITY_SEEDS)


def check_batch_independence(sampler: Sampler) -> None:
    """Makes the same seeds in batches of every size of BATCH_SIZES; the bytes must be the same.

    Raises:
        ExportError: an image depends on the rows beside it.
    """
    seeds = np.arange(max(BATCH_SIZES), dtype=np.uint64)
    expected = sampler(seeds)
    for size in BATCH_SIZES:
        parts = [sampler(seeds[i : i + size]) for i in range(0, len(seeds), size)]
        difference = _difference(expected, np.concatenate(parts))
        if difference:
            raise ExportError(
                f"images of the same seeds differ by up to {difference}/255 between batches of "
                f"{size} and of {len(seeds)}: the generator mixes the rows of a batch; take out "
                "what does (batch statistics in eval mode, a minibatch layer)"
            )


@dataclass(frozen=True)
class _Encoder:
    """encoder.onnx, and how well it agrees with torch."""

    content: bytes
    parity: Metric


def _encoder(encoder: UInt8Encoder | None, image_set: ImageSet) -> _Encoder | None:
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
    # In two batches, so that an encoder that mixes rows can't agree.
    parts = [
        session.run(["z"], {name: rows[part] for name, rows in feed.items()})[0]
        for part in (slice(0, 1), slice(1, None))
    ]
    difference = float(np.abs(np.concatenate(parts) - expected).max())
    if not difference <= ENCODER_TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise ExportError(
            f"{ENCODER} differs from torch by up to {difference:.2g} in z on {len(images)} images, "
            f"allowed is {ENCODER_TOLERANCE:g} of the largest |z|; the encoder mixes the rows of a "
            "batch, or holds something that torch.onnx.export translates wrongly"
        )
    name = "encoder parity with torch (max difference of z)"
    return _Encoder(data, Metric(name=name, value=difference, protocol={"images": len(images)}))


def source_commit() -> str | None:
    """The commit of this code, "-dirty" where it was changed since; None outside a git checkout."""
    here = Path(__file__)
    try:
        # Installed into a virtual environment, this file may lie in somebody else's checkout.
        _git("ls-files", "--error-unmatch", here.name)
        return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return result.stdout.strip()


class _TorchGenerator:
    """Implements `models.generator.Generate` with a UInt8Generator."""

    def __init__(self, G: nn.Module) -> None:
        self._G = G

    def __call__(
        self,
        z: npt.NDArray[np.float32],
        label: npt.NDArray[np.int64] | None = None,
        psi: npt.NDArray[np.float32] | None = None,
    ) -> Images:
        with torch.no_grad():
            given = (None if array is None else torch.from_numpy(array) for array in (label, psi))
            img = self._G(torch.from_numpy(z), *given)
        images: Images = img.numpy()
        return images


def _difference(expected: Images, found: Images) -> int:
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
    """Writes beside the destination and renames, so that a killed export leaves no half bundle."""
    staging = destination.with_name(f".{destination.name}.partial")
    try:
        shutil.rmtree(staging, ignore_errors=True)
        bundle = write_bundle(staging, manifest, files)
        bundle.verify_files()
        bundle.verify_golden(CpuGenerator(bundle.model_path))
        staging.rename(destination)  # refuses to replace a folder that holds anything
    except OSError as error:
        raise ExportError(f"{error.filename or destination}: {error.strerror}") from error
    except ModelError as error:
        raise ExportError(str(error)) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Bundle.open(destination)
