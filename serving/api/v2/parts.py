"""The parts of a model that take images, as models of their own: `NAME:encoder`, `NAME:score`.

A model's name never has a colon. Tensors are those of the graphs (`models.bundle.inversion` and
`models.bundle.anomaly`), without files, decoding or fitting: images have the model's size already.
The steps are those of the routes under /v1.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.bundle import ENCODER
from models.bundle.anomaly import holds
from models.bundle.inversion import EncoderTraits
from serving.api.schemas import V2Model, V2Tensor
from serving.api.v2 import tensors as v2_tensors
from serving.api.v2.messages import (
    Answer,
    check_known,
    coding_of,
    head_of,
    outputs_of,
    scheduling_of,
    typed,
    vector,
)
from serving.dispatch.catalogue import Served
from serving.errors import InvalidRequestProblem, UnknownModelProblem, quoted
from serving.http.auth import Header
from serving.http.messages import Request, Response
from serving.inference.parts.rows import ENCODER_PART, SCORE_PART
from serving.process import real_images
from serving.process.real_image_work import COPIES, RealImageWork
from serving.process.service import Service
from serving.requests.deadlines import Scheduling
from serving.requests.real_image.rules import (
    MAX_IMAGES,
    calibration_of,
    check_number,
    needed_labels,
    traits_of,
)
from serving.requests.rules import check_pixels, finite_latents
from serving.requests.styles import FIELDS
from serving.settings import Settings

Tensors = Mapping[str, v2_tensors.Array]
_OF_IMAGES = ("directions", "units_off", *FIELDS, "truncation")
"""Parameters that change images that are made: a part makes none."""
_INPUTS = {"truncation": "as its input TRUNCATION"}
"""How the model itself takes those that are no parameters of it."""


@dataclass(frozen=True)
class Part:
    """A part as a model of its own."""

    inputs: Callable[[Served, EncoderTraits], list[tuple[V2Tensor, bool]]]
    """Each with whether it may be left out."""
    outputs: Callable[[Served, EncoderTraits], list[V2Tensor]]
    steps: Callable[[RealImageWork, Served, Tensors], Awaitable[dict[str, Any]]]
    """From checked inputs to all outputs."""


def split_name(name: str) -> tuple[str, str | None]:
    """The model that a name means, and its part, if one is named.

    Raises:
        UnknownModelProblem: no model has such a part.
    """
    model, colon, part = name.partition(":")
    if not colon:
        return name, None
    if part not in PARTS:
        known = ", ".join(f"{model}:{each}" for each in PARTS)
        raise UnknownModelProblem(
            f"model is {quoted(name)}; the parts of a model are {quoted(known)[1:-1]}"
        )
    return model, part


def part_names(served: Served) -> list[str]:
    """The names of a version's parts, as of models of their own; none where it has no encoder."""
    if ENCODER not in served.manifest.files:
        return []
    return [f"{served.key[0]}:{part}" for part in PARTS]


def described(served: Served, part: str, versions: list[int]) -> tuple[V2Model, set[str]]:
    """Describes a part as the protocol does a model; with the inputs that may be left out.

    Raises:
        InvalidRequestProblem: the version has no encoder.
        UnavailableProblem: its encoder can't be read at the moment.
    """
    traits, entry = traits_of(served), PARTS[part]
    inputs = entry.inputs(served, traits)
    model = V2Model(
        name=f"{served.key[0]}:{part}",
        versions=[str(version) for version in versions],
        platform="onnx_onnxv1",
        inputs=[tensor for tensor, _ in inputs],
        outputs=entry.outputs(served, traits),
    )
    return model, {tensor.name for tensor, is_optional in inputs if is_optional}


@dataclass(frozen=True)
class Call:
    """An inference request for a part, checked."""

    served: Served
    part: str
    inputs: Tensors
    answer: Answer
    held_bytes: int
    """About what it takes in memory until it is answered."""
    scheduling: Scheduling


