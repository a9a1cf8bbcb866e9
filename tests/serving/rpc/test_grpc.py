"""The Open Inference Protocol over gRPC, as Triton's own client speaks it, on a real server."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from models.image_metadata import read_metadata
from serving.api.v2.tensors import unpack_bytes
from serving.rpc.protocol import Protocol
from tests.conftest import ServerProcess, free_port, server_process
from tests.serving.conftest import make_key
from tests.support import metric, wait_for

Served = tuple[ServerProcess, str]


@pytest.fixture(scope="module")
def served(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of two HTTP processes, and its address for gRPC."""
    port = free_port()
    flags = ("--grpc-port", str(port), "--api-processes", "2", "--model-control", "clients")
    flags += ("--max-seeds", "300", "--max-body-bytes", "200000")
    with server_process(tiny_repository, tmp_path_factory.mktemp("grpc"), *flags) as running:
        yield running, f"127.0.0.1:{port}"


@pytest.fixture
def client(served: Served) -> Iterator[Any]:
    with triton.InferenceServerClient(served[1]) as opened:
        yield opened


def seeds(values: list[int], label: int | None = None) -> list[Any]:
    found = [triton.InferInput("SEED", [len(values)], "UINT64")]
    found[0].set_data_from_numpy(np.array(values, np.uint64))
    if label is not None:
        found.append(triton.InferInput("LABEL", [1], "INT64"))
        found[1].set_data_from_numpy(np.array([label], np.int64))
    return found


def code_of(error: InferenceServerException) -> str:
    return str(error.status())


def test_the_server_and_its_models_are_described(served: Served, client: Any) -> None:
    server, _ = served
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("grey")
    assert client.is_model_ready("grey", "1")
    about = client.get_server_metadata(as_json=True)
    assert about == server.get("/v2").json()
    described = client.get_model_metadata("colour", as_json=True)
    http = server.get("/v2/models/colour").json()
    for side in ("inputs", "outputs"):
        for tensor in http[side]:
            tensor["shape"] = list(map(str, tensor["shape"]))  # JSON of protobuf
    assert described == http
    config = client.get_model_config("grey").config
    assert (config.name, config.backend, config.max_batch_size) == ("grey", "onnxruntime", 0)
    assert [tensor.name for tensor in config.output] == ["image", "png"]
    assert list(config.version_policy.specific.versions) == [2]
    index = client.get_model_repository_index(as_json=True)["models"]
    assert {entry["name"]: entry["state"] for entry in index} == {
        "grey": "READY",
        "colour": "READY",
    }


def test_images_are_those_of_http(served: Served, client: Any) -> None:
    server, _ = served
    outputs = [triton.InferRequestedOutput("image"), triton.InferRequestedOutput("png")]
    result = client.infer("colour", seeds([3, 8], 2), outputs=outputs, request_id="mine")
    response = result.get_response()
    assert (response.model_name, response.model_version, response.id) == ("colour", "1", "mine")
    images = result.as_numpy("image")
    assert images.shape == (2, 16, 16, 3)
    wanted = server.generate(model="colour", seeds=[3, 8], labels=2, format="npy").content
    assert images.tobytes() == wanted[-images.size :]
    files = unpack_bytes(response.raw_output_contents[1])
    assert files[1] == server.generate(model="colour", seeds=[8], labels=2).content
    assert read_metadata(files[0])["seed"] == "3"
    before = client.get_inference_statistics("colour").model_stats[0]
    client.infer("colour", seeds([4], 0))
    wait_for(
        lambda: (
            client.get_inference_statistics("colour").model_stats[0].inference_count
            > before.inference_count
        )
    )
    older = client.infer("grey", seeds([1]), model_version="1").as_numpy("image")
    assert not np.array_equal(older, client.infer("grey", seeds([1])).as_numpy("image"))


def test_tensors_may_come_as_numbers(served: Served) -> None:
    with grpc.insecure_channel(served[1]) as channel:
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )
        request = service_pb2.ModelInferRequest(model_name="grey")
        tensor = request.inputs.add(name="SEED", datatype="UINT64", shape=[2])
        tensor.contents.uint64_contents.extend([5, 2**64 - 1])
        psi = request.inputs.add(name="TRUNCATION", datatype="FP32", shape=[1])
        psi.contents.fp32_contents.append(0.5)
        answer = infer(request)
    wanted = (
        served[0].generate(model="grey", seeds=[5, 2**64 - 1], truncation=0.5, format="npy").content
    )
    assert answer.raw_output_contents[0] == wanted[-128:]


