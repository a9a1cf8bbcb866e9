"""How openapi.json describes the routes that take a real image.

The files of the examples are as small as can be; `fit` makes them the size of any model.
"""

from typing import Any

from serving.api.operations import JSON, MAKING, Content, Operation
from serving.api.real_image.answers import AnsweredImages, EncodedImageLatents, ScoredImages
from serving.encoding.formats import FORMATS, LOSSY, NPY_MEDIA_TYPE
from serving.errors import NotAcceptableProblem
from serving.http.multipart import MEDIA_TYPE as PARTS
from serving.requests.real_image.fields import (
    EditRequest,
    EncodeRequest,
    InpaintRequest,
    RealImageRequest,
    ScoreRequest,
    UpscaleRequest,
)

_STROKE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAH0lEQVR42mNgQAL//zMwMDDBeHgYjAwMJxgY"
    "GCwQWgGESQMIXJ4XOgAAAABJRU5ErkJggg=="
)
_LOWER_HALF = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAE0lEQVR42mNgIAwY/0MZTAw4GQAjtQEHAjuD"
    "0gAAAABJRU5ErkJggg=="
)
_SMALL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAQAAAAECAAAAACMmsGiAAAAGElEQVR42mNggID/DEwMDAwMTAwnTjIAABAQ"
    "ApXHSQLlAAAAAElFTkSuQmCC"
)

_IMAGES: Content = {
    **{entry.media_type: bytes for entry in FORMATS.values()},
    NPY_MEDIA_TYPE: bytes,
    JSON: AnsweredImages,
}
_EXACT: Content = {kind: each for kind, each in _IMAGES.items() if kind not in LOSSY}
_TAKING: dict[str, Any] = MAKING | {
    "response_headers": ("X-Model", "X-Model-Version", "X-Model-Digest", "Server-Timing"),
    "problems": (*MAKING["problems"], NotAcceptableProblem),
    "tag": "Real images",
}
_ANSWERING: dict[str, Any] = _TAKING | {
    "response_headers": (*_TAKING["response_headers"], "X-Note")
}
_SENT = (
    "Files come as base64 in JSON, or as parts of multipart/form-data. They are decoded in a "
    "process of their own, and not kept."
)
_INVENTED = "What it fills in is plausible, not true; every file says so."


def _body(kind: type[RealImageRequest]) -> Content:
    return {JSON: kind, PARTS: dict}  # the same fields


ENCODE = Operation(
    id="encode",
    summary="The latents of images.",
    description=f"For models with an encoder. {_SENT}",
    body=_body(EncodeRequest),
    examples={
        "two": (
            "Two images, and how well they come back",
            {
                "model": "digits",
                "images": [_STROKE, _LOWER_HALF],
                "fit": "crop",
                "reconstruct": True,
            },
        )
    },
    response="A latent for each image.",
    content={JSON: EncodedImageLatents, NPY_MEDIA_TYPE: bytes},
    **_TAKING,
)
EDIT = Operation(
    id="edit",
    summary="A real image, changed along directions or styles.",
    description="What a step in the latent space changes is added to the image: the rest of it "
    f"stays, but for what JPEG loses. {_SENT}",
    body=_body(EditRequest),
    examples={
        "direction": (
            "Along the strongest direction",
            {"model": "digits", "image": _STROKE, "fit": "crop", "directions": {"0": 1.5}},
        )
    },
    response="The image.",
    content=_IMAGES,
    **_ANSWERING,
)
INPAINT = Operation(
    id="inpaint",
    summary="A part of a real image, filled.",
    description="Outside the mask every byte stays; so there is no JPEG. Several seeds give "
    f"several answers, and how far they differ. {_INVENTED} {_SENT}",
    body=_body(InpaintRequest),
    examples={
        "half": (
            "Three ways to fill the lower half",
            {
                "model": "digits",
                "image": _STROKE,
                "mask": _LOWER_HALF,
                "fit": "stretch",
                "seeds": [1, 2, 3],
            },
        )
    },
    response="The image, or one for each seed.",
    content=_EXACT,
    **_ANSWERING,
)
UPSCALE = Operation(
    id="upscale",
    summary="A small image, enlarged to the model's size.",
    description="error says how close the answer comes to the image when it is made small again. "
    f"{_INVENTED} {_SENT}",
    body=_body(UpscaleRequest),
    examples={
        "small": ("4x4 pixels, two answers", {"model": "digits", "image": _SMALL, "seeds": [1, 2]})
    },
    response="The image, or one for each seed.",
    content=_IMAGES,
    **_ANSWERING,
)
SCORE = Operation(
    id="score",
    summary="How unusual images are for a model.",
    description="How far an image is from what the model makes of it, where, and the p of that "
    f"among usual images, if the model is calibrated. {_SENT}",
    body=_body(ScoreRequest),
    examples={
        "maps": (
            "One image, with the map of differences",
            {"model": "digits", "images": [_STROKE], "fit": "crop", "maps": True},
        )
    },
    response="Score and p of each image.",
    content={JSON: ScoredImages},
    **_TAKING,
)
