"""Converts the tensors of a v2 inference request to an order, and images to output tensors."""

import functools
import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from models.bundle.directions import DirectionError, parse_amounts
from models.bundle.generator import Images
from serving.api import v2_tensors
from serving.api.schemas import V2Inference, V2Model, V2Tensor
from serving.dispatch.catalogue import Served
from serving.encoding.bodies import PixelEncoding
from serving.encoding.png import encode_pngs
from serving.errors import InvalidRequestProblem, quoted
from serving.http.auth import Header
from serving.http.messages import Headers
from serving.requests.deadlines import Scheduling, read_scheduling
from serving.requests.directions import applied
from serving.requests.generate import MAX_TRUNCATION, Order
from serving.requests.rules import check_labels, check_pixels, finite_latents
from serving.requests.styles import FIELDS, StylesRequest, choice, styles_from_text
from serving.requests.units import switched_off, units_from_text
from serving.settings import Settings

OUTPUTS = ("image", "png")
_COMPRESSORS: dict[bytes, Callable[[bytes], bytes]] = {
    b"gzip": functools.partial(gzip.compress, compresslevel=1),
    b"deflate": functools.partial(zlib.compress, level=1),
}


def metadata(served: Served, versions: list[int]) -> V2Model:
    """Describes a model as the protocol does: inputs, of which either SEED or z, and outputs."""
    manifest = served.manifest
    image = manifest.image
    inputs = [("SEED", "UINT64", [-1]), ("z", "FP32", [-1, manifest.z_dim])]
    if manifest.conditional:
        inputs.append(("LABEL", "INT64", [-1]))
    inputs.append(("TRUNCATION", "FP32", [1]))
    outputs = [
        ("image", "UINT8", [-1, image.height, image.width, image.channels]),
        ("png", "BYTES", [-1]),
    ]
    return V2Model(
        name=manifest.name,
        versions=[str(version) for version in versions],
        platform="onnx_onnxv1",
        inputs=[V2Tensor(*tensor) for tensor in inputs],
        outputs=[V2Tensor(*tensor) for tensor in outputs],
    )


@dataclass
class TensorEncoding(PixelEncoding):
    """Encodes the outputs of one request, and keeps what its response headers need."""

    head: V2Inference
    """The response without its outputs."""
    outputs: list[tuple[str, bool]]
    """Name, and whether as bytes instead of JSON."""
    coding: bytes | None
    """Content-Encoding of the response."""
    told: Callable[[bytes, str, int], bytes] | None = None
    """Adds to a file of a format how the image of a row was made; None where files don't say it."""
    json_bytes: int = 0
    label = "tensors"

    @property
    def inline_bytes(self) -> int:  # type: ignore[override]
        """PNG files and compression are work for another thread; an array is only copied."""
        busy = self.coding or any(name == "png" for name, _ in self.outputs)
        return 16 << 10 if busy else 1 << 20

    @property
    def copies(self) -> int:  # type: ignore[override]
        """A number takes up to four bytes of JSON, which is put together three times."""
        return 5 if all(binary for _, binary in self.outputs) else 14

    @property
    def media_type(self) -> str:
        """JSON, unless an output follows it as bytes."""
        binary = any(binary for _, binary in self.outputs)
        return "application/octet-stream" if binary else "application/json"

    def from_images(self, images: Images) -> bytes:
        """Encodes the outputs, and compresses the body where the client asked for it."""
        outputs = [
            (name, images if name == "image" else self.files(images), binary)
            for name, binary in self.outputs
        ]
        body, self.json_bytes = v2_tensors.write(self.head, outputs)
        return _COMPRESSORS[self.coding](body) if self.coding else body

    def files(self, images: Images) -> list[bytes]:
        """Encodes images as PNG files."""
        files = encode_pngs(images)
        if self.told is None:
            return files
        return [self.told(data, "png", row) for row, data in enumerate(files)]

    def headers(self) -> Headers:
        """Returns the response headers; only valid after `from_images`."""
        headers: Headers = ()
        if any(binary for _, binary in self.outputs):
            length = str(self.json_bytes).encode("ascii")
            headers += ((b"inference-header-content-length", length),)
        if self.coding:
            headers += ((b"content-encoding", self.coding), (b"vary", b"accept-encoding"))
        return headers


