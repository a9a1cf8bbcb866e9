"""The handlers of the routes that take a real image.

Each reads its fields, finds the model, and has the steps of `serving.process.real_images` done.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from serving.api.real_image import operations
from serving.api.real_image.answers import answered_body, encoded_body, scored_body
from serving.api.router import Route
from serving.dispatch.catalogue import Served
from serving.encoding.bodies import JSON
from serving.encoding.formats import LOSSY, NPY_MEDIA_TYPE
from serving.http.messages import Headers, Request, Response
from serving.http.negotiation import choose
from serving.process import real_images
from serving.process.real_image_work import COPIES, RealImageWork
from serving.process.service import Service
from serving.requests.deadlines import read_scheduling
from serving.requests.generate import offers_of
from serving.requests.real_image.fields import (
    EditRequest,
    EncodeRequest,
    InpaintRequest,
    RealImageRequest,
    ScoreRequest,
    UpscaleRequest,
    read_fields,
)
from serving.requests.real_image.rules import MAX_IMAGES, check_number
from serving.requests.rules import check_alpha, check_pixels
from serving.settings import Settings

Asked = TypeVar("Asked", bound=RealImageRequest)
Answering = EditRequest | InpaintRequest | UpscaleRequest
Steps = Callable[[RealImageWork, Any, Served, Settings], Awaitable[real_images.Answered]]


class RealImageRoutes:
    """The handlers, for one service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._settings = service.settings

    def routes(self) -> list[Route]:
        """Lists the routes."""
        described = (
            ("/v1/encode", self.encode, operations.ENCODE),
            ("/v1/edit", self.edit, operations.EDIT),
            ("/v1/inpaint", self.inpaint, operations.INPAINT),
            ("/v1/upscale", self.upscale, operations.UPSCALE),
            ("/v1/score", self.score, operations.SCORE),
        )
        return [
            Route("POST", path, handler, operation, makes_images=True)
            for path, handler, operation in described
        ]

    async def encode(self, request: Request) -> Response:
        """Finds the latents of images."""
        asked, served = await self._read(request, EncodeRequest)
        check_number(len(asked.images), MAX_IMAGES, "images")
        check_pixels(len(asked.images), served, self._settings)
        kinds = (NPY_MEDIA_TYPE,) if asked.format else (JSON, NPY_MEDIA_TYPE)
        kind = choose(request.header(b"accept"), kinds)

        async def steps(work: RealImageWork) -> Response:
            await self._hold(work, asked.images, len(asked.images), served)
            found = await real_images.encode(work, asked, served, self._settings)
            return await self._response(work, served, kind, lambda: encoded_body(found, kind))

        return await self._answer(request, served, len(asked.images), "latents", steps)

    async def score(self, request: Request) -> Response:
        """Says how unusual images are."""
        asked, served = await self._read(request, ScoreRequest)
        check_number(len(asked.images), MAX_IMAGES, "images")
        check_pixels(len(asked.images), served, self._settings)
        kind = choose(request.header(b"accept"), (JSON,))

        async def steps(work: RealImageWork) -> Response:
            await self._hold(work, asked.images, len(asked.images), served)
            found = await real_images.score(work, asked, served, self._settings)
            return await self._response(
                work, served, kind, lambda: scored_body(found, with_maps=asked.maps)
            )

        return await self._answer(request, served, len(asked.images), "scores", steps)

    async def edit(self, request: Request) -> Response:
        """Changes an image along directions or styles."""
        asked, served = await self._read(request, EditRequest)
        return await self._images(request, asked, served, real_images.edit, 1)

    async def inpaint(self, request: Request) -> Response:
        """Fills a part of an image."""
        asked, served = await self._read(request, InpaintRequest)
        num = 1 if asked.seeds is None else len(asked.seeds)
        return await self._images(request, asked, served, real_images.inpaint, num)

    async def upscale(self, request: Request) -> Response:
        """Enlarges an image."""
        asked, served = await self._read(request, UpscaleRequest)
        num = 1 if asked.seeds is None else len(asked.seeds)
        return await self._images(request, asked, served, real_images.upscale, num)

    async def _read(self, request: Request, kind: type[Asked]) -> tuple[Asked, Served]:
        """The fields of a request, and the version that it means."""
        request.query()
        self._service.batcher.check_capacity(1)  # a full queue must not cost any parsing
        body = await request.body(self._settings.max_body_bytes)
        asked = read_fields(kind, body, request.header(b"content-type"))
        return asked, self._service.catalogue.resolve(asked.model, asked.version)

    async def _images(
        self, request: Request, asked: Answering, served: Served, make: Steps, num: int
    ) -> Response:
        """Answers with images: one as a file, several as JSON, or all as an array."""
        check_alpha(asked.format, served)
        check_pixels(max(1, num), served, self._settings)
        has_alpha = served.manifest.image.has_alpha
        offers = offers_of(asked.format, False, num == 1, has_alpha)
        if isinstance(asked, InpaintRequest):  # outside the mask every byte stays
            offers = {kind: each for kind, each in offers.items() if kind not in LOSSY}
        kind = choose(request.header(b"accept"), tuple(offers))
        encoding = offers[kind]
        operation = request.context.route.rpartition("/")[2]

        async def steps(work: RealImageWork) -> Response:
            await self._hold(work, [asked.image], num, served)
            found = await make(work, asked, served, self._settings)

            def body() -> bytes:
                return answered_body(
                    found, encoding, operation, describes=self._service.encoder.describes
                )

            note = (b"x-note", found.note.encode("ascii"))
            return await self._response(work, served, kind, body, (note,))

        return await self._answer(request, served, max(1, num), encoding.label, steps)

    async def _answer(
        self,
        request: Request,
        served: Served,
        num_rows: int,
        label: str,
        steps: Callable[[RealImageWork], Awaitable[Response]],
    ) -> Response:
        scheduling = read_scheduling(request.header, self._settings)
        request.context.model, request.context.encoding = served.key, label
        return await self._service.with_real_images(request, scheduling, num_rows, steps)

    async def _hold(
        self, work: RealImageWork, files: list[bytes], num_rows: int, served: Served
    ) -> None:
        image = served.manifest.image
        pixels = image.height * image.width * image.channels
        await work.hold(sum(map(len, files)) + max(1, num_rows) * pixels * COPIES)

    async def _response(
        self,
        work: RealImageWork,
        served: Served,
        media_type: str,
        body: Callable[[], bytes],
        headers: Headers = (),
    ) -> Response:
        """Has a thread make the body, and says where the time went."""
        data, timing = await work.encoded(body)
        return Response(data, media_type, 200, (*served.headers, *headers, timing))