def read_call(
    asked: v2_tensors.InferRequest,
    given: dict[str, v2_tensors.Array],
    served: Served,
    part: str,
    header: Header,
    settings: Settings,
) -> Call:
    """Reads an inference request: what to run a part on, and what to answer.

    Args:
        asked: the request without its tensors.
        given: its tensors.
        served: the version that it means.
        part: its part.
        header: looks its headers up.
        settings: the server's.

    Raises:
        Problem: it is invalid.
    """
    model, _ = described(served, part, [])
    inputs = _checked(asked, given, served, model, settings)
    if "LABEL" in given and not holds(traits_of(served), labels_given=True):
        _leave_p_out(asked, model)
    answer = Answer(
        head=head_of(asked, model.name, served.key[1]),
        outputs=outputs_of(asked, model.outputs, [each.name for each in model.outputs]),
        coding=coding_of(header),
    )
    image = inputs["image"]
    held_bytes = image.nbytes * COPIES + answer.num_bytes(model.outputs, len(image))
    scheduling = scheduling_of(asked, header, settings)
    return Call(served, part, inputs, answer, held_bytes, scheduling)


async def run(service: Service, request: Request, call: Call) -> Response:
    """Runs a part.

    Raises:
        Problem: it is not admitted, or can't be carried out.
    """
    answer, served = call.answer, call.served

    async def steps(work: RealImageWork) -> Response:
        await work.hold(call.held_bytes)
        found = await PARTS[call.part].steps(work, served, call.inputs)
        tensors = [found[name] for name, _ in answer.outputs]
        data, timing = await work.encoded(lambda: answer.written(tensors))
        headers = (*served.headers, timing, *answer.headers())
        return Response(data, answer.media_type, 200, headers)

    request.context.model, request.context.encoding = served.key, "tensors"
    num_rows = len(call.inputs["image"])
    return await service.with_real_images(request, call.scheduling, num_rows, steps)


def _leave_p_out(asked: v2_tensors.InferRequest, model: V2Model) -> None:
    """Takes p from the outputs: a tensor has no null.

    Raises:
        InvalidRequestProblem: it is asked for.
    """
    if any(output.name == "p" for output in asked.outputs or ()):
        raise InvalidRequestProblem(
            "output 'p' is asked for and LABEL is given, but the calibration is of classes that "
            f"the encoder found; leave one of them out ({model.name} finds the class)"
        )
    model.outputs[:] = [output for output in model.outputs if output.name != "p"]


def _checked(
    asked: v2_tensors.InferRequest,
    given: dict[str, v2_tensors.Array],
    served: Served,
    model: V2Model,
    settings: Settings,
) -> dict[str, v2_tensors.Array]:
    """The inputs, each of the type and shape that it must have."""
    known = {tensor.name: tensor for tensor in model.inputs}
    # check_labels says more of a label that the model doesn't take
    check_known(
        [name for name in given if name != "LABEL" or served.manifest.conditional], list(known)
    )
    for name in _OF_IMAGES:
        if name in asked.parameters:
            where = " ".join(filter(None, (served.key[0], _INPUTS.get(name))))
            raise InvalidRequestProblem(
                f"parameter {name} is given, but {model.name} makes no images of latents; leave it "
                f"out, or give it to {where}"
            )
    if "image" not in given:
        raise InvalidRequestProblem(
            f"input 'image' is missing; {model.name} takes {', '.join(known)}"
        )
    num = given["image"].shape[0] if given["image"].ndim else 0
    check_number(num, MAX_IMAGES, "input 'image'")
    check_pixels(num, served, settings)
    checked = {
        name: _of_shape(tensor, num, known[name])
        for name, tensor in given.items()
        if name != "LABEL"
    }
    if "LABEL" in known or "LABEL" in given:
        labels: list[int] | int | None = None
        if "LABEL" in given:
            each: list[int] = vector(given["LABEL"], "LABEL", "INT64").tolist()
            labels = each[0] if len(each) == 1 else each
        found = needed_labels(labels, num, traits_of(served), served, field="LABEL")
        if found is not None:
            checked["LABEL"] = np.array(found, np.int64)
    return checked


