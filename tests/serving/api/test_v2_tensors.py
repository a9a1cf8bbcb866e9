"""The v2 protocol's tensors: there and back, and a clear refusal of what doesn't fit."""

import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serving.api.schemas import V2Inference
from serving.api.v2 import tensors
from serving.api.v2.tensors import DATATYPES, Limits, pack_bytes, read, unpack_bytes, write
from serving.errors import InvalidRequestProblem, NotJsonProblem

LIMITS = Limits({"SEED": 1000}, 1000)

shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
arrays = st.sampled_from([d for d in DATATYPES if d != "FP16"]).flatmap(
    lambda name: st.tuples(
        st.just(name),
        hnp.arrays(DATATYPES[name], shapes, elements={"allow_nan": False, "allow_infinity": False})
        if name.startswith("FP")
        else hnp.arrays(DATATYPES[name], shapes),
    )
)


def entry(name: str, datatype: str, array: np.ndarray, *, binary: bool) -> dict[str, Any]:
    head = {"name": name, "datatype": datatype, "shape": list(array.shape)}
    if binary:
        return {**head, "parameters": {"binary_data_size": array.nbytes}}
    data = array.tolist()
    return {**head, "data": data if isinstance(data, list) else [data]}


@given(st.lists(st.tuples(arrays, st.booleans()), max_size=4))
def test_what_is_sent_is_read(sent: list[tuple[tuple[str, np.ndarray], bool]]) -> None:
    entries = [
        entry(f"t{index}", datatype, array, binary=binary)
        for index, ((datatype, array), binary) in enumerate(sent)
    ]
    head = json.dumps({"id": "x", "inputs": entries}).encode()
    tail = b"".join(array.tobytes() for (_, array), binary in sent if binary)
    request, arrays_by_name = read(head + tail, len(head), LIMITS)
    assert request.id == "x"
    for index, ((datatype, array), _) in enumerate(sent):
        got = arrays_by_name[f"t{index}"]
        assert got.dtype == DATATYPES[datatype]
        assert got.shape == array.shape
        assert (got == array).all()


@given(st.lists(st.tuples(arrays, st.booleans()), max_size=4), st.lists(st.binary(max_size=9)))
def test_what_is_written_can_be_read(
    made: list[tuple[tuple[str, np.ndarray], bool]], files: list[bytes]
) -> None:
    outputs: list[tuple[str, Any, bool]] = [
        (f"t{index}", array, binary) for index, ((_, array), binary) in enumerate(made)
    ]
    response = V2Inference(model_name="grey", model_version="2", id="7", outputs=[])
    body, json_bytes = write(response, [*outputs, ("files", files, True)])
    head, rest = json.loads(body[:json_bytes]), body[json_bytes:]
    for written, ((datatype, array), binary) in zip(head["outputs"], made, strict=False):
        assert written["datatype"] == datatype
        assert written["shape"] == list(array.shape)
        if binary:
            size = written["parameters"]["binary_data_size"]
            assert rest[:size] == array.tobytes()
            rest = rest[size:]
        else:
            assert written["data"] == array.ravel().tolist()
    assert head["outputs"][-1]["shape"] == [len(files)]
    assert unpack_bytes(rest) == files


@given(st.lists(st.binary(max_size=20)))
def test_bytes_survive_the_wire(elements: list[bytes]) -> None:
    assert unpack_bytes(pack_bytes(elements)) == elements


@given(st.binary(max_size=40))
def test_any_bytes_are_elements_or_refused(data: bytes) -> None:
    with contextlib.suppress(InvalidRequestProblem):
        assert pack_bytes(unpack_bytes(data)) == data


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2)
    ),
    max_leaves=4,
)
wild_tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["SEED", "z"]) | json_values,
        "shape": st.lists(st.integers(-2, 9) | st.integers(0, 2**70), max_size=3)
        | st.lists(st.just(1), max_size=99)
        | json_values,
        "datatype": st.sampled_from([*DATATYPES, "BYTES", "x"]) | json_values,
        "data": json_values,
        "parameters": st.dictionaries(st.just("binary_data_size"), st.integers(-5, 40))
        | json_values,
    },
)


@given(st.lists(wild_tensors, max_size=2), st.binary(max_size=60), st.none() | st.integers(0, 300))
def test_nothing_but_a_problem_comes_of_what_does_not_fit(
    inputs: list[dict[str, Any]], tail: bytes, json_bytes: int | None
) -> None:
    head = json.dumps({"inputs": inputs}).encode()
    for length in (json_bytes, len(head)):
        with contextlib.suppress(InvalidRequestProblem, NotJsonProblem):
            read(head + tail, length, LIMITS)


@pytest.mark.parametrize(
    ("tensor", "tail", "words"),
    [
        ({"shape": [2], "data": [1]}, b"", "shape [2] has 2 elements, data has 1"),
        ({"shape": [1], "data": [-1]}, b"", "out of UINT64's range"),
        ({"shape": [1], "data": [1.5]}, b"", "1.5 is not of type UINT64"),
        ({"shape": [1], "data": [True]}, b"", "True is not of type UINT64"),
        ({"shape": [1]}, b"", "neither a list data nor binary_data_size"),
        (
            {"shape": [-1], "data": [1]},
            b"",
            "shape is [-1], allowed are at most 4 sides of 0 or more",
        ),
        ({"shape": [1], "parameters": {"binary_data_size": 8}}, b"1234567", "7 bytes are left"),
        ({"shape": [1], "parameters": {"binary_data_size": 7}}, b"1234567", "has 8 bytes, 7 are"),
        ({"shape": [1], "parameters": {"binary_data_size": 8}}, bytes(9), "1 bytes follow"),
        ({"shape": [1], "parameters": {"binary_data_size": -1}}, b"", "binary_data_size is -1"),
        ({"shape": [1], "data": [1], "datatype": "INT7"}, b"", "datatype is 'INT7'"),
    ],
)
def test_what_does_not_fit_is_named(tensor: dict[str, Any], tail: bytes, words: str) -> None:
    head = json.dumps({"inputs": [{"name": "SEED", "datatype": "UINT64", **tensor}]}).encode()
    with pytest.raises(InvalidRequestProblem) as refused:
        read(head + tail, len(head), LIMITS)
    assert words in refused.value.detail


@pytest.mark.parametrize("data", [[1] * 11, [[1]] * 11])
def test_a_shape_beyond_the_limit_is_refused_before_an_element_is_looked_at(
    data: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors, "_flat", pytest.fail)
    given = {"name": "SEED", "datatype": "UINT64", "shape": [len(data)], "data": data}
    for name in ("SEED", "other"):
        body = json.dumps({"inputs": [{**given, "name": name}]}).encode()
        with pytest.raises(InvalidRequestProblem, match="has 11 elements, allowed are 10"):
            read(body, None, Limits({"SEED": 10, "LABEL": 5}, 10))


def test_a_deep_nest_is_no_recursion() -> None:
    data = "[" * 900 + "1" + "]" * 900
    text = f'{{"inputs":[{{"name":"z","datatype":"FP32","shape":[1],"data":{data}}}]}}'
    _, found = read(text.encode(), None, LIMITS)
    assert found["z"].tolist() == [1.0]
