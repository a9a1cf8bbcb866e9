"""The Open Inference Protocol in openapi.json: every route of `serving.oip`."""

import functools
import re

from serving.errors import (
    ModelControlProblem,
    UnavailableProblem,
    UnknownModelProblem,
    UnknownRouteProblem,
    UnsupportedProblem,
)
from serving.oip import UNSUPPORTED, ControlRequest, IndexRequest
from serving.openapi_answers import (
    V2Config,
    V2IndexEntry,
    V2Inference,
    V2Model,
    V2Server,
    V2Stats,
)
from serving.operations import (
    BODY,
    MAKING,
    OF_A_MODEL,
    TERMS,
    Schema,
    answer,
    binary,
    errors,
    json_of,
    operation,
    path,
    schema_of,
)
from serving.tensors import InferRequest

_INFER = {
    "inputs": [
        {"name": "SEED", "datatype": "UINT64", "shape": [2], "data": [1, 2]},
        {"name": "LABEL", "datatype": "INT64", "shape": [1], "data": [0]},
    ]
}
_LENGTH = "Inference-Header-Content-Length"
_MODEL = path("model", "digits", "its name")
_VERBS = {"unload": "Serve a model no longer.", "load": "Serve what is current, now."}
CONTROL = tuple(f"/v2/repository/models/{{model}}/{verb}" for verb in _VERBS)
"""Routes that `--model-control clients` opens."""

_operation = functools.partial(operation, told=errors)


def paths_v2() -> dict[str, Schema]:
    """Paths with their operations, by tag."""
    version = path("version", "1", "a number", r"^[0-9]{1,10}$")
    return {
        "Open Inference Protocol": {
            **_of_the_server(),
            **_of_a_model("/v2/models/{model}", "v2_model", [_MODEL]),
            **_of_a_model("/v2/models/{model}/versions/{version}", "v2_version", [_MODEL, version]),
        },
        "Model repository": _repository(),
    }


def unsupported() -> Schema:
    """Paths of the protocol that answer 501."""
    return {
        path_: {method: _unsupported(path_, method) for method in ("get", "post")}
        for path_ in UNSUPPORTED
    }


def _yes() -> Schema:
    return {"200": answer("Yes.")}


def _listed(kind: type) -> Schema:
    return {"200": answer("As the protocol says.", json_of(schema_of(kind)))}


def _of_the_server() -> Schema:
    entries = {
        "/v2": ("v2_server", "Name, version, extensions.", _listed(V2Server), ()),
        "/v2/health/live": ("v2_live", "Does the process answer?", _yes(), ()),
        "/v2/health/ready": ("v2_ready", "Can images be made?", _yes(), (UnavailableProblem,)),
        "/v2/models/stats": ("v2_all_stats", "What all models did.", _listed(V2Stats), ()),
    }
    return {path_: {"get": _operation(*entry)} for path_, entry in entries.items()}


def _of_a_model(prefix: str, name: str, parameters: list[Schema]) -> Schema:
    entries = {
        "": ("Inputs and outputs.", _listed(V2Model)),
        "/ready": ("Can it make images?", _yes()),
        "/config": ("Configuration.", _listed(V2Config)),
        "/stats": ("What it did so far.", _listed(V2Stats)),
    }
    known = (UnknownModelProblem, UnavailableProblem)
    paths = {
        prefix + part: {
            "get": _operation(
                name + part.replace("/", "_"), summary, answers, known, parameters=parameters
            )
        }
        for part, (summary, answers) in entries.items()
    }
    return paths | {prefix + "/infer": {"post": _infer(f"{name}_infer", parameters)}}


def _infer(name: str, parameters: list[Schema]) -> Schema:
    example = ("Two images as JSON", _INFER)
    octets = {"application/octet-stream": binary()}
    outputs = json_of(schema_of(V2Inference)) | octets
    made = (*OF_A_MODEL, "Server-Timing", _LENGTH)
    return _operation(
        name,
        "Images from seeds or latents, as tensors.",
        {"200": answer("The outputs.", outputs, made)},
        (*MAKING, *BODY),
        parameters=parameters,
        headers=(*TERMS, _LENGTH),
        body={
            "required": True,
            "content": json_of(schema_of(InferRequest), seeds=example) | octets,
        },
    ) | {
        "description": "Inputs SEED or z, LABEL, TRUNCATION; outputs image and png. With the "
        "binary extension, tensors follow the JSON as bytes."
    }


def _repository() -> Schema:
    index = schema_of(IndexRequest)
    listed = {"type": "array", "items": schema_of(V2IndexEntry)}
    paths: Schema = {
        "/v2/repository/index": {
            "post": _operation(
                "v2_index",
                "Models of the repository, served or not.",
                {"200": answer("Names, versions, states.", json_of(listed))},
                BODY,
                body={"content": json_of(index, ready=("Those served", {"ready": True}))},
            )
        }
    }
    control = schema_of(ControlRequest)
    for path_, (verb, summary) in zip(CONTROL, _VERBS.items(), strict=True):
        paths[path_] = {
            "post": _operation(
                f"v2_{verb}",
                summary,
                {"200": answer("Done.")},
                (*BODY, ModelControlProblem, UnknownModelProblem, UnavailableProblem),
                parameters=[_MODEL],
                body={"content": json_of(control)},
            )
        }
    return paths


def _unsupported(path_: str, method: str) -> Schema:
    examples = {"model": "digits", "region": "images", "verb": "register"}
    return _operation(
        f"{method}{re.sub(r'[/{}]+', '_', path_).rstrip('_')}",
        "Not supported: 501.",
        {},
        (UnsupportedProblem, UnknownRouteProblem),
        parameters=[path(name, examples[name]) for name in re.findall(r"{(\w+)}", path_)],
    )
