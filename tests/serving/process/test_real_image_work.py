"""Steps of requests that bring real images, without a server."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from serving.encoding.pixels import Decoded, Wanted
from serving.errors import OverloadedProblem
from serving.inference.parts.rows import EncoderOutput
from serving.process import real_images
from serving.process.real_image_work import RealImageWork
from serving.requests.deadlines import Scheduling
from serving.requests.real_image.fields import EncodeRequest, ScoreRequest, UpscaleRequest

WANTED = Wanted(field="image", height=2, width=2, channels=1, max_pixels=100)


def test_files_before_one_that_is_refused_are_taken_back() -> None:
    """Else a request of many files, refused and sent again, fills the queue for ever."""
    taken: list[Future[Decoded]] = []

    class Full:
        def submit(self, data: bytes, wanted: Wanted, **whose: object) -> "Future[Decoded]":
            if len(taken) == 2:
                raise OverloadedProblem("full")
            taken.append(Future())
            return taken[-1]

    async def run() -> None:
        work = RealImageWork(
            batcher=cast(Any, None),
            decoder=cast(Any, Full()),
            in_thread=cast(Any, None),
            context=cast(Any, SimpleNamespace()),
            scheduling=Scheduling(1000, bulk=False),
        )
        with pytest.raises(OverloadedProblem):
            await work.decode([(b"", WANTED)] * 3)
        await asyncio.sleep(0)  # asyncio tells the other kind of future in its next turn

    asyncio.run(run())
    assert [each.cancelled() for each in taken] == [True, True]


class Work:
    """Makes images of zeros, and notes what is left to threads."""

    def __init__(self) -> None:
        self.is_in_thread = False

    async def decode(self, files: list[Any]) -> list[Decoded]:
        return [Decoded(np.full((2, 2, 1), 255, np.uint8), None) for _ in files]

    async def encode(self, *given: Any, **more: Any) -> EncoderOutput:
        none = np.zeros((1, 0), np.float32)
        return EncoderOutput(np.zeros(1, np.bool_), np.zeros((1, 3), np.float32), none)

    async def generate(self, *given: Any) -> np.ndarray[Any, Any]:
        return np.zeros((1, 2, 2, 1), np.uint8)

    async def compute(self, work: Callable[[], Any]) -> Any:
        self.is_in_thread = True
        try:
            return work()
        finally:
            self.is_in_thread = False


def test_images_are_compared_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty-four large ones would hold up every other request of the process."""
    work, settings = cast(Any, Work()), cast(Any, SimpleNamespace(max_input_pixels=100))
    image = SimpleNamespace(height=2, width=2, channels=1)
    served = cast(
        Any,
        SimpleNamespace(
            key=("digits", 1),
            encoder=SimpleNamespace(infers_label=True),
            calibration=None,
            manifest=SimpleNamespace(image=image, files={}),
        ),
    )
    in_thread: list[bool] = []
    square = np.square

    def noted(*given: Any) -> Any:
        in_thread.append(work.is_in_thread)
        return square(*given)

    monkeypatch.setattr(np, "square", noted)
    request = EncodeRequest(images=[b""], reconstruct=True)
    found = asyncio.run(real_images.encode(work, request, served, settings))
    assert found.errors == [1.0]
    scored = asyncio.run(real_images.score(work, ScoreRequest(images=[b""]), served, settings))
    assert scored.scores.tolist() == [4.0]
    assert in_thread == [True, True]


@pytest.mark.parametrize("asked", [None, [2, 0, 2]])
def test_answers_are_of_the_one_class_that_fits_them_best(asked: list[int] | None) -> None:
    """Unless the caller says which; two of three rows find class 0, all together class 1."""
    scores = np.log(np.array([[0.5, 0.4, 0.1], [0.5, 0.4, 0.1], [0.1, 0.85, 0.05]], np.float32))
    made: list[list[int]] = []

    class Unsure(Work):
        async def decode(self, files: list[Any]) -> list[Decoded]:
            return [Decoded(np.zeros((2, 2, 1), np.uint8), None)]

        async def encode(self, *given: Any, **more: Any) -> EncoderOutput:
            return EncoderOutput(np.zeros(3, np.bool_), np.zeros((3, 3), np.float32), scores)

        async def generate(self, served: Any, z: Any, labels: list[int]) -> np.ndarray[Any, Any]:
            made.append(labels)
            return np.zeros((3, 4, 4, 1), np.uint8)

    image = SimpleNamespace(height=4, width=4, channels=1)
    manifest = SimpleNamespace(image=image, z_dim=3, name="digits", labels=("a", "b", "c"))
    traits = SimpleNamespace(infers_label=True, fills=True, varies=True)
    served = cast(Any, SimpleNamespace(key=("digits", 1), encoder=traits, manifest=manifest))
    settings = cast(Any, SimpleNamespace(max_input_pixels=100))
    request = UpscaleRequest(image=b"", seeds=[1, 2, 3], label=asked)
    found = asyncio.run(real_images.upscale(cast(Any, Unsure()), request, served, settings))
    assert made == [asked or [1, 1, 1]]
    assert found.labels == made[0]
