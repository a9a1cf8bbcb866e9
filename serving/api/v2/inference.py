"""Converts the tensors of a v2 inference request to an order, and images to output tensors."""

from collections.abc import Callable
from dataclasses import dataclass

from models.bundle.directions import DirectionError, parse_amounts
from models.bundle.generator import Images
from serving.api.schemas import V2Model, V2Tensor
from serving.api.v2 import tensors as v2_tensors
from serving.api.v2.messages import (
    Answer,
    check_known,
    coding_of,
    head_of,
    outputs_of,
    scheduling_of,
    text_of,
    typed,
    vector,
)
from serving.dispatch.catalogue import Served
from serving.encoding.bodies import PixelEncoding
from serving.encoding.png import encode_pngs
from serving.errors import InvalidRequestProblem
from serving.http.auth import Header
from serving.requests.deadlines import Scheduling
from serving.requests.directions import applied
from serving.requests.generate import MAX_TRUNCATION, Order
from serving.requests.rules import check_labels, check_pixels, finite_latents
from serving.requests.styles import FIELDS, StylesRequest, choice, styles_from_text
from serving.requests.units import switched_off, units_from_text
from serving.settings import Settings

_DEFAULT_OUTPUTS = ("image",)


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
class TensorEncoding(Answer, PixelEncoding):
    """Encodes the outputs of one request for images."""

    told: Callable[[bytes, str, int], bytes] | None = None
    """Adds to a file of a format how the image of a row was made; None where files don't say it."""
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

    def from_images(self, images: Images) -> bytes:
        """Encodes the outputs, and compresses the body where the client asked for it."""
        return self.written(
            [images if name == "image" else self.files(images) for name, _ in self.outputs]
        )

    def files(self, images: Images) -> list[bytes]:
        """Encodes images as PNG files."""
        files = encode_pngs(images)
        if self.told is None:
            return files
        return [self.told(data, "png", row) for row, data in enumerate(files)]


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
    described = metadata(served, [])
    # check_labels says more of a label
    check_known(
        [name for name in given if name != "LABEL"], [each.name for each in described.inputs]
    )
    if ("SEED" in given) == ("z" in given):
        which = "both" if "SEED" in given else "neither"
        raise InvalidRequestProblem(f"{which} of the inputs SEED and z is given; give one of them")
    seeds, z = None, None
    if "SEED" in given:
        seeds = vector(given["SEED"], "SEED", "UINT64").tolist()
        num_rows = len(seeds)
    else:
        z = finite_latents(typed(given["z"], "z", "FP32"), manifest.z_dim, field="z")
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
        labels = vector(given["LABEL"], "LABEL", "INT64").tolist()
        labels = labels[0] if len(labels) == 1 else labels
    psi, directions = _truncation(given), applied(_directions(infer), served)
    styles = choice(_styles(infer), psi, directions, served)
    off = units_from_text(text_of(infer, "units_off", "3,17"))
    encoded = encoding(
        head=head_of(infer, *served.key),
        outputs=outputs_of(infer, described.outputs, _DEFAULT_OUTPUTS),
        coding=coding_of(header),
    )
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
    return order, scheduling_of(infer, header, settings)


def _directions(infer: v2_tensors.InferRequest) -> dict[str, float]:
    """Reads the parameter `directions`: the protocol's parameters are plain values."""
    text = text_of(infer, "directions", "0:1.5,slant:-1")
    try:
        return parse_amounts(text) if text else {}
    except DirectionError as error:
        raise InvalidRequestProblem(f"parameter directions: {error}") from None


def _styles(infer: v2_tensors.InferRequest) -> StylesRequest | None:
    examples = dict(zip(FIELDS, ("7", "4,5,6", "0.5,0.7,1"), strict=True))
    given = {name: text_of(infer, name, example) for name, example in examples.items()}
    return styles_from_text({name: text for name, text in given.items() if text is not None})


def _truncation(given: dict[str, v2_tensors.Array]) -> float:
    if "TRUNCATION" not in given:
        return 1.0
    values = vector(given["TRUNCATION"], "TRUNCATION", "FP32")
    if len(values) != 1 or not 0 <= values[0] <= MAX_TRUNCATION:
        raise InvalidRequestProblem(
            f"TRUNCATION is {values[:4].tolist()}, allowed is one number in 0 .. {MAX_TRUNCATION:g}"
        )
    return float(values[0])
