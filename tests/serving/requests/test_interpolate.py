"""POST /v1/interpolate against a real server: frames, formats, refusals."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

GREY, COLOUR = {"model": "grey"}, {"model": "colour", "label": 1}


def frames_of(data: bytes) -> np.ndarray:
    opened = Image.open(io.BytesIO(data))
    return np.stack([np.asarray(f.convert("RGB")) for f in ImageSequence.Iterator(opened)])


def one(server: Any, seed: int, **more: Any) -> np.ndarray:
    response = server.generate(seeds=[seed], **more)
    return np.asarray(Image.open(io.BytesIO(response.content)).convert("RGB"))


@pytest.mark.parametrize("model", [GREY, COLOUR])
def test_a_walk_goes_from_the_first_image_to_the_last(server: Any, model: dict[str, Any]) -> None:
    response = server.post("/v1/interpolate", json={**model, "seeds": [3, 4], "frames": 7})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/webp"
    assert response.headers["x-model"] == model["model"]
    assert Image.open(io.BytesIO(response.content)).info["loop"] == 0
    frames = frames_of(response.content)
    assert len(frames) == 7
    ask = {"model": model["model"]} | ({"labels": 1} if "label" in model else {})
    assert (frames[0] == one(server, 3, **ask)).all()
    assert (frames[-1] == one(server, 4, **ask)).all()


def test_a_gif_and_a_strip_show_the_same_walk(server: Any) -> None:
    body = {**GREY, "seeds": [1, 2, 3], "frames": 6, "loop": True, "fps": 10}
    strip = server.post("/v1/interpolate", json={**body, "format": "strip"})
    assert strip.headers["content-type"] == "image/png"
    pixels = np.asarray(Image.open(io.BytesIO(strip.content)))
    assert pixels.shape == (8, 6 * 8)
    gif = server.post("/v1/interpolate", json=body, headers={"accept": "image/gif"})
    assert gif.headers["content-type"] == "image/gif"
    assert Image.open(io.BytesIO(gif.content)).info["duration"] == 100
    grey = frames_of(gif.content)[:, :, :, 0]
    assert (grey == pixels.reshape(8, 6, 8).swapaxes(0, 1)).all()
    assert (one(server, 2, **GREY)[:, :, 0] == pixels[:, 16:24]).all()


def test_latents_and_truncation_are_taken_as_for_images(server: Any) -> None:
    z = [[1.0, 0, 0, 0, 0, 0], [0, 2.0, 0, 0, 0, 0]]
    body = {**GREY, "latents": z, "truncation": 0.5, "frames": 2, "format": "strip"}
    strip = np.asarray(Image.open(io.BytesIO(server.post("/v1/interpolate", json=body).content)))
    npy = server.generate(**GREY, latents=z, truncation=0.5, format="npy")
    images = np.load(io.BytesIO(npy.content))
    assert (strip[:, :8] == images[0, :, :, 0]).all()
    assert (strip[:, 8:] == images[1, :, :, 0]).all()


@pytest.mark.parametrize("kind", ["webp", "gif"])
@pytest.mark.parametrize(
    "still", [{"seeds": [5, 5]}, {"seeds": [1, 2], "truncation": 0}, {"seeds": [5, 5, 6, 6]}]
)
@pytest.mark.parametrize("model", [GREY, COLOUR])
def test_equal_frames_are_frames_too(
    server: Any, model: dict[str, Any], still: dict[str, Any], kind: str
) -> None:
    body = {**model, **still, "frames": 10, "fps": 10, "format": kind}
    response = server.post("/v1/interpolate", json=body)
    assert response.status_code == 200, response.text
    with Image.open(io.BytesIO(response.content)) as opened:
        assert (opened.n_frames, opened.info["loop"]) == (10, 0)
    assert durations_of(response.content) == [100] * 10
    strip = server.post("/v1/interpolate", json={**model, **still, "frames": 10, "format": "strip"})
    pixels = np.asarray(Image.open(io.BytesIO(strip.content)).convert("RGB"))
    wanted = np.stack(np.split(pixels, 10, axis=1))
    assert (frames_of(response.content) == wanted).all()


def test_seeds_may_be_strings(server: Any) -> None:
    body = {**GREY, "frames": 4, "format": "strip"}
    numbers = server.post("/v1/interpolate", json=body | {"seeds": [1, 2**64 - 1]})
    words = server.post("/v1/interpolate", json=body | {"seeds": ["1", str(2**64 - 1)]})
    assert numbers.status_code == 200, numbers.text
    assert numbers.content == words.content
    refused = server.post("/v1/interpolate", json=body | {"seeds": ["1", "x"]})
    assert refused.status_code == 400
    assert "seeds[1] is 'x'" in refused.json()["detail"]
    neither = server.post("/v1/interpolate", json=body).json()["detail"]
    assert neither.endswith("give one of them")


@pytest.mark.parametrize("fps", [15, 22, 30, 40])
@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_a_walk_lasts_as_long_as_its_frames_a_second_say(server: Any, kind: str, fps: int) -> None:
    body = {**GREY, "seeds": [1, 2], "frames": 20, "fps": fps, "format": kind}
    shown = durations_of(server.post("/v1/interpolate", json=body).content)
    assert sum(shown) == pytest.approx(20_000 / fps, abs=5)
    assert max(shown) - min(shown) <= 10


def durations_of(data: bytes) -> list[int]:
    with Image.open(io.BytesIO(data)) as opened:
        found = []
        for frame in ImageSequence.Iterator(opened):
            frame.load()
            found.append(frame.info["duration"])
    return found


def test_each_frame_has_the_duration_that_was_asked_for(server: Any) -> None:
    durations = [500, 20, 40, 1000]
    body = {**GREY, "seeds": [1, 2], "frames": 4, "durations_ms": durations}
    for kind in ("webp", "gif"):
        response = server.post("/v1/interpolate", json={**body, "format": kind})
        assert durations_of(response.content) == durations, kind
    for more, words in (
        ({"fps": 10}, "fps and durations_ms are both given"),
        ({"format": "strip"}, "format is 'strip', which doesn't move; leave it out"),
        ({"frames": 5}, "durations_ms has 4 entries, frames is 5; give one for each"),
        ({"durations_ms": [10] * 4}, "durations_ms[0] is 10, allowed are those >= 20"),
    ):
        response = server.post("/v1/interpolate", json={**body, **more})
        assert response.status_code == 400
        assert words in response.json()["detail"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({**GREY}, "neither of seeds and latents"),
        ({**GREY, "seeds": [1]}, "seeds has 1 waypoints, allowed are 2 .. 240"),
        ({**GREY, "seeds": [1, -2]}, "seeds[1] is -2"),
        ({**GREY, "seeds": [1, 2], "frames": 241}, "frames is 241, allowed are 2 (the waypoints)"),
        ({**GREY, "seeds": [1, 2, 3], "frames": 2}, "frames is 2, allowed are 3"),
        ({**GREY, "seeds": [1, 2], "frames": 1}, "frames"),
        ({**GREY, "seeds": [1, 2], "fps": 0}, "fps"),
        ({**GREY, "seeds": [1, 2], "label": 1}, "label is given, but"),
        ({"model": "colour", "seeds": [1, 2]}, "label is missing"),
        ({"model": "colour", "seeds": [1, 2], "label": 9}, "label is 9, allowed are 0 .. 2"),
        ({**GREY, "seeds": [1, 2], "format": "mp4"}, "format"),
        ({**GREY, "latents": [[0] * 6, [0] * 5]}, "latents[1] has 5 numbers"),
    ],
)
def test_a_wrong_walk_is_explained(server: Any, body: dict[str, Any], words: str) -> None:
    response = server.post("/v1/interpolate", json=body)
    assert response.status_code == 400, response.text
    assert words in response.json()["detail"]


def test_a_walk_in_no_form_that_is_accepted(server: Any) -> None:
    body = {**GREY, "seeds": [1, 2], "frames": 2}
    response = server.post("/v1/interpolate", json=body, headers={"accept": "video/mp4"})
    assert response.status_code == 406
    assert "image/webp, image/gif, image/png" in response.json()["detail"]
