"""One request that brings a real image: its steps, each of which waits for what it needs.

Files are decoded, rows run by the encoder, images made of latents, scores computed: every step is a
ticket of the batcher as any other, so the rows of many requests share batches. Where the request
ends before them, its rows are given back.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from models.bundle.generator import Images
from models.bundle.inversion import FIND
from serving.dispatch.batcher import Batcher
from serving.dispatch.catalogue import Served
from serving.dispatch.tickets import Styled
from serving.encoding.decoder import Decoder
from serving.encoding.pixels import Decoded, Wanted
from serving.errors import ClientGoneError, UnavailableProblem, VersionRefusedProblem
from serving.http.context import RequestContext, Timing
from serving.http.memory import Hold
from serving.http.messages import Request
from serving.inference.parts.rows import (
    ENCODER_PART,
    SCORE_PART,
    EncoderOutput,
    ScoreOutput,
    encoder_output,
    packed,
    score_output,
)
from serving.observability import metrics
from serving.requests.deadlines import Scheduling

Result = TypeVar("Result")
Floats = npt.NDArray[np.float32]
_DECODED_AT_ONCE = 4
"""Files of a request that wait to be decoded: one with 64 leaves places for others."""
COPIES = 12
"""Of a row's pixels, while it is made and encoded."""