@pytest.mark.parametrize(
    ("model", "values", "code", "words"),
    [
        ("nothing", [1], "NOT_FOUND", "nothing"),
        ("grey", [1] * 301, "INVALID_ARGUMENT", "301 rows are asked for, allowed are 1 .. 300"),
        ("colour", [1], "INVALID_ARGUMENT", "LABEL is missing"),
        ("../grey", [1], "NOT_FOUND", "grey"),
    ],
)
def test_what_cannot_be_had_is_refused_as_over_http(
    client: Any, model: str, values: list[int], code: str, words: str
) -> None:
    with pytest.raises(InferenceServerException) as refused:
        client.infer(model, seeds(values))
    assert code_of(refused.value) == f"StatusCode.{code}"
    assert words in refused.value.message()


def test_wrong_tensors_are_refused(served: Served) -> None:
    def refusal(request: Any) -> str:
        with grpc.insecure_channel(served[1]) as channel:
            infer = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer",
                request_serializer=service_pb2.ModelInferRequest.SerializeToString,
                response_deserializer=service_pb2.ModelInferResponse.FromString,
            )
            with pytest.raises(grpc.RpcError) as refused:
                infer(request)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
        return str(refused.value.details())  # type: ignore[attr-defined]

    request = service_pb2.ModelInferRequest(model_name="grey")
    request.inputs.add(name="SEED", datatype="UINT8", shape=[1]).contents.uint_contents.append(300)
    assert "a value is out of UINT8's range" in refusal(request)
    request.inputs[0].datatype = "BYTES"
    assert "BYTES comes in raw_input_contents alone" in refusal(request)
    request.raw_input_contents.extend([b"", b""])
    assert "raw_input_contents has 2 entries for 1 inputs" in refusal(request)
    assert "neither of the inputs SEED and z" in refusal(
        service_pb2.ModelInferRequest(model_name="grey")
    )


def test_large_messages_go_both_ways_compressed_or_not(served: Served, client: Any) -> None:
    """They are larger than the windows of both sides at the beginning."""
    z_dim = client.get_model_metadata("colour", as_json=True)["inputs"][1]["shape"][1]
    z = np.random.default_rng(0).standard_normal((300, int(z_dim))).astype(np.float32)
    inputs = [triton.InferInput("z", list(z.shape), "FP32"), *seeds([], 2)[1:]]
    inputs[0].set_data_from_numpy(z)
    answers = [
        client.infer("colour", inputs, compression_algorithm=algorithm).as_numpy("image")
        for algorithm in (None, "gzip", "deflate")
    ]
    assert answers[0].nbytes == 300 * 16 * 16 * 3
    assert [answer.tobytes() == answers[0].tobytes() for answer in answers] == [True] * 3
    wanted = served[0].generate(model="colour", latents=z.tolist(), labels=2, format="npy").content
    assert answers[2].tobytes() == wanted[-answers[2].size :]
    too_large = triton.InferInput("z", [30_000, int(z_dim)], "FP32")
    too_large.set_data_from_numpy(np.zeros((30_000, int(z_dim)), np.float32))
    with pytest.raises(InferenceServerException) as refused:
        client.infer("colour", [too_large, inputs[1]])
    assert code_of(refused.value) == "StatusCode.RESOURCE_EXHAUSTED"


