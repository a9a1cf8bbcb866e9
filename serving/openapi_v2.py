"""The Open Inference Protocol in openapi.json: every route of `serving.oip` that does work."""

from typing import Any

from serving.errors import (
    InvalidRequestProblem,
    ModelControlProblem,
    UnavailableProblem,
    UnknownModelProblem,
)
from serving.operations import READING, binary, content, errors, get, path

_INFER = {
    "inputs": [
        {"name": "SEED", "datatype": "UINT64", "shape": [2], "data": [1, 2]},
        {"name": "LABEL", "datatype": "INT64", "shape": [1], "data": [0]},
    ]
}


def paths_v2(infer: dict[str, Any]) -> dict[str, Any]:
    """Paths and their operations. infer: the schema of an inference's JSON."""
    empty = {"200": {"description": "Yes."}}
    listed = {"200": content("As the protocol says.", {"application/json": {}})}
    ready = empty | errors((UnavailableProblem,))
    return {
        "/v2": {"get": get("v2_server", "Name, version, extensions.", listed)},
        "/v2/health/live": {"get": get("v2_live", "Does the process answer?", empty)},
        "/v2/health/ready": {"get": get("v2_ready", "Can images be made?", ready)},
        "/v2/models/stats": {"get": get("v2_all_stats", "What all models did so far.", listed)},
        **_of_a_model("/v2/models/{model}", "v2_model", infer, [path("model")]),
        **_of_a_model(
            "/v2/models/{model}/versions/{version}",
            "v2_version",
            infer,
            [path("model"), path("version", "a number", r"^[0-9]{1,9}$")],
        ),
        **_repository(),
    }


def _of_a_model(
    prefix: str, name: str, infer: dict[str, Any], parameters: list[dict[str, Any]]
) -> dict[str, Any]:
    listed = {"200": content("As the protocol says.", {"application/json": {}})}
    known = errors((UnknownModelProblem, UnavailableProblem))
    texts = {
        "": "Inputs and outputs.",
        "/ready": "Can it make images?",
        "/config": "Configuration.",
        "/stats": "What it did so far.",
    }
    paths: dict[str, Any] = {}
    for path_, text in texts.items():
        operation = name + path_.replace("/", "_")
        answers = {"200": {"description": "Yes."}} if path_ == "/ready" else listed
        paths[prefix + path_] = {"get": get(operation, text, answers | known, parameters)}
    example = {"summary": "Two images as JSON", "value": _INFER}
    outputs = {"application/json": {}, "application/octet-stream": binary()}
    paths[prefix + "/infer"] = {
        "post": {
            "operationId": f"{name}_infer",
            "summary": "Images from seeds or latents, as tensors.",
            "description": "Inputs SEED or z, LABEL, TRUNCATION; outputs image and png. With the "
            "binary extension, Inference-Header-Content-Length says how long the JSON is.",
            "parameters": parameters,
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": infer, "examples": {"seeds": example}}},
            },
            "responses": {"200": content("The outputs.", outputs), **errors(READING)},
        }
    }
    return paths


def _repository() -> dict[str, Any]:
    listed = {"200": content("Names, versions, states.", {"application/json": {}})}
    control = {"200": {"description": "Done."}} | errors(
        (ModelControlProblem, UnknownModelProblem, UnavailableProblem)
    )
    texts = {"load": "Serve what is current, now.", "unload": "Serve it no longer."}
    index = {
        "operationId": "v2_index",
        "summary": "Models of the repository, served or not.",
        "requestBody": {
            "content": {
                "application/json": {
                    "schema": {"type": "object", "properties": {"ready": {"type": "boolean"}}},
                    "examples": {"ready": {"summary": "Those served", "value": {"ready": True}}},
                }
            }
        },
        "responses": listed | errors((InvalidRequestProblem,)),
    }
    paths: dict[str, Any] = {"/v2/repository/index": {"post": index}}
    for verb, text in texts.items():
        paths[f"/v2/repository/models/{{model}}/{verb}"] = {
            "post": {
                "operationId": f"v2_{verb}",
                "summary": text,
                "parameters": [path("model")],
                "responses": control,
            }
        }
    return paths
