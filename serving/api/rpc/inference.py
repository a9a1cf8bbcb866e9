"""A shortcut for the usual call over gRPC: ModelInfer.

Other calls are passed on to the routes of HTTP, with JSON in between. This one goes by callbacks
from the message's tensors to a ticket, and from the images to the message, as `fast_path` does for
HTTP.
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.bundle.generator import Images
from serving.api.v2.inference import TensorEncoding, first_seed, read_order
from serving.api.v2.routes import V2, problem_response
from serving.api.v2.tensors import InferRequest, InputTensor, RequestedOutput, collect, pack_bytes
from serving.errors import ClientGoneError, InvalidRequestProblem, Problem
from serving.http.auth import Header
from serving.http.context import RequestContext
from serving.http.messages import UNFORESEEN, Response
from serving.observability.requests import log_failure
from serving.process.generation import Outcome
from serving.process.service import Service
from serving.requests.deadlines import Scheduling
from serving.requests.generate import Order
from serving.rpc.call import headers_of, of_model, refusal_of_problem
from serving.rpc.exchange import Exchange
from serving.rpc.protocol import Protocol
from serving.rpc.tensors import TensorError, contents, parameters

_AS_BYTES = {"binary_data_output": True}
_ROUTES = {False: "/v2/models/{model}/infer", True: "/v2/models/{model}/versions/{version}/infer"}


@dataclass
class MessageEncoding(TensorEncoding):
    """Writes the outputs as a ModelInferResponse."""

    message: Any = None
    """The message's class."""
    copies = 5

    def from_images(self, images: Images) -> bytes:
        """Makes the message, serialized."""
        head, answer = self.head, self.message()
        answer.model_name, answer.model_version = head.model_name, head.model_version
        if isinstance(head.id, str):
            answer.id = head.id
        for name, _ in self.outputs:
            if name == "image":
                answer.outputs.add(name=name, datatype="UINT8", shape=images.shape)
                answer.raw_output_contents.append(np.ascontiguousarray(images).tobytes())
            else:
                answer.outputs.add(name=name, datatype="BYTES", shape=images.shape[:1])
                answer.raw_output_contents.append(pack_bytes(self.files(images)))
        data: bytes = answer.SerializeToString()
        return data


class RpcInference:
    """Answers ModelInfer."""

    def __init__(self, service: Service, v2: V2, protocol: Protocol) -> None:
        """v2: the routes of the same protocol. protocol: its messages."""
        self._service = service
        self._v2 = v2
        self._encoding = functools.partial(
            MessageEncoding, message=protocol.message("ModelInferResponse")
        )

    def most(self, model: str, version: str, name: str) -> int:
        """The most numbers of an input of a model.

        Raises:
            Problem: there is no such model.
        """
        return self._v2.limits(model, version).of(name)

    def start(self, request: Any, exchange: Exchange) -> bool:
        """Answers a call when its images are made; False leaves it to the routes."""
        service, call = self._service, exchange.call
        if ":" in request.model_name:
            return False  # a part of a model
        headers = headers_of(call, service.settings.request_timeout_ms)
        header = dict(headers).get
        if len(dict(headers)) < len(headers):
            return False  # given twice
        key = None
        if service.access.keys_required:
            key = call.key
            if key is None:  # let in without, a moment ago
                return False
        version = request.model_version
        context = service.recorder.begin(_ROUTES[bool(version)], "POST", header)
        context.key, context.makes_images, context.hold = key, True, exchange.stream.hold
        context.peer = call.peer
        context.target = of_model(request.model_name, version, "/infer").raw_path()
        on_end = functools.partial(self._answer, exchange, context)
        try:
            order, scheduling = self._read(request, header)
            generation = service.start(order, scheduling, context, on_end)
        except Exception as error:
            on_end(error)
        else:
            if not generation.ended:
                exchange.on_cancel = generation.leave
        return True

    def _read(self, request: Any, header: Header) -> tuple[Order, Scheduling]:
        """Reads the message: what to make, its deadline and its priority."""
        service = self._service
        service.batcher.check_capacity(1)
        served = self._v2.resolve(request.model_name, request.model_version or None)
        try:
            raw = contents(request, lambda name: self._v2.limits_of(served, None).of(name))
        except TensorError as error:
            raise InvalidRequestProblem(str(error)) from None
        given = collect(
            (InputTensor(tensor.name, list(tensor.shape), tensor.datatype), data)
            for tensor, data in zip(request.inputs, raw, strict=True)
        )
        outputs = [
            RequestedOutput(output.name, parameters(output.parameters) | {"binary_data": True})
            for output in request.outputs
        ]
        infer = InferRequest(
            [], request.id, outputs or None, parameters(request.parameters) | _AS_BYTES
        )
        if not request.model_version and (seeds := first_seed(given)):
            served = service.catalogue.on_trial(served, seeds)
        return read_order(infer, given, served, header, service.settings, encoding=self._encoding)

    def _answer(self, exchange: Exchange, context: RequestContext, outcome: Outcome) -> None:
        exchange.on_cancel = None
        recorder = self._service.recorder
        if isinstance(outcome, ClientGoneError):
            recorder.end(context, None)
            return
        response = _response(context, outcome)
        if isinstance(outcome, Response):
            exchange.answer(outcome.body)
        else:
            problem = outcome if isinstance(outcome, Problem) else Problem(UNFORESEEN)
            exchange.fail(refusal_of_problem(problem))
        recorder.end(context, response)


def _response(context: RequestContext, outcome: Outcome) -> Response:
    """An outcome as it is recorded."""
    if isinstance(outcome, Response):
        return outcome
    if isinstance(outcome, Problem):
        return problem_response(outcome)
    log_failure(context, outcome)
    return Response.failure()
