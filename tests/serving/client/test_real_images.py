"""The client and its commands with real images, on a real server."""

import asyncio
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.bundle import Bundle
from models.image_metadata import read_metadata
from models.latents import latents
from models.restoration import shrunk
from serving.client import AsyncClient, Client
from serving.client.__main__ import main
from serving.client.errors import InvalidRequestError
from tests.conftest import ServerProcess
from tests.serving.real_image.conftest import bundles, made, npy, real

__all__ = ["bundles", "real"]  # fixtures


@pytest.fixture(scope="module")
def client(real: ServerProcess) -> Iterator[Client]:
    with Client(real.url, model="digits") as opened:
        yield opened


@pytest.fixture(scope="module")
def image(bundles: dict[str, Bundle]) -> np.ndarray[Any, Any]:
    """The model's own image of seed 0 and class 0, [8, 12]."""
    return made(bundles["digits"], 1)[0, :, :, 0]


def test_any_form_of_an_image_will_do(
    client: Client, image: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(image).save(path)
    forms = [image, path, str(path), path.read_bytes(), Image.fromarray(image), npy(image)]
    found = client.encode(forms, reconstruct=True)
    assert len({each.latent.tobytes() for each in found}) == 1
    assert np.abs(found[0].latent - latents(np.zeros(1, np.uint64), 6)[0]).max() < 0.3
    assert found[0].label == 0
    assert found[0].label_scores is not None
    assert found[0].label_scores.argmax() == 0
    assert found[0].error is not None
    assert found[0].error < 1e-3
    assert found[0].reconstruction is not None
    assert found[0].reconstruction.size == (12, 8)


def test_images_are_edited_filled_enlarged_and_scored(
    client: Client, image: np.ndarray[Any, Any]
) -> None:
    edited = client.edit(image, directions={"0": 2})
    assert not np.array_equal(np.asarray(edited.images[0]), image)
    assert edited.spread is None
    mask = np.zeros(image.shape, np.uint8)
    mask[:, 6:] = 255
    filled = client.inpaint(image, mask, seeds=[1, 2, 3])
    assert len(filled.images) == len(filled.errors) == 3
    assert all(np.array_equal(np.asarray(each)[:, :6], image[:, :6]) for each in filled.images)
    assert filled.spread is not None
    assert filled.spread > 0
    assert filled.spread_map is not None
    assert "plausible, not true" in filled.note
    assert read_metadata(filled.files[1])["start_seed"] == "2"
    small = shrunk(image[None, :, :, None], 2)[0, :, :, 0].round().astype(np.uint8)
    assert client.upscale(small).images[0].size == (12, 8)
    usual, odd = client.score([image, mask], maps=True)
    assert usual.score < odd.score
    assert usual.p is not None
    assert odd.p is not None
    assert odd.p < usual.p
    assert odd.map is not None
    assert odd.map.mean() * 1.25 == pytest.approx(odd.score, rel=0.02)
    assert edited.model == "digits"


def test_each_answer_has_its_class(client: Client, image: np.ndarray[Any, Any]) -> None:
    mask = np.zeros(image.shape, np.uint8)
    mask[:, 6:] = 255
    for label in ([3, 5, 8], (3, 5, 8), np.array([3, 5, 8])):
        found = client.inpaint(image, mask, seeds=[1, 2, 3], label=label)
        assert found.labels == [3, 5, 8]
        assert found.label == 3
    one = client.inpaint(image, mask, seeds=np.arange(3), label=np.int64(4))
    assert one.labels == [4, 4, 4]
    assert client.edit(image, directions={"0": 1}, label=np.int64(4)).labels == [4]
    assert [each.label for each in client.score([image, image], labels=np.array([3, 5]))] == [3, 5]
    with pytest.raises(InvalidRequestError, match=r"label is 2\.5, must be a whole number"):
        client.inpaint(image, mask, label=2.5)  # type: ignore[arg-type]


def test_coroutines_do_the_same(real: ServerProcess, image: np.ndarray[Any, Any]) -> None:
    async def ask() -> Any:
        async with AsyncClient(real.url, model="digits") as opened:
            return await opened.score([image])

    (found,) = asyncio.run(ask())
    assert found.map is None


@pytest.mark.parametrize("given", [3, None, ["x"]])
def test_what_is_no_image_is_not_sent(client: Client, given: Any) -> None:
    with pytest.raises(InvalidRequestError, match="must be a path, the bytes of a file"):
        client.edit(given, directions={"0": 1})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (Image.new("CMYK", (12, 8)), r"image has mode CMYK.*image\.convert\('RGB'\)"),
        (Image.new("F", (12, 8)), "image has mode F"),
        (np.array([[object()]]), "image is an array of object, must be uint8"),
        ("a\0b", r"image is 'a\\x00b'"),
    ],
)
def test_what_cannot_be_sent_is_said(client: Client, given: Any, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        client.encode([given])


def test_a_file_that_is_not_there_is_named(client: Client) -> None:
    with pytest.raises(InvalidRequestError, match=r"image is 'none\.png': No such file"):
        client.score(["none.png"])


@pytest.fixture
def run(
    real: ServerProcess, tmp_path: Path, image: np.ndarray[Any, Any], monkeypatch: Any
) -> Callable[..., int]:
    """Runs a command in a folder with x.png, its mask m.npy and small.png."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(image).save("x.png")
    Image.fromarray(image[::2, ::2].copy()).save("small.png")
    np.save("m.npy", np.tri(8, 12, dtype=bool))

    def go(*arguments: object) -> int:
        return main(["--url", real.url, *map(str, arguments), "--model", "digits"])

    return go


def test_commands_write_files_and_figures(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("encode", "x.png", "x.png", "--npy", "z.npy") == 0
    assert np.load("z.npy").shape == (2, 6)
    assert [json.loads(line)["label"] for line in capsys.readouterr().out.splitlines()] == [0, 0]
    assert run("encode", "x.png") == 0
    assert len(json.loads(capsys.readouterr().out)["latent"]) == 6
    assert run("edit", "x.png", "--directions", "0:2", "--out", "e.png") == 0
    assert read_metadata(Path("e.png").read_bytes())["directions"] == "0:2"
    assert run("inpaint", "x.png", "--mask", "m.npy", "--seeds", "1-3", "--out", "f.png") == 0
    assert sorted(path.name for path in Path.cwd().glob("f-*.png")) == [
        "f-1.png",
        "f-2.png",
        "f-3.png",
    ]
    assert "they differ by" in capsys.readouterr().out
    assert run("upscale", "small.png", "--out", "l.png") == 0
    assert Image.open(io.BytesIO(Path("l.png").read_bytes())).size == (12, 8)
    capsys.readouterr()
    assert run("score", "x.png", "--maps", "maps") == 0
    assert json.loads(capsys.readouterr().out)["p"] > 0.01
    assert np.load("maps/x.npy").shape == (8, 12)


def test_commands_overwrite_nothing_and_say_what_is_wrong(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("edit", "x.png", "--directions", "0:2", "--out", "x.png") == 1
    assert "x.png exists" in capsys.readouterr().err
    assert run("inpaint", "x.png", "--out", "f.png") == 3
    assert "mask is missing" in capsys.readouterr().err
    assert run("score", "x.png", "./x.png", "--maps", "maps") == 2
    assert "two files have the same name" in capsys.readouterr().err