def first_seed(given: dict[str, v2_tensors.Array]) -> list[int]:
    """Returns the seed that decides between CURRENT and a candidate, if there is one."""
    seeds = given.get("SEED")
    if seeds is None or not seeds.size or seeds.dtype != v2_tensors.DATATYPES["UINT64"]:
        return []
    return [int(seeds.flat[0])]


def read_order(
    infer: v2_tensors.InferRequest,
    given: dict[str, v2_tensors.Array],
    served: Served,
    header: Header,
    settings: Settings,
    *,
    encoding: Callable[..., TensorEncoding] = TensorEncoding,
) -> tuple[Order, Scheduling]:
    """Reads an inference request: what to make, its deadline and its priority.

    Args:
        infer: the request without its tensors.
        given: its tensors.
        served: the version that it means.
        header: looks its headers up.
        settings: the server's.
        encoding: makes what writes the answer.

    Raises:
        Problem: it is invalid.
    """
    manifest = served.manifest
    known = [tensor.name for tensor in metadata(served, []).inputs]
    for name in given:
        if name not in known and name != "LABEL":  # check_labels says more of a label
            raise InvalidRequestProblem(
                f"input {quoted(name)} is not known; there are {', '.join(known)}"
            )
    if ("SEED" in given) == ("z" in given):
        which = "both" if "SEED" in given else "neither"
        raise InvalidRequestProblem(f"{which} of the inputs SEED and z is given; give one of them")
    seeds, z = None, None
    if "SEED" in given:
        seeds = _vector(given["SEED"], "SEED", "UINT64").tolist()
        num_rows = len(seeds)
    else:
        z = finite_latents(_typed(given["z"], "z", "FP32"), manifest.z_dim, field="z")
        z = z.copy()  # it may be a part of the body, which would stay in memory with it
        num_rows = len(z)
    if not 1 <= num_rows <= settings.max_seeds:
        raise InvalidRequestProblem(
            f"{num_rows} rows are asked for, allowed are 1 .. {settings.max_seeds}; "
            "split the request"
        )
    check_pixels(num_rows, served, settings)
    labels = None
    if "LABEL" in given:
        labels = _vector(given["LABEL"], "LABEL", "INT64").tolist()
        labels = labels[0] if len(labels) == 1 else labels
    psi, directions = _truncation(given), applied(_directions(infer), served)
    styles = choice(_styles(infer), psi, directions, served)
    off = units_from_text(_text(infer, "units_off", "3,17"))
    encoded = encoding(head=_head(infer, served), outputs=_outputs(infer), coding=_coding(header))
    order = Order(
        served=served,
        seeds=seeds,
        z=z,
        labels=check_labels(labels, num_rows, served, field="LABEL"),
        psi=psi,
        directions=directions,
        styles=styles,
        off=switched_off(off, served, is_styled=styles is not None),
        encoding=encoded,
    )
    if settings.image_metadata:
        encoded.told = order.told
    return order, _scheduling(infer, header, settings)


def _head(infer: v2_tensors.InferRequest, served: Served) -> V2Inference:
    name, version = served.key
    return V2Inference(
        model_name=name, model_version=str(version), id=infer.id or msgspec.UNSET, outputs=[]
    )


def _outputs(infer: v2_tensors.InferRequest) -> list[tuple[str, bool]]:
    for_all = infer.parameters.get("binary_data_output", False)
    asked = infer.outputs or [v2_tensors.RequestedOutput("image")]
    outputs: dict[str, bool] = {}
    for output in asked:
        if output.name not in OUTPUTS:
            raise InvalidRequestProblem(
                f"output {quoted(output.name)} is not known; there are {', '.join(OUTPUTS)}"
            )
        if output.name in outputs:
            raise InvalidRequestProblem(f"output {output.name!r} is asked for twice")
        if "classification" in output.parameters:
            raise InvalidRequestProblem(f"output {output.name!r}: images have no classification")
        binary = output.parameters.get("binary_data", for_all)
        if not isinstance(binary, bool):
            raise InvalidRequestProblem(
                f"output {output.name!r}: binary_data is {quoted(binary)}, must be true or false"
            )
        if output.name == "png" and not binary:
            raise InvalidRequestProblem(
                "output 'png' is bytes, which JSON can't hold; ask for it with binary_data true"
            )
        outputs[output.name] = binary
    return list(outputs.items())


