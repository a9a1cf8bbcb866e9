"""Run by test_v2.py in a process of its own: `tritonclient[http]`, as users have it."""

import io
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

from tests.support import wait_for


def seeds(*values: int, binary: bool = True) -> triton.InferInput:
    tensor = triton.InferInput("SEED", [len(values)], "UINT64")
    tensor.set_data_from_numpy(np.array(values, np.uint64), binary_data=binary)
    return tensor


def refused(text: str, status: str, work: Callable[[], object]) -> None:
    with pytest.raises(InferenceServerException) as error:
        work()
    assert error.value.status() == status, error.value
    assert text in error.value.message(), error.value


def metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("grey")
    assert client.is_model_ready("grey", "1")
    assert not client.is_model_ready("grey", "9")
    assert not client.is_model_ready("nix")
    assert client.get_server_metadata()["name"] == "saddlepoint"
    model = client.get_model_metadata("colour")
    assert [entry["name"] for entry in model["inputs"]] == ["SEED", "z", "LABEL", "TRUNCATION"]
    assert model["outputs"][0] == {"name": "image", "datatype": "UINT8", "shape": [-1, 16, 16, 3]}
    assert client.get_model_metadata("grey")["versions"] == ["1", "2"]
    config = client.get_model_config("grey")
    assert config["input"][0]["data_type"] == "TYPE_UINT64"
    index = client.get_model_repository_index()
    assert {entry["name"]: entry["state"] for entry in index} == {
        "colour": "READY",
        "grey": "READY",
    }
    refused("model is 'nix'", "404", lambda: client.get_model_metadata("nix"))


def inference(client: triton.InferenceServerClient) -> None:
    plain = client.infer("grey", [seeds(1, 2, 3)]).as_numpy("image")
    assert plain.shape == (3, 8, 8, 1)
    assert plain.dtype == np.uint8
    for binary in (False, True):
        for coding in (None, "gzip", "deflate"):
            result = client.infer(
                "grey",
                [seeds(1, 2, 3, binary=binary)],
                outputs=[triton.InferRequestedOutput("image", binary_data=binary)],
                request_id="seven",
                request_compression_algorithm=coding,
                response_compression_algorithm=coding,
                timeout=20_000_000,
                priority=2,
            )
            assert (result.as_numpy("image") == plain).all()
            assert result.get_response()["id"] == "seven"
    both = [triton.InferRequestedOutput(name) for name in ("png", "image")]
    result = client.infer("grey", [seeds(1, 2, 3)], outputs=both)
    for file, image in zip(result.as_numpy("png"), plain, strict=True):
        assert (np.asarray(Image.open(io.BytesIO(file))) == image[:, :, 0]).all()
    again = client.async_infer("grey", [seeds(1, 2, 3)]).get_result()
    assert (again.as_numpy("image") == plain).all()
    old = client.infer("grey", [seeds(1)], model_version="1")
    assert old.get_response()["model_version"] == "1"


def conditional(client: triton.InferenceServerClient) -> None:
    label = triton.InferInput("LABEL", [2], "INT64")
    label.set_data_from_numpy(np.array([0, 2]))
    z = triton.InferInput("z", [2, 6], "FP32")
    z.set_data_from_numpy(np.ones((2, 6), np.float32))
    psi = triton.InferInput("TRUNCATION", [1], "FP32")
    psi.set_data_from_numpy(np.array([0.5], np.float32))
    whole = client.infer("colour", [z, label]).as_numpy("image")
    assert whole.shape == (2, 16, 16, 3)
    assert (whole[0] != whole[1]).any()
    half = client.infer("colour", [z, label, psi]).as_numpy("image")
    assert (half != whole).any()
    refused("LABEL is missing", "400", lambda: client.infer("colour", [z]))
    refused(
        "not known",
        "400",
        lambda: client.infer("grey", [seeds(1)], outputs=[triton.InferRequestedOutput("latent")]),
    )
    z.set_data_from_numpy(np.full((2, 6), np.nan, np.float32))
    refused("must be finite", "400", lambda: client.infer("colour", [z, label]))


def stats_of(client: triton.InferenceServerClient) -> dict[str, Any]:
    first: dict[str, Any] = client.get_inference_statistics("grey")["model_stats"][0]
    return first


def control(client: triton.InferenceServerClient) -> None:
    wait_for(lambda: stats_of(client)["inference_count"] > 0)  # processes write now and then
    client.unload_model("grey")
    assert not client.is_model_ready("grey")
    client.load_model("grey")
    assert client.is_model_ready("grey")
    refused("not in the repository", "404", lambda: client.load_model("nix"))
    refused("not supported", "501", client.get_system_shared_memory_status)
    refused("not supported", "501", client.get_log_settings)


def main() -> None:
    with triton.InferenceServerClient(sys.argv[1], concurrency=4) as client:
        metadata(client)
        inference(client)
        conditional(client)
        control(client)
    print("all of it was as it should be")


if __name__ == "__main__":
    main()
