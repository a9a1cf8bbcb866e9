"""Messages are looked through before they are parsed: what is too much is never made."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from serving.rpc import tensors
from serving.rpc.messages import RpcError, Status
from serving.rpc.protocol import Protocol
from serving.rpc.tensors import TensorError, contents
from serving.rpc.wire import MAX_ENTRIES, MAX_FIELDS, kind_of, num_bytes

REQUEST = Protocol("inference.proto").message("ModelInferRequest")
KIND = kind_of(REQUEST.DESCRIPTOR)
FEW = MAX_ENTRIES + 1


def made(fill: Callable[[Any], object]) -> bytes:
    request = REQUEST(model_name="grey")
    fill(request)
    data: bytes = request.SerializeToString()
    return data


def many(fill: Callable[[Any], object], num: int = 500_000) -> bytes:
    """A message that says the same so often; protobuf joins what is written after each other."""
    request = REQUEST()
    fill(request)
    data: bytes = request.SerializeToString()
    return data * num


def in_an_input(contents: bytes) -> bytes:
    """Contents of one input, by their bytes."""

    def field(tag: int, data: bytes) -> bytes:
        size, written = len(data), bytearray()
        while size > 0x7F:
            written.append(size & 0x7F | 0x80)
            size >>= 7
        return bytes((tag, *written, size)) + data

    return field(0x2A, field(0x2A, contents))  # inputs and contents are both the fifth


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (many(lambda request: request.inputs.add()), f"inputs has {FEW} entries"),
        (many(lambda request: request.outputs.add()), f"outputs has {FEW} entries"),
        (many(lambda request: request.raw_input_contents.append(b"")), "raw_input_contents has"),
        (
            made(
                lambda request: [
                    request.parameters[str(i)].MergeFrom(type(request.parameters["0"])())
                    for i in range(FEW)
                ]
            ),
            f"parameters has {FEW} entries",
        ),
        (in_an_input(b"\x42\x00" * 500_000), f"inputs.contents.bytes_contents has {FEW}"),
        (b"\x0a\x01a" * 500_000, f"the message has {MAX_FIELDS + 1} fields"),  # one name is kept
        (in_an_input(b"\x28\x01" * 500_000), "the message has"),  # numbers, each for itself
        (b"\x98\x06\x01" * 500_000, "the message has"),  # unknown fields
        (b"\xa3\x06\x2a\x02\xff\xff\xa4\x06" + b"\x32\x00" * 500_000, "wire type 3 is none"),
        (b"\x2a\x02\xff\xff" + b"\x32\x00" * 500_000, "can't be decoded"),  # no input's fields
        (b"\x0a\x7fa", "goes past"),
        (b"\x80" * 20, "too long"),
        (b"\x0a", "cut off"),
    ],
)
def test_what_has_too_many_fields_is_refused(data: bytes, words: str) -> None:
    tracemalloc.start()
    with pytest.raises(RpcError) as refused:
        num_bytes(KIND, data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused.value.status == Status.INVALID_ARGUMENT
    assert words in str(refused.value)
    assert peak < 100_000  # it was not gone through


def test_what_is_allowed_is_measured() -> None:
    def fill(request: Any) -> None:
        for i in range(MAX_ENTRIES):
            request.parameters[f"p{i}"].double_param = i
            tensor = request.inputs.add(name=f"t{i}", shape=[1, 2**40], datatype="UINT64")
            tensor.contents.uint64_contents.extend([1] * 100)
            request.outputs.add(name="image").parameters["x"].bool_param = True

    data = made(fill)
    packed = MAX_ENTRIES * (100 + 7)  # 2**40 takes six bytes
    assert num_bytes(KIND, data) == 2 * len(data) + 16 * packed
    raw = made(lambda request: request.raw_input_contents.append(bytes(1 << 20)))
    assert num_bytes(KIND, raw) == 2 * len(raw)


def given(num: int, *, shape: tuple[int, ...] = (1,), name: str = "SEED") -> Any:
    request = REQUEST()
    tensor = request.inputs.add(name=name, datatype="UINT64", shape=shape)
    tensor.contents.uint64_contents.extend([7] * num)
    return request


def test_numbers_beyond_the_limit_are_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    request = given(100_000)
    with monkeypatch.context() as patched:
        patched.setattr(tensors.np, "array", pytest.fail)
        with pytest.raises(TensorError, match="'SEED' has 100000 numbers, allowed are 1024"):
            contents(request, {"SEED": 1024}.__getitem__)
    (data,) = contents(request, {"SEED": 100_000}.__getitem__)
    assert data == b"\7\0\0\0\0\0\0\0" * 100_000


def test_few_numbers_need_no_limit() -> None:
    assert contents(given(3), pytest.fail) == [b"\7\0\0\0\0\0\0\0" * 3]


def test_a_shape_has_a_bound() -> None:
    with pytest.raises(TensorError, match="shape has 100000 sides"):
        contents(given(1, shape=(1,) * 100_000), pytest.fail)
