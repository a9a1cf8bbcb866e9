"""What an inference of the v2 protocol means here: tensors to an order, images to tensors."""

import functools
import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.generator import Images
from serving import tensors
from serving.catalogue import Served
from serving.checks import check_labels, check_pixels, finite_latents
from serving.encodings import OfPixels
from serving.errors import InvalidRequestProblem
from serving.http import Exchange, Headers
from serving.png import encode_png
from serving.schemas import MAX_TRUNCATION, Order
from serving.settings import Settings
from serving.terms import Terms, read_terms
from serving.wording import shown

OUTPUTS = ("image", "png")
_COMPRESSORS: dict[bytes, Callable[[bytes], bytes]] = {
    b"gzip": functools.partial(gzip.compress, compresslevel=1),
    b"deflate": functools.partial(zlib.compress, level=1),
}


def metadata(served: Served, versions: list[int]) -> dict[str, Any]:
    """A model as the protocol describes it: inputs, of which either SEED or z, and outputs."""
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
    return {
        "name": manifest.name,
        "versions": [str(version) for version in versions],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": n, "datatype": d, "shape": s} for n, d, s in inputs],
        "outputs": [{"name": n, "datatype": d, "shape": s} for n, d, s in outputs],
    }


@dataclass
class InferAnswer(OfPixels):
    """The outputs that were asked for; serves one request, and keeps what its headers say."""

    head: dict[str, Any]
    outputs: list[tuple[str, bool]]
    """Name, and whether as bytes."""
    coding: bytes | None
    """Content coding of the answer."""
    json_bytes: int = 0
    label = "tensors"

    @property
    def inline_bytes(self) -> int:  # type: ignore[override]
        """Files and compressed answers are work for another thread, arrays are a copy."""
        busy = self.coding or any(name == "png" for name, _ in self.outputs)
        return 16 << 10 if busy else 1 << 20

    @property
    def media_type(self) -> str:
        """Implements `OfPixels`."""
        binary = any(binary for _, binary in self.outputs)
        return "application/octet-stream" if binary else "application/json"

    def from_images(self, images: Images) -> bytes:
        """Implements `OfPixels`."""
        outputs = [
            (name, images if name == "image" else [encode_png(image) for image in images], binary)
            for name, binary in self.outputs
        ]
        body, self.json_bytes = tensors.write(self.head, outputs)
        return _COMPRESSORS[self.coding](body) if self.coding else body

    def headers(self) -> Headers:
        """Of the answer, once it is made."""
        headers: Headers = ()
        if any(binary for _, binary in self.outputs):
            length = str(self.json_bytes).encode("ascii")
            headers += ((b"inference-header-content-length", length),)
        if self.coding:
            headers += ((b"content-encoding", self.coding), (b"vary", b"accept-encoding"))
        return headers


def first_seed(given: dict[str, tensors.Array]) -> list[int]:
    """What decides between CURRENT and a candidate; nothing where there is no seed."""
    seeds = given.get("SEED")
    if seeds is None or not seeds.size or seeds.dtype != tensors.DATATYPES["UINT64"]:
        return []
    return [int(seeds.flat[0])]


