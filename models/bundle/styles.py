"""A style model in two graphs: what lies between them, w, is where images are mixed and truncated.

    mapping.onnx      z float32 [N, z_dim] (+ label int64 [N]) -> w and w_mean, float32 [N, w_dim]
    synthesis.onnx    w float32 [N, num_styles, w_dim] -> image uint8 [N, H, W, C]
    styles.npz        num_styles and w_dim, and images that mixing must give

Optional, all three or none. Their composition is model.onnx: with psi, w_mean + psi (w - w_mean) in
every style. A style is one input of the synthesis network, the coarsest first; a layer in a
request is the number of a style.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from models.bundle.archive import read_stream
from models.bundle.bundle import GOLDEN_TOLERANCE, Bundle
from models.bundle.generator import Images
from models.bundle.manifest import Manifest
from models.bundle.part import decoding, read_part
from models.bundle.runtime import open_session
from models.errors import BundleError
from models.latents import latents

MAPPING, SYNTHESIS, STYLES = "mapping.onnx", "synthesis.onnx", "styles.npz"
MAX_BYTES = 256 << 20
_NAMES = ("num_styles", "w_dim", "seeds", "labels", "others", "take", "psi", "images")

Floats = npt.NDArray[np.float32]


class Session(Protocol):
    """A graph that runs; ONNX Runtime's have this method."""

    def run(self, outputs: Sequence[str], feed: Mapping[str, Any]) -> Sequence[Any]:
        """Returns the outputs that are named."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class StyleRows:
    """How the styles of N images are made of w; each field by row."""

    psi: Floats
    """[N, num_styles]: truncation of each style."""
    other: Floats | None = None
    """[N, z_dim]: latents that some styles come from."""
    take: Floats | None = None
    """[N, num_styles]: 1 where the style is the other's, else 0."""
    shift: Floats | None = None
    """[N, num_styles, w_dim]: added to w after truncation."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StyleInfo:
    """What styles.npz holds."""

    num_styles: int
    w_dim: int
    seeds: npt.NDArray[np.uint64]
    """[G], of the golden images."""
    labels: npt.NDArray[np.int64] | None
    """[G], of conditional models."""
    others: npt.NDArray[np.uint64]
    """[G]: seeds that some styles come from."""
    take: Floats
    """[G, num_styles]."""
    psi: Floats
    """[G, num_styles]."""
    images: Images
    """[G, H, W, C]."""

    def to_bytes(self) -> bytes:
        """Encodes as a compressed .npz archive."""
        values = {name: getattr(self, name) for name in _NAMES}
        buffer = io.BytesIO()
        arrays = {name: np.asarray(value) for name, value in values.items() if value is not None}
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()

    def rows(self, z_dim: int) -> StyleRows:
        """How the golden images are mixed."""
        return StyleRows(psi=self.psi, other=latents(self.others, z_dim), take=self.take)


def styled(
    mapping: Session,
    synthesis: Session,
    z: Floats,
    label: npt.NDArray[np.int64] | None,
    rows: StyleRows,
) -> Images:
    """Makes images [N, H, W, C] of latents z [N, z_dim], with styles as `rows` says."""

    def mapped(latent: Floats) -> Sequence[Floats]:
        feed: dict[str, Any] = {"z": latent} | ({} if label is None else {"label": label})
        return mapping.run(["w", "w_mean"], feed)

    w, w_mean = mapped(z)
    ws = np.repeat(w[:, None], rows.psi.shape[1], axis=1)
    if rows.other is not None and rows.take is not None:
        other, _ = mapped(rows.other)
        ws = np.where(rows.take[:, :, None] > 0, other[:, None], ws)
    mean = w_mean[:, None]
    ws = mean + rows.psi[:, :, None] * (ws - mean)
    if rows.shift is not None:
        ws = ws + rows.shift
    images: Images = synthesis.run(["image"], {"w": np.ascontiguousarray(ws, np.float32)})[0]
    return images


def has_styles(manifest: Manifest) -> bool:
    """True where a bundle has its graph in two parts."""
    return STYLES in manifest.files


def read_styles(bundle: Bundle) -> StyleInfo | None:
    """Reads styles.npz, whose digest is compared with the manifest; None where there is none.

    Raises:
        BundleError: the file was altered, can't be read, or doesn't fit the model.
    """
    data = read_part(bundle, STYLES, max_bytes=MAX_BYTES)
    if data is None:
        return None
    with decoding(bundle.path / STYLES):
        arrays = read_stream(io.BytesIO(data), names=_NAMES, max_bytes=MAX_BYTES)
        info = StyleInfo(
            num_styles=int(arrays["num_styles"]),
            w_dim=int(arrays["w_dim"]),
            labels=arrays.get("labels"),
            **{name: arrays[name] for name in ("seeds", "others", "take", "psi", "images")},
        )
        _check(info, bundle.manifest)
    return info


def verify_styles(bundle: Bundle) -> int:
    """Mixes the golden images of a bundle's two graphs again; returns the largest difference.

    It also makes the golden images of model.onnx of them. 0 where the bundle has no such graphs.

    Raises:
        BundleError: a graph can't be used, or an image differs by more than GOLDEN_TOLERANCE.
    """
    info = read_styles(bundle)
    if info is None:
        return 0
    sessions = open_session(bundle.path / MAPPING), open_session(bundle.path / SYNTHESIS)
    return check_styles(bundle, info, *sessions)


def check_styles(bundle: Bundle, info: StyleInfo, mapping: Session, synthesis: Session) -> int:
    """The same of graphs that are loaded already."""
    golden, z_dim = bundle.golden, bundle.manifest.z_dim
    ones = np.ones((len(golden.seeds), info.num_styles), np.float32)
    wanted = [
        (golden.seeds, golden.labels, StyleRows(psi=ones), golden.images),
        (info.seeds, info.labels, info.rows(z_dim), info.images),
    ]
    largest = 0
    for seeds, labels, rows, images in wanted:
        try:
            found = styled(mapping, synthesis, latents(seeds, z_dim), labels, rows)
        except Exception as error:  # a runtime's errors share no base
            raise BundleError(
                f"{bundle.path / SYNTHESIS}: can't make the golden images: {error}; export the "
                "model again"
            ) from error
        if found.shape != images.shape or found.dtype != np.uint8:
            raise BundleError(
                f"{bundle.path / SYNTHESIS}: gave {found.dtype} images {list(found.shape)}, must "
                f"give uint8 {list(images.shape)}; export the model again"
            )
        largest = max(largest, int(np.abs(found.astype(np.int16) - images).max()))
    if largest > GOLDEN_TOLERANCE:
        raise BundleError(
            f"{bundle.path / SYNTHESIS}: golden images differ by up to {largest}/255, allowed are "
            f"{GOLDEN_TOLERANCE}/255; the two graphs are not those of model.onnx: export it again"
        )
    return largest


def _check(info: StyleInfo, manifest: Manifest) -> None:
    """Raises ValueError where arrays contradict each other or the model."""
    image, num = manifest.image, info.seeds.size
    missing = [name for name in (MAPPING, SYNTHESIS) if name not in manifest.files]
    if missing:
        raise ValueError(f"is there, but not {', '.join(missing)}")
    fits = (
        num >= 1
        and info.num_styles >= 1
        and info.w_dim >= 1
        and info.seeds.shape == info.others.shape == (num,)
        and info.seeds.dtype == info.others.dtype == np.uint64
        and info.take.shape == info.psi.shape == (num, info.num_styles)
        and info.take.dtype == info.psi.dtype == np.float32
        and info.images.shape == (num, image.height, image.width, image.channels)
        and info.images.dtype == np.uint8
        and (info.labels is None) == (manifest.labels is None)
        and (info.labels is None or info.labels.shape == (num,))
    )
    if not fits:
        raise ValueError("its arrays don't fit the model")