def test_what_is_no_call_is_refused(served: Served) -> None:
    with grpc.insecure_channel(served[1]) as channel:
        for path, code, words in (
            ("/inference.GRPCInferenceService/Other", "UNIMPLEMENTED", "is not known"),
            ("/inference.GRPCInferenceService/ModelInfer", "INVALID_ARGUMENT", "can't be decoded"),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary(path)(b"\xff\xff", timeout=10)
            assert refused.value.code().name == code  # type: ignore[attr-defined]
            assert words in refused.value.details()  # type: ignore[attr-defined]
    with pytest.raises(httpx.TransportError):  # HTTP/1.1 knocks at the wrong door
        httpx.get(f"http://{served[1]}/livez")


def test_many_calls_share_a_connection(served: Served, client: Any) -> None:
    """More at once than a connection has streams; some are given up."""
    done: Queue[tuple[int, Any, Any]] = Queue()
    for number in range(400):
        call = client.async_infer(
            "grey", seeds([number]), lambda result, error, n=number: done.put((n, result, error))
        )
        if number % 10 == 9:
            call.cancel()
    found = [done.get(timeout=60) for _ in range(400)]
    answered = {n: result for n, result, error in found if error is None}
    assert len(answered) >= 360
    assert {n % 10 for n, _, error in found if error is not None} <= {9}
    one = client.infer("grey", seeds([123])).as_numpy("image")
    assert np.array_equal(answered[123].as_numpy("image"), one)


def test_the_deadline_is_grpcs_own(served: Served, client: Any) -> None:
    before = metric(served[0], "saddlepoint_rows_abandoned_total")
    values = list(range(300))
    with pytest.raises(InferenceServerException) as late:
        client.infer("grey", seeds(values), client_timeout=0.0005)
    assert code_of(late.value) == "StatusCode.DEADLINE_EXCEEDED"
    # Whether it ends at the deadline or because the client has left: its images are not made.
    wait_for(lambda: client.is_server_ready())
    assert metric(served[0], "saddlepoint_rows_abandoned_total") >= before


def test_requests_of_a_stream_are_answered_one_after_the_other(served: Served, client: Any) -> None:
    answers: Queue[tuple[Any, Any]] = Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(20):
        client.async_stream_infer("grey", seeds([number]), request_id=str(number))
    client.async_stream_infer("nothing", seeds([1]))
    client.async_stream_infer("grey", seeds([99]), request_id="last")
    found = [answers.get(timeout=30) for _ in range(22)]
    client.stop_stream()
    ids = [result.get_response().id for result, error in found if error is None]
    assert ids == [*map(str, range(20)), "last"]
    (error,) = [error for _, error in found if error is not None]
    assert "nothing" in str(error)


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("", ""),
        ("stats", ""),
        ("grey/stats", ""),
        ("grey/config", ""),
        ("grey/ready", ""),
        ("grey/versions/1", ""),
        ("grey%2Fstats", ""),
        ("../grey", ""),
        ("grey:nothing", ""),
        ("{model}", ""),
        ("\u00e9?", ""),
        ("grey", "1/config"),
        ("grey", "x"),
        ("grey", "9" * 5000),
    ],
)
def test_a_name_is_a_name_and_never_a_path(served: Served, name: str, version: str) -> None:
    with grpc.insecure_channel(served[1]) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        infer = service_pb2.ModelInferRequest(model_name=name, model_version=version)
        calls = [
            lambda: stub.ModelMetadata(
                service_pb2.ModelMetadataRequest(name=name, version=version), timeout=10
            ),
            lambda: stub.ModelReady(
                service_pb2.ModelReadyRequest(name=name, version=version), timeout=10
            ),
            lambda: stub.ModelConfig(
                service_pb2.ModelConfigRequest(name=name, version=version), timeout=10
            ),
            lambda: stub.ModelInfer(infer, timeout=10),
        ]
        if name:  # none means all of them
            asked = service_pb2.ModelStatisticsRequest(name=name, version=version)
            calls.append(lambda: stub.ModelStatistics(asked, timeout=10))
        if not version:
            load = service_pb2.RepositoryModelLoadRequest(model_name=name)
            calls.append(lambda: stub.RepositoryModelLoad(load, timeout=10))
        for call in calls:
            with pytest.raises(grpc.RpcError) as refused:
                call()
            error: Any = refused.value
            assert error.code() == grpc.StatusCode.NOT_FOUND, error
            assert len(error.details()) < 400


def test_millions_of_fields_are_refused(served: Served) -> None:
    infer = service_pb2.ModelInferRequest(model_name="grey")
    infer.outputs.extend([service_pb2.ModelInferRequest.InferRequestedOutputTensor()] * 90_000)
    numbers = service_pb2.ModelInferRequest(model_name="grey")
    tensor = numbers.inputs.add(name="SEED", datatype="UINT64", shape=[190_000])
    tensor.contents.uint64_contents.extend([1] * 190_000)
    with grpc.insecure_channel(served[1]) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for request, words in (
            (infer, "outputs has 65 entries or more, allowed are 64"),
            (numbers, "input 'SEED' has 190000 numbers, allowed are 300"),
        ):
            with pytest.raises(grpc.RpcError, match=words) as refused:
                stub.ModelInfer(request, timeout=10)
            error: Any = refused.value
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        (answer,) = stub.ModelStreamInfer(iter([numbers]), timeout=10)
        assert "has 190000 numbers, allowed are 300" in answer.error_message