class RealImageWork:
    """The steps of one request; for the event loop's thread alone."""

    def __init__(
        self,
        *,
        batcher: Batcher,
        decoder: Decoder,
        in_thread: Callable[[Callable[[], Any], bool], "asyncio.Future[Any]"],
        context: RequestContext,
        scheduling: Scheduling,
    ) -> None:
        """Nothing is begun yet.

        Args:
            batcher: makes rows.
            decoder: of files.
            in_thread: hands work to a thread, of those for bulk where it is.
            context: of the request.
            scheduling: its deadline and priority.
        """
        self._batcher, self._decoder, self._in_thread = batcher, decoder, in_thread
        self._context = context
        self._bulk = scheduling.bulk
        self._scheduling = scheduling
        self._is_admitted = False
        self._why = "disconnect"
        self.timing = context.timing = Timing()
        context.bulk = scheduling.bulk
        self.decode_s = 0.0

    async def until_done(self, request: Request, steps: Awaitable[Result]) -> Result:
        """Waits for the request's steps, at most until its deadline or until the client leaves.

        Raises:
            DeadlineProblem: they were not done in time.
            ClientGoneError: the client left.
            Problem: a step failed.
        """
        working = asyncio.ensure_future(steps)
        watching = asyncio.create_task(_disconnected(request))
        try:
            await asyncio.wait(
                {working, watching},
                timeout=self._scheduling.timeout_ms / 1e3,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if working.done():
                return working.result()
            if watching.done():
                raise ClientGoneError
            self._why = "deadline"
            raise self._scheduling.problem()
        finally:
            watching.cancel()
            working.add_done_callback(_forget)
            working.cancel()

    async def hold(self, num_bytes: int) -> None:
        """Waits until there is memory for so much."""
        hold = self._context.hold
        if hold is None:
            return
        granted = asyncio.Event()
        if not hold.wait_for(num_bytes, granted.set):
            await granted.wait()

    async def decode(self, files: Sequence[tuple[bytes, Wanted]]) -> list[Decoded]:
        """Decodes files, several at once.

        Raises:
            InvalidRequestProblem: one of them can't be used.
            OverloadedProblem: too many wait.
        """
        began = time.perf_counter()
        under_way: list[asyncio.Future[Decoded]] = []
        try:
            for number, file in enumerate(files):  # one may be refused: then the others are not
                if number >= _DECODED_AT_ONCE:
                    await under_way[number - _DECODED_AT_ONCE]
                decoding = self._decoder.submit(*file, owner=self, bulk=self._bulk)
                under_way.append(asyncio.wrap_future(decoding))
            return [await each for each in under_way]
        finally:
            for each in under_way:
                each.add_done_callback(_forget)
                each.cancel()
            self.decode_s += time.perf_counter() - began

    async def compute(self, work: Callable[[], Result]) -> Result:
        """Has a thread do some work; what it works with counts as held until it has ended."""
        hold: Hold | None = self._context.hold
        under_way: asyncio.Future[Result] = self._in_thread(work, self._bulk)
        under_way.add_done_callback(_forget)
        if hold is not None:
            hold.keep()
            under_way.add_done_callback(lambda _: hold.unkeep())
        return await asyncio.shield(under_way)

    async def encoded(self, body: Callable[[], bytes]) -> tuple[bytes, tuple[bytes, bytes]]:
        """Has a thread make the body of the answer; with the header that says where time went."""
        timing = self.timing
        timing.encode_began = time.perf_counter()
        data = await self.compute(body)
        timing.encode_s = time.perf_counter() - timing.encode_began
        words = b"decode;dur=%.2f, queue;dur=%.2f, infer;dur=%.2f, encode;dur=%.2f" % tuple(
            1e3 * seconds
            for seconds in (self.decode_s, timing.queue_s, timing.compute_s, timing.encode_s)
        )
        return data, (b"server-timing", words)

    async def encode(
        self,
        served: Served,
        images: Images,
        *,
        masks: npt.NDArray[np.uint8] | None = None,
        starts: Floats | None = None,
        labels: Sequence[int] | None = None,
    ) -> EncoderOutput:
        """Finds the latents of images [N, H, W, C]; where others are None, they say nothing.

        Raises:
            UnavailableProblem: the encoder failed with one of them.
        """
        num, manifest = len(images), served.manifest
        traits = served.encoder
        infers = traits is not None and traits.infers_label
        unsaid = FIND if infers else 0
        rows = packed(
            [
                images,
                np.ones(images.shape[:3], np.uint8) if masks is None else masks,
                np.zeros((num, manifest.z_dim), np.float32) if starts is None else starts,
                np.array([unsaid] * num if labels is None else labels, np.int64),
            ]
        )
        given = await self._rows(served, part=ENCODER_PART, rows=rows)
        found = encoder_output(given, manifest, len(manifest.labels or ()) if infers else 0)
        _check(found.failed, served, "encoder.onnx")
        return found

    async def generate(
        self,
        served: Served,
        z: Floats,
        labels: Sequence[int] | None,
        *,
        styled: Styled | None = None,
    ) -> Images:
        """Makes the images of latents [N, z_dim], [N, H, W, C]."""
        given = None if labels is None else list(labels)
        return await self._rows(served, z=z, labels=given, styled=styled)

    async def score(self, served: Served, images: Images, reconstructions: Images) -> ScoreOutput:
        """Compares images with their reconstructions, [N, H, W, C] each.

        Raises:
            UnavailableProblem: the graph failed with one of them.
        """
        rows = packed([images, reconstructions])
        given = await self._rows(served, part=SCORE_PART, rows=rows)
        found = score_output(given, served.manifest)
        _check(found.failed, served, "score.onnx")
        return found

    async def _rows(self, served: Served, **what: Any) -> npt.NDArray[np.uint8]:
        """Has rows made, and gives those back that aren't wanted any more."""
        ticket = self._batcher.submit(
            served.identity, bulk=self._bulk, is_admitted=self._is_admitted, **what
        )
        self._is_admitted = True
        try:
            return await ticket.done
        except UnavailableProblem as error:
            # A version that the client named is its own choice.
            if error.by_version and not served.is_announced:
                raise VersionRefusedProblem(error.detail) from None
            raise
        except asyncio.CancelledError:
            dropped = self._batcher.cancel(ticket, ClientGoneError())
            metrics.ABANDONED_ROWS.labels(self._why).inc(dropped)
            raise
        finally:
            self.timing.queue_s += ticket.timing.queue_s
            self.timing.compute_s += ticket.timing.compute_s


def _check(failed: npt.NDArray[np.bool_], served: Served, graph: str) -> None:
    """Raises UnavailableProblem where a row's run failed."""
    if not failed.any():
        return
    name, version = served.key
    which = "" if len(failed) == 1 else f" {int(np.flatnonzero(failed)[0])}"
    raise UnavailableProblem(
        f"{graph} of model {name!r} (version {version}) failed with image{which}; the server's log "
        "says more",
        by_version=True,
    )


async def _disconnected(request: Request) -> None:
    """Returns when the client closes the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _forget(done: "asyncio.Future[Any]") -> None:
    """Asks for an outcome that nobody waits for, so that asyncio doesn't log it."""
    if not done.cancelled():
        done.exception()
