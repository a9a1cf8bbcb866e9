"""The encoder and the score of a model as tensors of the v2 protocol, against a real server."""

import io
import json
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from models.bundle import ENCODER, Bundle
from models.bundle.inversion import encode, encoder_traits
from models.bundle.runtime import inputs_of, open_session, outputs_of
from models.latents import latents
from tests.conftest import ServerProcess
from tests.serving.real_image.conftest import made, npy, text
from tests.support import metric, wait_for

Tensor = dict[str, Any]
_TYPES = {"uint8": "UINT8", "float32": "FP32", "int64": "INT64", "float64": "FP64"}


def tensor(name: str, array: np.ndarray[Any, Any]) -> Tensor:
    """An input as JSON."""
    given = array.ravel().tolist()
    return {
        "name": name,
        "datatype": _TYPES[array.dtype.name],
        "shape": list(array.shape),
        "data": given,
    }


def infer(real: ServerProcess, model: str, *inputs: Tensor, **more: Any) -> Any:
    return real.post(f"/v2/models/{model}/infer", json={"inputs": list(inputs), **more})


def arrays(answer: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """The outputs of an answer that is all JSON."""
    kinds = {word: kind for kind, word in _TYPES.items()}
    return {
        each["name"]: np.array(each["data"], kinds[each["datatype"]]).reshape(each["shape"])
        for each in answer["outputs"]
    }


def test_latents_are_those_of_v1(real: ServerProcess, bundles: dict[str, Bundle]) -> None:
    images = made(bundles["digits"], 3)
    files = [text(npy(each)) for each in images]
    listed = real.post(
        "/v1/encode", json={"model": "digits", "images": files, "format": "npy"}
    ).content
    wanted = np.load(io.BytesIO(listed))
    response = infer(real, "digits:encoder", tensor("image", images), id="mine")
    assert response.status_code == 200, response.text
    assert response.headers["x-model"] == "digits"
    assert "infer;dur=" in response.headers["server-timing"]
    answer = response.json()
    assert (answer["model_name"], answer["model_version"]) == ("digits:encoder", "1")
    assert answer["id"] == "mine"
    found = arrays(answer)
    assert np.array_equal(found["z"], wanted)
    assert found["label_scores"].argmax(1).tolist() == [0, 1, 2]
    # The same as bytes, there and back; one output alone.
    head = {
        "inputs": [
            {
                "name": "image",
                "datatype": "UINT8",
                "shape": list(images.shape),
                "parameters": {"binary_data_size": images.nbytes},
            }
        ],
        "outputs": [{"name": "z", "parameters": {"binary_data": True}}],
    }
    json_bytes = json.dumps(head).encode()
    response = real.post(
        "/v2/models/digits%3Aencoder/versions/1/infer",
        content=json_bytes + images.tobytes(),
        headers={"inference-header-content-length": str(len(json_bytes))},
    )
    assert response.status_code == 200, response.text
    length = int(response.headers["inference-header-content-length"])
    (output,) = json.loads(response.content[:length])["outputs"]
    assert output["shape"] == [3, 6]
    assert np.array_equal(np.frombuffer(response.content[length:], "<f4").reshape(3, 6), wanted)


def test_masks_starts_and_labels_reach_the_graph(
    real: ServerProcess, bundles: dict[str, Bundle]
) -> None:
    bundle, images = bundles["digits"], made(bundles["digits"], 2)
    mask = np.ones(images.shape[:3], np.uint8)
    mask[0, :, 6:] = 0
    start = latents(np.array([7, 8], np.uint64), 6)
    path = bundle.path / ENCODER
    session = open_session(path)
    traits = encoder_traits(path, bundle.manifest, inputs_of(session), outputs_of(session))
    wanted = encode(session, traits, images, z_dim=6, mask=mask, start=start)
    given = (tensor("mask", mask * 255), tensor("start", start))
    found = arrays(infer(real, "digits:encoder", tensor("image", images), *given).json())
    assert np.allclose(found["z"], wanted.z, atol=1e-5)
    assert np.allclose(found["label_scores"], wanted.label_scores, atol=1e-3)
    plain = arrays(infer(real, "digits:encoder", tensor("image", images)).json())
    assert not np.allclose(plain["z"], wanted.z, atol=1e-2)
    # One that finds the class searches under another where that is given.
    other = np.array([2, 2])
    wanted = encode(session, traits, images, z_dim=6, label=other)
    found = arrays(
        infer(real, "digits:encoder", tensor("image", images), tensor("LABEL", other)).json()
    )
    assert np.allclose(found["z"], wanted.z, atol=1e-5)
    assert not np.allclose(found["z"], plain["z"], atol=1e-2)
    # An encoder that must be told the class: one for all, or one for each.
    images = made(bundles["told"], 2)
    one, each = np.array([1]), np.array([1, 2])
    same = infer(real, "told:encoder", tensor("image", images), tensor("LABEL", one)).json()
    other = infer(real, "told:encoder", tensor("image", images), tensor("LABEL", each)).json()
    first, second = arrays(same)["z"], arrays(other)["z"]
    assert np.array_equal(first[0], second[0])
    assert not np.allclose(first[1], second[1])


def test_scores_are_those_of_v1(real: ServerProcess, bundles: dict[str, Bundle]) -> None:
    images = made(bundles["digits"], 2)
    images[1, 2:5, 2:5] ^= 255
    body = {"model": "digits", "images": [text(npy(each)) for each in images], "maps": True}
    listed = real.post("/v1/score", json=body).json()["images"]
    response = infer(real, "digits:score", tensor("image", images))
    assert response.status_code == 200, response.text
    found = arrays(response.json())
    assert found["score"].tolist() == [each["score"] for each in listed]
    assert found["p"].tolist() == [each["p"] for each in listed]
    assert found["residual"].shape == images.shape[:3]
    assert float(found["residual"][1].max()) == pytest.approx(listed[1]["map_max"])
    assert found["reconstruction"].dtype == np.uint8
    # The calibration's scores are of classes that were found: with another there is no p.
    given = tensor("LABEL", np.array([2, 3]))
    found = arrays(infer(real, "digits:score", tensor("image", images), given).json())
    assert set(found) == {"score", "residual", "reconstruction"}
    listed = real.post("/v1/score", json=body | {"labels": [2, 3]}).json()
    assert found["score"].tolist() == [each["score"] for each in listed["images"]]
    assert [each["p"] for each in listed["images"]] == [None, None]
    assert listed["num_calibration"] == 99
    # An older bundle has no calibration, and must be told nothing but the image.
    response = infer(real, "old:score", tensor("image", made(bundles["old"], 1)))
    assert set(arrays(response.json())) == {"score", "residual", "reconstruction"}


def test_parts_are_described_as_models_are(real: ServerProcess) -> None:
    model = real.get("/v2/models/digits:encoder").json()
    assert model["name"] == "digits:encoder"
    assert model["versions"] == ["1"]
    assert model["inputs"] == [
        {"name": "image", "datatype": "UINT8", "shape": [-1, 8, 12, 1]},
        {"name": "LABEL", "datatype": "INT64", "shape": [-1]},
        {"name": "mask", "datatype": "UINT8", "shape": [-1, 8, 12]},
        {"name": "start", "datatype": "FP32", "shape": [-1, 6]},
    ]
    assert model["outputs"] == [
        {"name": "z", "datatype": "FP32", "shape": [-1, 6]},
        {"name": "label_scores", "datatype": "FP32", "shape": [-1, 10]},
    ]
    config = real.get("/v2/models/told:encoder/config").json()
    assert [(each["name"], each.get("optional", False)) for each in config["input"]] == [
        ("image", False),
        ("LABEL", False),
    ]
    score = real.get("/v2/models/digits:score/versions/1").json()
    assert [each["name"] for each in score["outputs"]] == [
        *("score", "p", "residual", "reconstruction"),
    ]
    config = real.get("/v2/models/digits:score/config").json()
    assert {each["name"]: each.get("optional", False) for each in config["input"]} == {
        "image": False,
        "LABEL": True,
    }
    assert real.get("/v2/models/digits:score/ready").status_code == 200
    index = {entry["name"] for entry in real.post("/v2/repository/index").json()}
    assert {"digits", "digits:encoder", "digits:score", "bare"} <= index
    assert "bare:encoder" not in index


IMAGE = tensor("image", np.zeros((2, 8, 12, 1), np.uint8))
DIRECTIONS = {"parameters": {"directions": "0:1"}}


@pytest.mark.parametrize(
    ("model", "inputs", "more", "status", "words"),
    [
        ("bare:encoder", [IMAGE], {}, 400, "has no encoder, so it takes no images"),
        ("digits:eyes", [IMAGE], {}, 404, "the parts of a model are digits:encoder, digits:score"),
        ("nix:encoder", [IMAGE], {}, 404, "model is 'nix'"),
        ("digits:encoder", [], {}, 400, "input 'image' is missing; digits:encoder takes image, L"),
        (
            "digits:encoder",
            [{**IMAGE, "shape": [2, 12, 8, 1]}],
            {},
            400,
            "input 'image' has shape [2, 12, 8, 1], must be [N, 8, 12, 1]: images of the model's",
        ),
        (
            "digits:encoder",
            [tensor("image", np.zeros((2, 8, 12, 1), np.float32))],
            {},
            400,
            "input 'image' has the wrong datatype (float32), must be UINT8",
        ),
        ("digits:encoder", [{**IMAGE, "shape": [0, 8, 12, 1], "data": []}], {}, 400, "0 entries"),
        (
            "digits:encoder",
            [tensor("image", np.zeros((65, 8, 12, 1), np.uint8))],
            {},
            400,
            "shape [65, 8, 12, 1] has 6240 elements, allowed are 6144; split the request",
        ),
        (
            "digits:encoder",
            [IMAGE, tensor("mask", np.ones((1, 8, 12), np.uint8))],
            {},
            400,
            "input 'mask' has shape [1, 8, 12], must be [2, 8, 12]: 1 where",
        ),
        (
            "digits:encoder",
            [IMAGE, tensor("start", np.full((2, 6), 1e39).astype(np.float64))],
            {},
            400,
            "input 'start' has the wrong datatype",
        ),
        ("digits:encoder", [IMAGE, tensor("LABEL", np.array([1, -1]))], {}, 400, "LABEL[1] is -1"),
        ("old:score", [IMAGE, tensor("LABEL", np.array([1]))], {}, 400, "'old' takes none"),
        ("old:encoder", [IMAGE, tensor("mask", np.ones(2))], {}, 400, "there are image"),
        ("told:encoder", [IMAGE], {}, 400, "LABEL is missing"),
        ("told:score", [IMAGE, tensor("LABEL", np.array([1, 9]))], {}, 400, "LABEL[1] is 9"),
        ("digits:encoder", [IMAGE], {"outputs": [{"name": "w"}]}, 400, "are z, label_scores"),
        ("digits:score", [IMAGE], DIRECTIONS, 400, "makes no images of latents"),
        (
            "digits:encoder",
            [IMAGE],
            {"parameters": {"truncation": 0.5}},
            400,
            "of latents; leave it out, or give it to digits as its input TRUNCATION",
        ),
        (
            "digits:score",
            [IMAGE, tensor("LABEL", np.array([1]))],
            {"outputs": [{"name": "p"}]},
            400,
            "output 'p' is asked for and LABEL is given",
        ),
        ("digits:score", [IMAGE], {"parameters": {"timeout": 0}}, 400, "timeout is 0"),
    ],
)
def test_what_a_part_cannot_do_is_said(
    real: ServerProcess,
    model: str,
    inputs: list[Tensor],
    more: dict[str, Any],
    status: int,
    words: str,
) -> None:
    response = infer(real, model, *inputs, **more)
    assert response.status_code == status, response.text
    assert words in response.json()["error"]


def test_a_part_is_unloaded_with_its_model(real: ServerProcess) -> None:
    response = real.post("/v2/repository/models/digits:encoder/unload")
    assert response.status_code == 400
    assert "loaded and unloaded with its model; name 'digits'" in response.json()["error"]


def test_a_run_of_a_part_that_fails_is_a_503(
    real: ServerProcess, bundles: dict[str, Bundle]
) -> None:
    images = made(bundles["fragile"], 2)
    images[:, 0, 0, 0] = 12, 13
    response = infer(real, "fragile:encoder", tensor("image", images))
    assert response.status_code == 503
    assert "failed with image 1" in response.json()["error"]


def test_deadlines_and_counts_are_those_of_requests_for_images(real: ServerProcess) -> None:
    many = tensor("image", np.zeros((64, 8, 12, 1), np.uint8))
    headers = {"x-request-timeout-ms": "1"}
    response = real.post("/v2/models/digits:score/infer", json={"inputs": [many]}, headers=headers)
    assert response.status_code == 504

    def stats(name: str) -> dict[str, Any]:
        (found,) = real.get(f"/v2/models/{name}/stats").json()["model_stats"]
        return dict(found)

    # Not of `digits`: rows of the request that was too late may be counted later.
    before, rows = stats("told:encoder"), metric(real, "saddlepoint_part_rows_total")
    assert infer(real, "told:encoder", IMAGE, tensor("LABEL", np.array([1]))).status_code == 200
    wait_for(lambda: metric(real, "saddlepoint_part_rows_total") >= rows + 2)
    wait_for(lambda: stats("told:encoder")["inference_count"] == before["inference_count"] + 2)
    after = stats("told:encoder")
    assert after["execution_count"] == before["execution_count"] + 1
    assert after["inference_stats"]["compute_infer"]["ns"] > 0
    everything = real.get("/v2/models/stats").json()["model_stats"]
    assert {"told", "told:encoder"} <= {entry["name"] for entry in everything}


def test_the_stock_client_asks_parts_over_grpc(
    real: ServerProcess, bundles: dict[str, Bundle]
) -> None:
    flags = list(map(str, real.process.args))  # type: ignore[call-overload]
    grpc_port = flags[flags.index("--grpc-port") + 1]
    images = made(bundles["digits"], 2)
    with triton.InferenceServerClient(f"127.0.0.1:{grpc_port}") as client:
        assert client.is_model_ready("digits:encoder")
        described = client.get_model_metadata("digits:score")
        assert [each.name for each in described.outputs][:2] == ["score", "p"]
        assert client.get_model_config("digits:encoder").config.input[0].data_type == 2  # UINT8
        given = triton.InferInput("image", list(images.shape), "UINT8")
        given.set_data_from_numpy(images)
        result = client.infer("digits:encoder", [given], request_id="mine")
        assert result.get_response().id == "mine"
        over_http = arrays(infer(real, "digits:encoder", tensor("image", images)).json())
        assert np.array_equal(result.as_numpy("z"), over_http["z"])
        scored = client.infer("digits:score", [given])
        assert scored.as_numpy("p").dtype == np.float64
        with pytest.raises(InferenceServerException, match="has no encoder") as error:
            client.infer("bare:encoder", [given])
        assert str(error.value.status()) == "StatusCode.INVALID_ARGUMENT"