def test_models_are_unloaded_and_loaded(client: Any) -> None:
    client.unload_model("colour")
    with pytest.raises(InferenceServerException) as gone:
        client.is_model_ready("colour")
    assert code_of(gone.value) == "StatusCode.NOT_FOUND"
    client.load_model("colour")
    assert client.is_model_ready("colour")
    with pytest.raises(InferenceServerException) as unknown:
        client.load_model("nothing")
    assert code_of(unknown.value) == "StatusCode.NOT_FOUND"
    with pytest.raises(InferenceServerException) as unsupported:
        client.get_system_shared_memory_status()
    assert code_of(unsupported.value) == "StatusCode.UNIMPLEMENTED"


def health(address: str, service: str) -> int:
    """As Kubernetes' probe asks; 1 is SERVING."""
    protocol = Protocol("health.proto")
    request = protocol.message("HealthCheckRequest")(service=service)
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=protocol.message("HealthCheckResponse").FromString,
        )
        return int(check(request, timeout=10).status)


def test_health_is_what_probes_ask_for(served: Served) -> None:
    for service in ("", "liveness", "inference.GRPCInferenceService"):
        assert health(served[1], service) == 1
    with pytest.raises(grpc.RpcError) as unknown:
        health(served[1], "other")
    assert unknown.value.code() == grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
    protocol = Protocol("health.proto")
    with grpc.insecure_channel(served[1]) as channel:
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=protocol.message("HealthCheckResponse").FromString,
        )(protocol.message("HealthCheckRequest")())
        assert next(watch).status == 1
        watch.cancel()


def test_keys_scopes_and_the_log_are_those_of_http(
    tiny_repository: Path, start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """And what is being answered at the end is answered."""
    path, port = tmp_path / "keys", free_port()
    key, reader = make_key(path, "alice"), make_key(path, "prom", "--scopes", "metrics")
    flags = ("--grpc-port", str(port), "--api-keys", str(path), "--access-log", "true")
    server = start_server(tiny_repository, *flags)
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        assert client.is_server_ready()  # probes need no key
        for headers, code in (
            ({}, "UNAUTHENTICATED"),
            ({"authorization": "Bearer sp_wrong"}, "UNAUTHENTICATED"),
            ({"authorization": f"Bearer {reader}"}, "PERMISSION_DENIED"),
        ):
            with pytest.raises(InferenceServerException) as refused:
                client.infer("grey", seeds([1]), headers=headers)
            assert code_of(refused.value) == f"StatusCode.{code}"
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                asked = service_pb2.ModelInferRequest(model_name="grey")
                with pytest.raises(grpc.RpcError) as ended:
                    list(
                        stub.ModelStreamInfer(
                            iter([asked, asked]), metadata=tuple(headers.items()), timeout=10
                        )
                    )
            assert str(ended.value.code()) == f"StatusCode.{code}"  # type: ignore[attr-defined]
        wrong = service_pb2.ModelInferRequest(model_name="grey")
        wrong.inputs.add(name="SEED", datatype="BYTES", shape=[1])
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            with pytest.raises(grpc.RpcError) as unread:  # who has no key has no tensors read
                stub.ModelInfer(wrong, timeout=10)
        assert unread.value.code() == grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]
        mine = {"authorization": f"Bearer {key}", "x-request-id": "over-grpc"}
        client.infer("grey", seeds([1]), headers=mine)
        wait_for(lambda: "request_id=over-grpc" in server.log.read_text())
        (line,) = [li for li in server.log.read_text().splitlines() if "=over-grpc" in li]
        for words in ("client=127.0.0.1", "key=alice", "status=200", "seeds=1", "model=grey"):
            assert words in line
        stop = threading.Event()
        failures: list[Exception] = []
        num = 0

        def ask() -> None:
            nonlocal num
            while not stop.is_set():
                try:
                    client.infer("grey", seeds(list(range(50))), headers=mine)
                    num += 1
                except InferenceServerException as error:
                    failures.append(error)
                    return

        thread = threading.Thread(target=ask)
        thread.start()
        wait_for(lambda: num > 3)
        assert server.stop() == 0
        stop.set()
        thread.join()
    assert all(
        code_of(error) in ("StatusCode.UNAVAILABLE", "StatusCode.CANCELLED") for error in failures
    )  # type: ignore[arg-type]
    with pytest.raises(httpx.TransportError):
        server.get("/livez")
