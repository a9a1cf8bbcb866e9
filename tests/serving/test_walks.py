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
    reply = server.generate(seeds=[seed], **more)
    return np.asarray(Image.open(io.BytesIO(reply.content)).convert("RGB"))


@pytest.mark.parametrize("model", [GREY, COLOUR])
def test_a_walk_goes_from_the_first_image_to_the_last(server: Any, model: dict[str, Any]) -> None:
    reply = server.post("/v1/interpolate", json={**model, "seeds": [3, 4], "frames": 7})
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "image/webp"
    assert reply.headers["x-model"] == model["model"]
    assert Image.open(io.BytesIO(reply.content)).info["loop"] == 0
    frames = frames_of(reply.content)
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
    reply = server.post("/v1/interpolate", json=body)
    assert reply.status_code == 400, reply.text
    assert words in reply.json()["detail"]


def test_a_walk_in_no_form_that_is_accepted(server: Any) -> None:
    body = {**GREY, "seeds": [1, 2], "frames": 2}
    reply = server.post("/v1/interpolate", json=body, headers={"accept": "video/mp4"})
    assert reply.status_code == 406
    assert "image/webp, image/gif, image/png" in reply.json()["detail"]
