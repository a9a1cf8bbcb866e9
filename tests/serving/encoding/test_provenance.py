"""Image files of a real server say how they were made, and can be made again of that alone."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.image_metadata import read_metadata, with_metadata
from serving.client.__main__ import main
from tests.conftest import ServerProcess
from tests.support import HTTP


def said(server: ServerProcess, **request: Any) -> dict[str, str]:
    response = server.generate(**request)
    assert response.status_code == 200, response.text
    return read_metadata(response.content)


def of_model(server: ServerProcess, name: str) -> dict[str, str]:
    model = server.get(f"/v1/models/{name}").json()
    return {"model": name, "version": str(model["version"]), "digest": model["digest"]}


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_an_image_says_of_what_it_was_made(server: ServerProcess, kind: str) -> None:
    request = {"model": "colour", "seeds": [7], "labels": 2, "truncation": 0.7, "format": kind}
    expected = {"seed": "7", "label": "2", **of_model(server, "colour"), "truncation": "0.7"}
    assert said(server, **request) == expected
    alone = server.generate(**request).content
    assert server.generate(**request).content == alone
    listed = server.generate(**{**request, "seeds": [5, "7", 9]}).json()["images"]
    assert base64.b64decode(listed[1]["data"]) == alone
    assert read_metadata(base64.b64decode(listed[2]["data"]))["seed"] == "9"


def test_an_image_with_a_url_says_it_too(server: ServerProcess) -> None:
    image = server.get("/v1/models/grey/images/18446744073709551615.png").content
    expected = {"seed": str(2**64 - 1), **of_model(server, "grey"), "truncation": "1"}
    assert read_metadata(image) == expected


def test_what_was_made_of_latents_names_no_seed(server: ServerProcess) -> None:
    words = said(server, model="grey", latents=[[0.5] * 6])
    assert words == {**of_model(server, "grey"), "truncation": "1"}


def test_a_grid_says_all_of_its_seeds(server: ServerProcess) -> None:
    request = {"model": "colour", "seeds": [3, 4, 5, 9], "layout": "grid"}
    words = said(server, **request, labels=[0, 1, 2, 0], format="jpeg")
    of_all = {**of_model(server, "colour"), "truncation": "1"}
    assert words == {"seeds": "3-5,9", "labels": "0,1,2,0", **of_all}
    assert said(server, **request, labels=1) == {"seeds": "3-5,9", "label": "1", **of_all}


def test_files_of_the_inference_protocol_say_it(server: ServerProcess) -> None:
    inputs = [
        {"name": "SEED", "shape": [2], "datatype": "UINT64", "data": [4, 8]},
        {"name": "LABEL", "shape": [1], "datatype": "INT64", "data": [1]},
    ]
    outputs = [{"name": "png", "parameters": {"binary_data": True}}]
    body = {"inputs": inputs, "outputs": outputs}
    response = server.post("/v2/models/colour/infer", json=body)
    rest = response.content[int(response.headers["inference-header-content-length"]) :]
    files = []
    while rest:
        size = int.from_bytes(rest[:4], "little")
        files.append(rest[4 : 4 + size])
        rest = rest[4 + size :]
    assert [read_metadata(data)["seed"] for data in files] == ["4", "8"]
    same = server.generate(model="colour", seeds=[8], labels=1).content
    assert files[1] == same


def test_the_operator_can_leave_it_out(guarded: Any, server: ServerProcess) -> None:
    """`guarded` runs with --image-metadata false."""
    request = {"model": "colour", "seeds": [7], "labels": 2}
    plain, told = guarded.post(request).content, server.generate(**request).content
    assert read_metadata(plain) == {}
    assert with_metadata(plain, "png", read_metadata(told)) == told
    path = "/v1/models/colour/images/7.png?label=2"
    headers = {"authorization": f"Bearer {guarded.key}"}
    bare = HTTP.get(guarded.server.url + path, headers=headers)
    assert bare.content == plain
    assert bare.headers["etag"] != server.get(path).headers["etag"]


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("layout", ["list", "grid"])
def test_show_reads_a_file_and_makes_it_again(
    server: ServerProcess,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    layout: str,
) -> None:
    seeds = [11] if layout == "list" else [1, 2, 30]
    request = {"model": "colour", "version": 1, "seeds": seeds, "labels": 1, "truncation": 0.3}
    path, new = tmp_path / "image", tmp_path / "new"
    path.write_bytes(server.generate(**request, format=kind, layout=layout).content)
    command = ["--url", server.url, "show", str(path), "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out) == read_metadata(path.read_bytes())
    assert main([*command, "--again", str(new)]) == 0
    assert "the pixels are the same" in capsys.readouterr().out
    assert new.read_bytes() == path.read_bytes()


def test_files_of_the_client_say_it_too(
    server: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--url", server.url]
    made = ["generate", "--seeds", "4-5", "--labels", "0,2", "--model", "colour"]
    assert main([*flags, *made, "--out", str(tmp_path)]) == 0
    assert main([*flags, *made, "--grid", str(tmp_path / "grid.png")]) == 0
    assert read_metadata((tmp_path / "grid.png").read_bytes())["seeds"] == "4-5"
    capsys.readouterr()
    new = tmp_path / "new.png"
    assert main([*flags, "show", str(tmp_path / "5.png"), "--again", str(new)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["seed", "5"]
    assert shown[1].split() == ["label", "2"]


def test_what_cannot_be_made_again_is_told(
    server: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, new = tmp_path / "image.png", tmp_path / "new.png"
    show = ["--url", server.url, "show", str(path), "--again", str(new)]

    def refusal() -> str:
        assert main(show) == 2
        return capsys.readouterr().err

    path.write_bytes(b"no image")
    assert "can't be read as an image" in refusal()
    Image.new("L", (8, 8)).save(path)
    assert "does not say how it was made" in refusal()
    path.write_bytes(server.generate(model="grey", latents=[[0.5] * 6]).content)
    assert "says no model, version or seed" in refusal()
    image = server.generate(model="grey", seeds=[1]).content
    words = read_metadata(image)
    plain = io.BytesIO()
    Image.fromarray(np.asarray(Image.open(io.BytesIO(image)))).save(plain, "PNG")
    other = with_metadata(plain.getvalue(), "png", {**words, "digest": "0" * 64})
    path.write_bytes(other)
    assert "another model" in refusal()
    path.write_bytes(with_metadata(plain.getvalue(), "png", {**words, "seed": "2"}))
    assert main(show) == 1
    assert "the pixels are others" in capsys.readouterr().out
    assert not list(tmp_path.glob(".new*"))
