"""What the routes for real images answer: the types of their JSON, and how bodies are made."""

import base64
from typing import Annotated, Any

import msgspec
import numpy as np

from models.bundle.generator import Images
from models.image_metadata import provenance, with_metadata
from serving.api.schemas import ResponseBody
from serving.dispatch.catalogue import Served
from serving.encoding.bodies import Alone, Array, Encoding, FileEncoding
from serving.encoding.formats import FORMATS, Format, encode_npy
from serving.process.real_images import Answered, Encoded, Scored

_SHARE = "in parts of the range squared: 0.01 is 20 dB"


def _meta(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class EncodedImageLatent(ResponseBody):
    """The latent of one image."""

    latent: Annotated[list[float], _meta("z: what /v1/generate takes as a row of latents.")]
    label: Annotated[int | None, _meta("Its class, given or found; null without classes.")]
    label_scores: Annotated[
        list[float] | None, _meta("Where the encoder finds the class: the largest is it.")
    ]
    error: Annotated[
        float | None,
        _meta(f"With reconstruct: mean squared difference from the reconstruction, {_SHARE}."),
    ]
    reconstruction: Annotated[str | None, _meta("With reconstruct: a PNG as base64.")]


class EncodedImageLatents(ResponseBody):
    """The latents of images, in their order."""

    model: str
    version: int
    digest: str
    images: list[EncodedImageLatent]


class AnsweredImage(ResponseBody):
    """One answer."""

    data: Annotated[str, _meta("The image as base64.")]
    seed: int | None
    label: int | None
    error: Annotated[
        float,
        _meta(
            "Mean squared difference of the model's own image from what is known of the one that "
            f"was sent, {_SHARE}. Of an enlarged one, when it is made small again."
        ),
    ]


class AnsweredImages(ResponseBody):
    """The answers to one image."""

    model: str
    version: int
    digest: str
    media_type: str
    note: Annotated[str, _meta("What must not be forgotten of them; it is in every file, too.")]
    images: list[AnsweredImage]
    spread: Annotated[
        float | None,
        _meta("Of several: standard deviation over the answers, mean of all pixels, in 1/255."),
    ]
    spread_map: Annotated[
        str | None, _meta("Of several: the same of each pixel, as a grey PNG in base64; 255 is 64.")
    ]


class ScoredImage(ResponseBody):
    """How unusual one image is."""

    score: Annotated[float, _meta("0 where the model makes it exactly; comparable in a model.")]
    p: Annotated[
        float | None,
        _meta(
            "Conformal: the share of usual images that score as high. Small is unusual; whoever "
            "calls p <= alpha unusual is wrong on a share alpha of usual images. Null without "
            "calibration, and where labels are given to an encoder that finds the class: the "
            "calibration's scores are of classes that it found."
        ),
    ]
    label: int | None
    map: Annotated[
        str | None,
        _meta("With maps: where it differs, as a grey PNG in base64; 255 is map_max."),
    ]
    map_max: Annotated[float | None, _meta("The largest squared difference of a pixel, 0 .. 4.")]
    reconstruction: Annotated[str | None, _meta("With maps: a PNG as base64.")]


class ScoredImages(ResponseBody):
    """How unusual images are, in their order."""

    model: str
    version: int
    digest: str
    compares: Annotated[list[str], _meta("What the score is of: pixels, and features if it can.")]
    num_calibration: Annotated[int, _meta("Usual images of the calibration; 0 for none.")]
    images: list[ScoredImage]


_PNG = FORMATS["png"]
_SPREAD_SCALE = 4  # a standard deviation of 64 is white


def encoded_body(found: Encoded, media_type: str) -> bytes:
    """The body of /v1/encode."""
    if media_type != "application/json":
        return _float_npy(found.z)
    labels, scores = found.labels, found.label_scores
    entries = [
        EncodedImageLatent(
            latent=row.tolist(),
            label=None if labels is None else labels[index],
            label_scores=None if scores is None else scores[index].tolist(),
            error=None if found.errors is None else found.errors[index],
            reconstruction=_png(
                None if found.reconstructions is None else found.reconstructions[index]
            ),
        )
        for index, row in enumerate(found.z)
    ]
    return msgspec.json.encode(EncodedImageLatents(*_model(found.served), entries))


def answered_body(found: Answered, encoding: Encoding, operation: str, *, describes: bool) -> bytes:
    """The body of /v1/edit, /v1/inpaint and /v1/upscale."""
    if isinstance(encoding, Array):
        return encode_npy(found.images)
    assert isinstance(encoding, FileEncoding)
    files = [
        _file(found, row, encoding.format, operation, describes=describes)
        for row in range(len(found.images))
    ]
    if isinstance(encoding, Alone):
        return files[0]
    seeds, labels = found.seeds, found.labels
    entries = [
        AnsweredImage(
            data=_text(data),
            seed=None if seeds is None else seeds[index],
            label=None if labels is None else labels[index],
            error=found.errors[index],
        )
        for index, data in enumerate(files)
    ]
    spread, spread_map = None, None
    if found.spread is not None:
        spread = float(found.spread.mean())
        shown = (found.spread * _SPREAD_SCALE).round().clip(0, 255).astype(np.uint8)
        spread_map = _png(shown[:, :, None])
    kind = encoding.format.media_type
    return msgspec.json.encode(
        AnsweredImages(*_model(found.served), kind, found.note, entries, spread, spread_map)
    )


def scored_body(found: Scored, *, with_maps: bool) -> bytes:
    """The body of /v1/score."""
    entries = []
    for index, score in enumerate(found.scores):
        shown, largest = found.maps[index], float(found.maps[index].max())
        grey = (shown / (largest or 1.0) * 255).round().astype(np.uint8)[:, :, None]
        entries.append(
            ScoredImage(
                score=float(score),
                p=None if found.p is None else found.p[index],
                label=None if found.labels is None else found.labels[index],
                map=_png(grey) if with_maps else None,
                map_max=largest if with_maps else None,
                reconstruction=_png(found.reconstructions[index]) if with_maps else None,
            )
        )
    compares = ["pixels", *(["features"] if found.has_features else [])]
    return msgspec.json.encode(
        ScoredImages(*_model(found.served), compares, found.num_calibration, entries)
    )


def _file(found: Answered, row: int, format: Format, operation: str, *, describes: bool) -> bytes:
    """One answer as a file, which says what it is even where files say nothing else."""
    told = {"note": found.note}
    if describes:
        name, version, digest = _model(found.served)
        told = (
            {"operation": operation}
            | told
            | provenance(
                model=name,
                version=version,
                digest=digest,
                truncation=1.0,
                label=None if found.labels is None else found.labels[row],
                directions=found.directions,
            )
        )
        if found.seeds is not None:
            told["start_seed"] = str(found.seeds[row])  # a seed alone would not make it again
    return with_metadata(format.encode(found.images[row]), format.name, told)


def _model(served: Served) -> tuple[str, int, str]:
    return (*served.key, served.bundle.digest)


def _png(image: Images | None) -> str | None:
    return None if image is None else _text(_PNG.encode(np.ascontiguousarray(image)))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _float_npy(array: Any) -> bytes:
    return encode_npy(np.ascontiguousarray(array, np.float32))