def read_order(
    request: tensors.InferRequest,
    given: dict[str, tensors.Array],
    served: Served,
    exchange: Exchange,
    settings: Settings,
) -> tuple[Order, Terms]:
    """What an inference asks for, and how it wants to be served.

    Raises:
        Problem: it can't be carried out.
    """
    manifest = served.manifest
    known = [tensor["name"] for tensor in metadata(served, [])["inputs"]]
    for name in given:
        if name not in known and name != "LABEL":  # check_labels says more of a label
            raise InvalidRequestProblem(
                f"input {shown(name)} is not known; there are {', '.join(known)}"
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
    answer = InferAnswer(
        head=_head(request, served), outputs=_outputs(request), coding=_coding(exchange)
    )
    order = Order(
        served=served,
        seeds=seeds,
        z=z,
        labels=check_labels(labels, num_rows, served, field="LABEL"),
        psi=_truncation(given),
        encoding=answer,
    )
    return order, _terms(request, exchange, settings)


def _head(request: tensors.InferRequest, served: Served) -> dict[str, Any]:
    name, version = served.key
    head: dict[str, Any] = {"model_name": name, "model_version": str(version)}
    return {**head, "id": request.id} if request.id else head


def _outputs(request: tensors.InferRequest) -> list[tuple[str, bool]]:
    for_all = request.parameters.get("binary_data_output", False)
    asked = request.outputs or [tensors.RequestedOutput("image")]
    outputs: dict[str, bool] = {}
    for output in asked:
        if output.name not in OUTPUTS:
            raise InvalidRequestProblem(
                f"output {shown(output.name)} is not known; there are {', '.join(OUTPUTS)}"
            )
        if output.name in outputs:
            raise InvalidRequestProblem(f"output {output.name!r} is asked for twice")
        if "classification" in output.parameters:
            raise InvalidRequestProblem(f"output {output.name!r}: images have no classification")
        binary = output.parameters.get("binary_data", for_all)
        if not isinstance(binary, bool):
            raise InvalidRequestProblem(
                f"output {output.name!r}: binary_data is {shown(binary)}, must be true or false"
            )
        if output.name == "png" and not binary:
            raise InvalidRequestProblem(
                "output 'png' is bytes, which JSON can't hold; ask for it with binary_data true"
            )
        outputs[output.name] = binary
    return list(outputs.items())


def _coding(exchange: Exchange) -> bytes | None:
    """A coding that is asked for alone: many clients list some that they would rather not have."""
    asked = (exchange.header(b"accept-encoding") or b"").strip().lower()
    return asked if asked in _COMPRESSORS else None


def _truncation(given: dict[str, tensors.Array]) -> float:
    if "TRUNCATION" not in given:
        return 1.0
    values = _vector(given["TRUNCATION"], "TRUNCATION", "FP32")
    if len(values) != 1 or not 0 <= values[0] <= MAX_TRUNCATION:
        raise InvalidRequestProblem(
            f"TRUNCATION is {values[:4].tolist()}, allowed is one number in 0 .. {MAX_TRUNCATION:g}"
        )
    return float(values[0])


def _terms(request: tensors.InferRequest, exchange: Exchange, settings: Settings) -> Terms:
    """Time-out in microseconds; priorities 0 (the default) and 1 go first, others are bulk."""
    terms = read_terms(exchange.header, settings)
    most = settings.request_timeout_ms
    timeout = request.parameters.get("timeout")
    if timeout is not None:
        if not _is_whole(timeout) or not 1 <= timeout <= most * 1000:
            raise InvalidRequestProblem(
                f"timeout is {shown(timeout)} (microseconds), allowed are 1 .. {most * 1000}"
            )
        terms = Terms(max(1, timeout // 1000), terms.bulk)
    priority = request.parameters.get("priority", 0)
    if not _is_whole(priority) or priority < 0:
        raise InvalidRequestProblem(
            f"priority is {shown(priority)}, must be a whole number from 0 on"
        )
    return Terms(terms.timeout_ms, terms.bulk or priority > 1)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _typed(tensor: tensors.Array, name: str, datatype: str) -> tensors.Array:
    if tensor.dtype != tensors.DATATYPES[datatype]:
        raise InvalidRequestProblem(
            f"input {name!r} has the wrong datatype ({tensor.dtype}), must be {datatype}"
        )
    return tensor


def _vector(tensor: tensors.Array, name: str, datatype: str) -> tensors.Array:
    """[N]; [N, 1] is taken too, since many clients keep a side for the batch."""
    _typed(tensor, name, datatype)
    if tensor.ndim != 1 and not (tensor.ndim == 2 and tensor.shape[1] == 1):
        raise InvalidRequestProblem(
            f"input {name!r} has shape {list(tensor.shape)}, must be [N] or [N, 1]"
        )
    return np.ravel(tensor)