def _coding(header: Header) -> bytes | None:
    """Only a coding that is asked for alone: many clients list some that they don't prefer."""
    asked = (header(b"accept-encoding") or b"").strip().lower()
    return asked if asked in _COMPRESSORS else None


def _text(infer: v2_tensors.InferRequest, name: str, example: str) -> str | None:
    """Reads a parameter that is a string; None where it is absent."""
    text = infer.parameters.get(name)
    if text is not None and not isinstance(text, str):
        raise InvalidRequestProblem(
            f"parameter {name} is {quoted(text)}, must be a string such as {example!r}"
        )
    return text


def _directions(infer: v2_tensors.InferRequest) -> dict[str, float]:
    """Reads the parameter `directions`: the protocol's parameters are plain values."""
    text = _text(infer, "directions", "0:1.5,slant:-1")
    try:
        return parse_amounts(text) if text else {}
    except DirectionError as error:
        raise InvalidRequestProblem(f"parameter directions: {error}") from None


def _styles(infer: v2_tensors.InferRequest) -> StylesRequest | None:
    examples = dict(zip(FIELDS, ("7", "4,5,6", "0.5,0.7,1"), strict=True))
    given = {name: _text(infer, name, example) for name, example in examples.items()}
    return styles_from_text({name: text for name, text in given.items() if text is not None})


def _truncation(given: dict[str, v2_tensors.Array]) -> float:
    if "TRUNCATION" not in given:
        return 1.0
    values = _vector(given["TRUNCATION"], "TRUNCATION", "FP32")
    if len(values) != 1 or not 0 <= values[0] <= MAX_TRUNCATION:
        raise InvalidRequestProblem(
            f"TRUNCATION is {values[:4].tolist()}, allowed is one number in 0 .. {MAX_TRUNCATION:g}"
        )
    return float(values[0])


def _scheduling(infer: v2_tensors.InferRequest, header: Header, settings: Settings) -> Scheduling:
    """Reads deadline and priority; timeout is in microseconds, a priority above 1 means bulk."""
    terms = read_scheduling(header, settings)
    most = settings.request_timeout_ms
    timeout = infer.parameters.get("timeout")
    if timeout is not None:
        if not _is_whole(timeout) or not 1 <= timeout <= most * 1000:
            raise InvalidRequestProblem(
                f"timeout is {quoted(timeout)} (microseconds), allowed are 1 .. {most * 1000}"
            )
        terms = Scheduling(max(1, timeout // 1000), terms.bulk)
    priority = infer.parameters.get("priority", 0)
    if not _is_whole(priority) or priority < 0:
        raise InvalidRequestProblem(
            f"priority is {quoted(priority)}, must be a whole number from 0 on"
        )
    return Scheduling(terms.timeout_ms, terms.bulk or priority > 1)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _typed(tensor: v2_tensors.Array, name: str, datatype: str) -> v2_tensors.Array:
    if tensor.dtype != v2_tensors.DATATYPES[datatype]:
        raise InvalidRequestProblem(
            f"input {name!r} has the wrong datatype ({tensor.dtype}), must be {datatype}"
        )
    return tensor


def _vector(tensor: v2_tensors.Array, name: str, datatype: str) -> v2_tensors.Array:
    """Flattens [N] or [N, 1]: many clients keep a side for the batch."""
    _typed(tensor, name, datatype)
    if tensor.ndim != 1 and not (tensor.ndim == 2 and tensor.shape[1] == 1):
        raise InvalidRequestProblem(
            f"input {name!r} has shape {list(tensor.shape)}, must be [N] or [N, 1]"
        )
    return np.ravel(tensor)
