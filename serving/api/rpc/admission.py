"""Looks at the key of a call over gRPC before its message is parsed.

The routes look at it again. This is for what they would cost before they do: who has no key has
nothing parsed.
"""

from serving.api.v2.routes import problem_response
from serving.errors import Problem, ScopeProblem
from serving.http.auth import check_scope
from serving.keys.key import GENERATE
from serving.process.service import Service
from serving.rpc.call import refusal_of_problem
from serving.rpc.exchange import Call

_INFER = "/v2/models/{model}/infer"
_GENERATE = frozenset((GENERATE,))


class Admission:
    """Lets calls in, or refuses and records them as the router does."""

    def __init__(self, service: Service) -> None:
        """service: whose keys and record."""
        self._service = service

    def check(self, call: Call) -> None:
        """Lets a call in that has a key, where keys are needed.

        Raises:
            RpcError: it has none that is valid.
        """
        self._check(call, None)

    def check_making(self, call: Call) -> None:
        """Lets a call in that may ask for images.

        Raises:
            RpcError: it has no key that is valid and allows that.
        """
        self._check(call, _GENERATE)

    def _check(self, call: Call, scopes: frozenset[str] | None) -> None:
        access = self._service.access
        if not access.keys_required:
            return
        try:
            call.key = access.check(call.header)
            if scopes is not None:
                check_scope(call.key, scopes)
        except Problem as problem:
            self._record(call, problem)
            raise refusal_of_problem(problem) from None

    def _record(self, call: Call, problem: Problem) -> None:
        recorder, is_making = self._service.recorder, isinstance(problem, ScopeProblem)
        context = recorder.begin(_INFER if is_making else "other", "POST", call.header)
        context.key, context.makes_images = call.key, is_making
        context.peer, context.target = call.peer, call.header(b":path") or b""
        recorder.end(context, problem_response(problem))