def _of_shape(tensor: v2_tensors.Array, num: int, known: V2Tensor) -> v2_tensors.Array:
    name = known.name
    typed(tensor, name, known.datatype)
    sides: list[int] = [num, *known.shape[1:]]
    if list(tensor.shape) != sides:
        shown = ", ".join(map(str, ["N" if name == "image" else num, *sides[1:]]))
        raise InvalidRequestProblem(
            f"input {name!r} has shape {list(tensor.shape)}, must be [{shown}]: {_MEANING[name]}"
        )
    return finite_latents(tensor, sides[1], field=name) if name == "start" else tensor


_MEANING = {
    "image": "images of the model's size (height, width, channels); resize them first",
    "mask": "1 where a pixel of an image is known, else 0",
    "start": "a latent for each image",
}


def _image(served: Served) -> V2Tensor:
    image = served.manifest.image
    return V2Tensor("image", "UINT8", [-1, image.height, image.width, image.channels])


def _encoder_inputs(served: Served, traits: EncoderTraits) -> list[tuple[V2Tensor, bool]]:
    image = _image(served)
    inputs = [(image, False)]
    if traits.takes_label:
        inputs.append((V2Tensor("LABEL", "INT64", [-1]), traits.infers_label))
    if traits.fills:
        inputs.append((V2Tensor("mask", "UINT8", image.shape[:3]), True))
    if traits.varies:
        inputs.append((V2Tensor("start", "FP32", [-1, served.manifest.z_dim]), True))
    return inputs


def _encoder_outputs(served: Served, traits: EncoderTraits) -> list[V2Tensor]:
    outputs = [V2Tensor("z", "FP32", [-1, served.manifest.z_dim])]
    if traits.infers_label:
        outputs.append(V2Tensor("label_scores", "FP32", [-1, len(served.manifest.labels or ())]))
    return outputs


async def _encode(work: RealImageWork, served: Served, given: Tensors) -> dict[str, Any]:
    mask = given.get("mask")
    found = await work.encode(
        served,
        given["image"],
        masks=None if mask is None else (mask > 0).astype(np.uint8),
        starts=given.get("start"),
        labels=_labels(given),
    )
    return {"z": found.z, "label_scores": found.label_scores}


def _score_inputs(served: Served, traits: EncoderTraits) -> list[tuple[V2Tensor, bool]]:
    inputs = [(_image(served), False)]
    if served.manifest.conditional:
        inputs.append((V2Tensor("LABEL", "INT64", [-1]), traits.infers_label))
    return inputs


def _score_outputs(served: Served, traits: EncoderTraits) -> list[V2Tensor]:
    image = _image(served)
    outputs = [V2Tensor("score", "FP32", [-1])]
    if calibration_of(served) is not None:
        outputs.append(V2Tensor("p", "FP64", [-1]))
    outputs.append(V2Tensor("residual", "FP32", image.shape[:3]))
    outputs.append(V2Tensor("reconstruction", "UINT8", image.shape))
    return outputs


async def _score(work: RealImageWork, served: Served, given: Tensors) -> dict[str, Any]:
    found = await real_images.scored(work, given["image"], _labels(given), served)
    p = None if found.p is None else np.array(found.p, np.float64)
    return {
        "score": found.scores,
        "p": p,
        "residual": found.maps,
        "reconstruction": found.reconstructions,
    }


def _labels(given: Tensors) -> list[int] | None:
    label = given.get("LABEL")
    return None if label is None else label.tolist()


PARTS: dict[str, Part] = {
    ENCODER_PART: Part(_encoder_inputs, _encoder_outputs, _encode),
    SCORE_PART: Part(_score_inputs, _score_outputs, _score),
}
