"""What methods make of the routes' answers, without a server."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import msgspec
import pytest

from serving.rpc.call import Answer, Caller
from serving.rpc.exchange import Call
from serving.rpc.messages import RpcError, Status
from serving.rpc.methods import Admission, Methods
from serving.rpc.protocol import Protocol

PROTOCOL = Protocol("inference.proto")


class Routes:
    """Answers with one status after the other."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)

    async def ask(self, *_: object) -> Answer:
        status = self.statuses.pop(0)
        return Answer(status, {}, msgspec.json.encode({"error": f"because of {status}"}))


@pytest.mark.parametrize(
    ("status", "code"), [(401, Status.UNAUTHENTICATED), (403, Status.PERMISSION_DENIED)]
)
def test_a_key_that_is_withdrawn_ends_a_stream(status: int, code: Status) -> None:
    routes = Routes(400, 404, status, 400)
    methods = Methods(
        cast(Caller, routes),
        cast(Admission, None),
        pytest.fail,
        protocol=PROTOCOL,
        infer=pytest.fail,
        most=pytest.fail,
    )
    told: list[str] = []

    async def requests() -> AsyncIterator[Any]:
        for _ in range(4):
            yield PROTOCOL.message("ModelInferRequest")(model_name="grey")

    async def run() -> None:
        async for answer in methods.ModelStreamInfer(requests(), cast(Call, None)):
            told.append(answer.error_message)

    with pytest.raises(RpcError, match=f"because of {status}") as ended:
        asyncio.run(run())
    assert ended.value.status == code
    assert told == ["because of 400", "because of 404"]
    assert routes.statuses == [400]
