"""Bodies with millions of values: refused before they are decoded, whatever their route.

Not timed: what is refused must not have been made, and what is made takes memory.
"""

import json
import tracemalloc
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from models.seed_list import TooManySeedsError, seeds_of
from serving.api.v2 import repository, tensors
from serving.dispatch.catalogue import Catalogue, Served
from serving.errors import InvalidRequestProblem
from serving.http.json_body import SMALL_BYTES, Most, check_values, decode
from serving.requests import generate, interpolate, job
from serving.requests.real_image.fields import (
    EditRequest,
    EncodeRequest,
    InpaintRequest,
    ScoreRequest,
    UpscaleRequest,
    read_fields,
)
from serving.requests.units import switched_off
from serving.settings import Settings

CATALOGUE = cast(Catalogue, SimpleNamespace(current=()))
SETTINGS = Settings(max_job_images=3000)
NUM = 1_000_000
Reader = Callable[[bytes], Any]


def field(name: str, entry: str) -> bytes:
    return f'{{"{name}":[{entry}'.encode() + f",{entry}".encode() * NUM + b"]}"


def infer(data: bytes) -> bytes:
    return b'{"inputs":[{"name":"SEED","datatype":"UINT64","shape":[1],"data":[%s]}]}' % data


def in_parts(data: bytes) -> bytes:
    return b'--x\r\nContent-Disposition: form-data; name="seeds"\r\n\r\n' + data + b"\r\n--x--"


readers: dict[str, tuple[Reader, list[str]]] = {
    "generate": (
        lambda body: generate.decode_request(body, CATALOGUE, SETTINGS),
        ["seeds", "latents", "labels", "units_off", "unknown"],
    ),
    "interpolate": (
        lambda body: interpolate.decode_walk(body, CATALOGUE, SETTINGS),
        ["seeds", "latents", "durations_ms", "units_off"],
    ),
    "jobs": (lambda body: job.read_job(body, CATALOGUE, SETTINGS), ["seeds", "labels"]),
    "control": (lambda body: decode(repository._control_decoder, body), ["parameters"]),
    **{
        kind.__name__: (
            lambda body, kind=kind: read_fields(kind, body, b"application/json"),
            ["seeds", "images", "labels", "label"],
        )
        for kind in (EditRequest, EncodeRequest, InpaintRequest, ScoreRequest, UpscaleRequest)
    },
    "v2": (
        lambda body: tensors.read(body, None, tensors.Limits({"SEED": 1024}, 1024)),
        ["inputs", "outputs", "parameters"],
    ),
}
bodies: dict[str, tuple[Reader, bytes]] = {
    f"{name} {what} of {entry}": (reader, field(what, entry))
    for name, (reader, fields) in readers.items()
    for what in fields
    for entry in ("1", '"1"', "[1]", "{}")
}
bodies["jobs text"] = (readers["jobs"][0], b'{"seeds":"1' + b",1" * NUM + b'"}')
bodies["v2 flat"] = (readers["v2"][0], infer(b"1" + b",1" * NUM))
bodies["v2 nested"] = (readers["v2"][0], infer(b"[1]" + b",[1]" * NUM))
bodies["v2 empty lists in each other"] = (readers["v2"][0], infer(b",".join([b"[" * 99] * 9999)))
bodies["multipart"] = (
    lambda body: read_fields(UpscaleRequest, body, b"multipart/form-data; boundary=x"),
    in_parts(b"[1" + b",1" * NUM + b"]"),
)


@pytest.mark.parametrize("name", bodies)
def test_a_body_of_millions_is_refused_and_nothing_made_of_it(name: str) -> None:
    read, body = bodies[name]
    copies = 4 if name == "multipart" else 1  # it is cut into its parts
    tracemalloc.start()
    with pytest.raises(InvalidRequestProblem, match=r"the body has about \d+ (value|list|object)s"):
        read(body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < copies * len(body) + 100_000  # decoded, it takes at least four times as much


def test_what_limits_allow_is_decoded() -> None:
    rows = [[0.123456789] * 512] * 100
    request = generate.decode_request(json.dumps({"latents": rows}).encode(), CATALOGUE, SETTINGS)
    assert request.latents == rows
    body = json.dumps({"seeds": ["12345678901234567890"] * 3000}).encode()
    assert len(body) > SMALL_BYTES
    assert len(generate.decode_request(body, CATALOGUE, SETTINGS).seeds or []) == 3000
    text = b"," * 12_000 + b"[" * 2_100 + b"{" * 2_000
    check_values(text, Most(10_000, 100))
    for most in (Most(9_999, 100), Most(10_000, 99)):
        with pytest.raises(InvalidRequestProblem, match="split the request"):
            check_values(text, most)


def test_a_small_body_is_not_looked_through() -> None:
    decoder = msgspec.json.Decoder(dict[str, list[int]])
    values = [1] * (SMALL_BYTES // 4)
    assert decode(decoder, json.dumps({"a": values}, separators=(",", ":")).encode()) == {
        "a": values
    }


def test_seeds_are_counted_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (generate, job):
        monkeypatch.setattr(module, "as_seeds", pytest.fail)
    many = ["1"] * 5000
    request = generate.GenerateRequest(seeds=cast(list[int | str], many))
    with pytest.raises(InvalidRequestProblem, match=r"has 5000 entries, allowed are 1 \.\. 1024"):
        generate.order(request, CATALOGUE, SETTINGS)
    body = json.dumps({"seeds": many}).encode()
    with pytest.raises(InvalidRequestProblem, match=r"5000 images are asked for.* 1 \.\. 3000"):
        job.read_job(body, CATALOGUE, SETTINGS)


def test_units_are_counted_before_they_are_looked_at() -> None:
    served = cast(Served, SimpleNamespace(key=("m", 1), units=SimpleNamespace(num=4)))
    with pytest.raises(InvalidRequestProblem, match="has 5 entries, this model has 4 units"):
        switched_off([0, 1, 2, 3, -1], served, is_styled=False)


@pytest.mark.parametrize(
    "text", ["1" + ",1" * 3000, "1-3001", "5,1-3000", "0-18446744073709551615"]
)
def test_a_text_of_too_many_seeds_is_refused(text: str) -> None:
    body = json.dumps({"seeds": text}).encode()
    words = r"more than 3,000 seeds are asked for, a job may have 1 \.\. 3000; send several jobs"
    with pytest.raises(InvalidRequestProblem, match=words):
        job.read_job(body, CATALOGUE, SETTINGS)


def test_a_text_of_seeds_is_counted_before_it_is_split() -> None:
    tracemalloc.start()
    with pytest.raises(TooManySeedsError):
        seeds_of("1," * NUM, 1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * NUM
