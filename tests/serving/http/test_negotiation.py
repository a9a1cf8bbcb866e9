"""Accept: the rules by themselves, then against a real server on both paths."""

import contextlib
import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from serving.errors import NotAcceptableProblem
from serving.http.negotiation import choose

OFFERED = ("image/png", "image/webp", "application/json")
BROWSER = b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "image/png"),
        (b"*/*", "image/png"),
        (b"image/*", "image/png"),
        (b"image/webp", "image/webp"),
        (b"IMAGE/WebP ; q=0.3", "image/webp"),
        (b"application/json, image/*;q=0.5", "application/json"),
        (b"image/png;q=0.2, */*;q=0.5", "image/webp"),
        (b"image/png;q=0, image/*", "image/webp"),
        (BROWSER, "image/webp"),
        (b"", "image/png"),
        (b"nonsense", "image/png"),
    ],
)
def test_the_best_offer_is_chosen(accept: bytes | None, chosen: str) -> None:
    assert choose(accept, OFFERED) == chosen


@pytest.mark.parametrize("accept", [b"text/html", b"image/png;q=0", b"*/*;q=0", b"image/webp;q=x"])
def test_what_cannot_be_met_is_refused(accept: bytes) -> None:
    with pytest.raises(NotAcceptableProblem, match="image/png, image/webp, application/json"):
        choose(accept, OFFERED)


@given(st.binary(max_size=60))
def test_no_header_breaks_it(accept: bytes) -> None:
    with contextlib.suppress(NotAcceptableProblem):
        assert choose(accept, OFFERED) in OFFERED


@pytest.mark.parametrize("path", ["/v1/generate", "/v1/generate?"])
@pytest.mark.parametrize(
    ("asked", "accept", "media_type"),
    [
        ({"seeds": [1]}, "image/webp", "image/webp"),
        ({"seeds": [1]}, "application/json", "application/json"),
        ({"seeds": [1]}, "application/x-npy", "application/x-npy"),
        ({"seeds": [1], "format": "jpeg"}, "application/json", "application/json"),
        ({"seeds": [1, 2]}, "*/*", "application/json"),
        ({"seeds": [1, 2]}, "application/x-npy, */*;q=0.1", "application/x-npy"),
        ({"seeds": [1, 2], "layout": "grid"}, "image/jpeg", "image/jpeg"),
    ],
)
def test_a_server_answers_as_it_is_asked(
    server: Any, path: str, asked: dict[str, Any], accept: str, media_type: str
) -> None:
    response = server.post(path, json={"model": "grey", **asked}, headers={"accept": accept})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == media_type
    if media_type.startswith("image/"):
        assert Image.open(io.BytesIO(response.content)).get_format_mimetype() == media_type
    elif media_type == "application/x-npy":
        assert len(np.load(io.BytesIO(response.content))) == len(asked["seeds"])
    else:
        wanted = "image/jpeg" if "format" in asked else "image/png"
        assert json.loads(response.content)["media_type"] == wanted


@pytest.mark.parametrize("path", ["/v1/generate", "/v1/generate?"])
@pytest.mark.parametrize(
    "asked",
    [{"seeds": [1], "format": "png"}, {"seeds": [1, 2]}, {"seeds": [1], "layout": "grid"}],
)
def test_where_no_answer_fits_the_choice_is_told(
    server: Any, path: str, asked: dict[str, Any]
) -> None:
    response = server.post(path, json={"model": "grey", **asked}, headers={"accept": "audio/ogg"})
    assert response.status_code == 406
    assert response.json()["type"] == "urn:saddlepoint:problem:not-acceptable"
    assert "audio/ogg" in response.json()["detail"]
