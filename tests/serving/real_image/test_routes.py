"""The routes that take real images, against a real server."""

import asyncio
import base64
import io
import json
import re
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.bundle import Bundle
from models.bundle.generator import CpuGenerator
from models.image_metadata import read_metadata
from models.latents import latents
from models.restoration import shrunk
from serving.api.real_image.routes import RealImageRoutes
from serving.errors import InvalidRequestProblem
from serving.requests.real_image.fields import EncodeRequest, ScoreRequest
from serving.settings import Settings
from tests.conftest import ServerProcess
from tests.serving.real_image.conftest import made, npy, text
from tests.support import make_service, metric, wait_for

ROUTES = ("encode", "edit", "inpaint", "upscale", "score")


def pixels(data: bytes | str) -> np.ndarray[Any, Any]:
    """The pixels [H, W, C] of a file, or of one in base64."""
    raw = base64.b64decode(data) if isinstance(data, str) else data
    array = np.asarray(Image.open(io.BytesIO(raw)))
    return array[:, :, None] if array.ndim == 2 else array


def test_an_image_comes_back_from_its_latent(
    real: ServerProcess, bundles: dict[str, Bundle]
) -> None:
    images = made(bundles["digits"], 3)
    body = {"model": "digits", "images": [text(npy(each)) for each in images], "reconstruct": True}
    reply = real.post("/v1/encode", json=body)
    assert reply.status_code == 200, reply.text
    assert reply.headers["x-model"] == "digits"
    assert re.match(r"decode;dur=.*, queue;.*, infer;.*, encode;", reply.headers["server-timing"])
    found = reply.json()
    assert found["digest"] == reply.headers["x-model-digest"]
    assert [each["label"] for each in found["images"]] == [0, 1, 2]
    z = np.array([each["latent"] for each in found["images"]])
    assert np.abs(z - latents(np.arange(3, dtype=np.uint64), 6)).max() < 0.3
    for each, image in zip(found["images"], images, strict=True):
        shown = pixels(each["reconstruction"])
        assert each["error"] == pytest.approx(np.square((shown - image.astype(float)) / 255).mean())
        assert each["error"] < 1e-3


def test_latents_as_an_array(real: ServerProcess, bundles: dict[str, Bundle]) -> None:
    image = text(npy(made(bundles["digits"], 1)[0]))
    body = {"model": "digits", "images": [image, image], "format": "npy"}
    reply = real.post("/v1/encode", json=body)
    z = np.load(io.BytesIO(reply.content))
    assert z.shape == (2, 6)
    assert z.dtype == np.float32
    assert np.array_equal(z[0], z[1])


def test_parts_and_json_give_the_same(real: ServerProcess, bundles: dict[str, Bundle]) -> None:
    image = npy(made(bundles["digits"], 1)[0])
    body = {"model": "digits", "image": text(image), "directions": {"0": 2}, "format": "png"}
    by_json = real.post("/v1/edit", json=body)
    fields = {"model": "digits", "directions": '{"0": 2}', "format": "png"}
    by_parts = real.post("/v1/edit", files={"image": ("x", image)}, data=fields)
    assert by_json.status_code == by_parts.status_code == 200, by_parts.text
    assert by_json.content == by_parts.content


def test_an_edit_adds_the_difference_to_the_image(
    real: ServerProcess, bundles: dict[str, Bundle]
) -> None:
    bundle = bundles["old"]
    image = made(bundle, 1)[0]
    image[0, 0] = 255  # what the model doesn't make, and the edit doesn't touch
    body = {"model": "old", "image": text(npy(image)), "directions": {"slant": 1.5}}
    reply = real.post("/v1/edit", json=body)
    assert reply.headers["content-type"] == "image/png"
    encoded = real.post("/v1/encode", json={"model": "old", "images": [body["image"]]}).json()
    z = np.array([encoded["images"][0]["latent"]], np.float32)
    step = np.zeros_like(z)
    step[0, 0] = 1.5 / 2  # of the planted direction
    before, after = CpuGenerator(bundle.model_path)(np.concatenate([z, z + step]))
    expected = (image.astype(int) + after - before).clip(0, 255)
    assert np.array_equal(pixels(reply.content), expected)
    told = read_metadata(reply.content)
    assert told["operation"] == "edit"
    assert told["directions"] == "0:1.5"
    assert "the model's idea of a change" in told["note"]


def test_outside_the_mask_every_byte_stays(real: ServerProcess, bundles: dict[str, Bundle]) -> None:
    rng = np.random.default_rng(5)
    image = rng.integers(0, 256, (8, 12, 1), np.uint8)  # nothing that the model could make
    mask = np.zeros((8, 12), np.uint8)
    mask[2:6, 3:9] = 255
    body = {
        "model": "digits",
        "image": text(npy(image)),
        "mask": text(npy(mask)),
        "seeds": [1, "2", 2**63, 1],
    }
    found = real.post("/v1/inpaint", json=body).json()
    answers = [pixels(each["data"]) for each in found["images"]]
    assert [each["seed"] for each in found["images"]] == [1, 2, 2**63, 1]
    for answer in answers:
        assert np.array_equal(answer[mask == 0], image[mask == 0])
    assert np.array_equal(answers[0], answers[3])
    assert not np.array_equal(answers[0], answers[1])
    spread = np.stack(answers).astype(np.float32).std(axis=0).mean(axis=-1)
    assert found["spread"] == pytest.approx(float(spread.mean()), rel=1e-5)
    shown = pixels(found["spread_map"])[:, :, 0]
    assert np.array_equal(shown, (spread * 4).round().clip(0, 255))
    assert shown[mask == 0].max() == 0
    assert "plausible, not true" in found["note"]
    data = base64.b64decode(found["images"][2]["data"])
    assert read_metadata(data)["start_seed"] == str(2**63)
    assert "plausible, not true" in read_metadata(data)["note"]
    assert len({each["label"] for each in found["images"]}) == 1
    classes = [3, 3, 8, 1]
    told = real.post("/v1/inpaint", json=body | {"label": classes}).json()["images"]
    assert [each["label"] for each in told] == classes
    assert read_metadata(base64.b64decode(told[2]["data"]))["label"] == "8"


def test_a_transparent_part_is_filled(real: ServerProcess, bundles: dict[str, Bundle]) -> None:
    grey = made(bundles["digits"], 1)[0][:, :, 0]
    alpha = np.full((8, 12), 255, np.uint8)
    alpha[:, 6:] = 0
    buffer = io.BytesIO()
    Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)]).save(buffer, "PNG")
    filled = real.post(
        "/v1/inpaint", files={"image": ("x.png", buffer.getvalue())}, data={"model": "digits"}
    )
    mask = npy(255 - alpha)
    same = real.post(
        "/v1/inpaint",
        files={"image": ("x", npy(grey)), "mask": ("m", mask)},
        data={"model": "digits"},
    )
    assert filled.status_code == 200, filled.text
    assert filled.content == same.content
    assert np.array_equal(pixels(filled.content)[:, :6, 0], grey[:, :6])


def turned(array: np.ndarray[Any, Any]) -> bytes:
    """A PNG that says that it is to be shown turned to the left by a quarter."""
    exif = Image.Exif()
    exif[0x112] = 6  # to be turned to the right, as it was turned to the left
    buffer = io.BytesIO()
    Image.fromarray(np.rot90(array)).save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


def test_a_mask_lies_where_it_was_painted(real: ServerProcess) -> None:
    """Image and mask are cut alike; what counts is how a viewer shows them."""
    wide = np.random.default_rng(3).integers(0, 256, (8, 36), np.uint8)
    mask = np.zeros((8, 36), np.uint8)
    mask[:, 18:] = 255
    body = {"model": "digits", "image": text(npy(wide)), "fit": "crop", "format": "npy"}
    reply = real.post("/v1/inpaint", json=body | {"mask": text(npy(mask))})
    assert reply.status_code == 200, reply.text
    answer = np.load(io.BytesIO(reply.content))[0, :, :, 0]
    assert np.array_equal(answer[:, :6], wide[:, 12:18])
    again = real.post("/v1/inpaint", json=body | {"mask": text(turned(mask))})
    assert again.content == reply.content, again.text


def test_what_must_not_be_forgotten_is_a_header_too(real: ServerProcess) -> None:
    body = {"model": "digits", "image": GOOD, "mask": HALF, "seeds": [1, 2]}
    array = real.post("/v1/inpaint", json=body | {"format": "npy"})
    listed = real.post("/v1/inpaint", json=body)
    assert array.headers["content-type"] == "application/x-npy"
    note = listed.json()["note"]
    assert array.headers["x-note"] == listed.headers["x-note"] == note
    assert note.startswith("plausible, not true")


def test_a_filled_image_is_never_lossy(real: ServerProcess) -> None:
    body = {"model": "digits", "image": GOOD, "mask": HALF}
    jpeg = {"accept": "image/jpeg"}
    reply = real.post("/v1/inpaint", json=body, headers=jpeg)
    assert reply.status_code == 406
    assert "image/png" in reply.json()["detail"]
    edit = {"model": "digits", "image": GOOD, "directions": {"0": 1}}
    assert real.post("/v1/edit", json=edit, headers=jpeg).status_code == 200


@pytest.mark.parametrize("route", ROUTES)
def test_the_example_of_a_route_is_one_that_it_takes(real: ServerProcess, route: str) -> None:
    detail = real.post(f"/v1/{route}", content=b"").json()["detail"]
    example = re.search("send for example ({.*})", detail)
    assert example is not None
    body = json.loads(example[1].replace("<base64 of a file>", GOOD))
    if route == "upscale":
        body["image"] = text(npy(np.zeros((4, 6), np.uint8)))
    if "mask" in body:
        body["mask"] = HALF
    reply = real.post(f"/v1/{route}", json=body | {"model": "digits"})
    assert reply.status_code == 200, reply.text


def test_a_small_image_is_enlarged(real: ServerProcess, bundles: dict[str, Bundle]) -> None:
    small = shrunk(made(bundles["digits"], 1), 2)[0].round().astype(np.uint8)
    body = {"model": "digits", "image": text(npy(small)), "seeds": [1, 2]}
    found = real.post("/v1/upscale", json=body).json()
    for each in found["images"]:
        answer = pixels(each["data"])
        assert answer.shape == (8, 12, 1)
        error = np.square((shrunk(answer[None], 2)[0] - small) / 255).mean()
        assert each["error"] == pytest.approx(float(error), rel=1e-4)
    assert "plausible, not true" in found["note"]
    array = real.post("/v1/upscale", json=body | {"format": "npy"})
    assert np.load(io.BytesIO(array.content)).shape == (2, 8, 12, 1)


def test_a_score_with_its_p_and_its_map(real: ServerProcess, bundles: dict[str, Bundle]) -> None:
    usual = made(bundles["digits"], 1)[0]
    odd = np.random.default_rng(0).integers(0, 256, usual.shape, np.uint8)
    body = {"model": "digits", "images": [text(npy(usual)), text(npy(odd))], "maps": True}
    found = real.post("/v1/score", json=body).json()
    assert found["compares"] == ["pixels", "features"]
    assert found["num_calibration"] == 99
    first, second = found["images"]
    assert first["score"] < second["score"]
    scores = np.linspace(0, 0.5, 99)
    for each, image in ((first, usual), (second, odd)):
        assert each["p"] == pytest.approx((1 + (scores >= each["score"]).sum()) / 100)
        made_again = pixels(each["reconstruction"])
        residual = np.square((image.astype(float) - made_again) / 127.5).mean(axis=2)
        assert each["score"] == pytest.approx(1.25 * residual.mean(), rel=1e-3)
        assert each["map_max"] == pytest.approx(residual.max(), rel=1e-3)
        shown = pixels(each["map"])[:, :, 0] / 255 * each["map_max"]
        assert np.abs(shown - residual).max() <= each["map_max"] / 254
    plain = real.post("/v1/score", json=body | {"maps": False}).json()["images"][0]
    assert plain["map"] is plain["reconstruction"] is None


def test_an_old_bundle_scores_pixels_and_has_no_p(
    real: ServerProcess, bundles: dict[str, Bundle]
) -> None:
    image = made(bundles["old"], 1)[0]
    body = {"model": "old", "images": [text(npy(image))], "maps": True}
    found = real.post("/v1/score", json=body).json()
    (each,) = found["images"]
    assert found["compares"] == ["pixels"]
    assert each["p"] is None
    residual = np.square((image.astype(float) - pixels(each["reconstruction"])) / 127.5)
    assert each["score"] == pytest.approx(residual.mean(), rel=1e-4)


def test_the_description_says_what_an_encoder_can_do(real: ServerProcess) -> None:
    found = {each["name"]: each for each in real.get("/v1/models").json()["models"]}
    assert found["digits"]["encoder"] == {
        "label": "found",
        "fills": True,
        "varies": True,
        "num_calibration": 99,
    }
    assert found["digits"]["parts"] == ["directions", "encoder", "score"]
    assert found["told"]["encoder"]["label"] == "needed"
    assert found["old"]["encoder"]["fills"] is False
    assert found["bare"]["encoder"] is None


GOOD = text(npy(np.zeros((8, 12), np.uint8)))
HALF = text(npy(np.repeat(np.array([0, 255], np.uint8), [48, 48]).reshape(8, 12)))
WHITE = text(npy(np.full((8, 12), 255, np.uint8)))


LARGE = text(npy(np.zeros((32, 48), np.uint8)))
TALL = text(npy(np.repeat(np.array([0, 255], np.uint8), 48 * 24).reshape(96, 24)))
LAYER = text(npy(np.repeat(np.array([0, 255], np.uint8), [192, 192]).reshape(8, 12, 4)))


@pytest.mark.parametrize(
    ("route", "fields", "words"),
    [
        ("encode", {"model": "bare", "images": [GOOD]}, "has no encoder, so it takes no images"),
        (
            "encode",
            {"model": "digits", "images": []},
            r"images has 0 entries, allowed are 1 \.\. 64",
        ),
        ("encode", {"model": "digits", "images": [text(b"GIF89a")]}, r"images\[0\] begins with"),
        ("encode", {"model": "digits", "images": [GOOD, "?"]}, r"images\[1\].*base64"),
        ("encode", {"model": "told", "images": [GOOD]}, "labels is missing; model 'told' needs"),
        ("encode", {"model": "told", "images": [GOOD], "labels": 3}, r"labels is 3, allowed are 0"),
        ("encode", {"model": "digits", "images": [GOOD], "labels": [1, 2]}, "labels has 2 entries"),
        ("edit", {"model": "digits", "image": GOOD}, "neither directions nor styles is given"),
        ("edit", {"model": "digits", "directions": {"0": 1}}, "missing required field `image`"),
        ("edit", {"model": "told", "image": GOOD, "label": 0, "directions": {"0": 1}}, "has none"),
        ("inpaint", {"model": "digits", "image": GOOD}, "mask is missing, and image is transp"),
        ("inpaint", {"model": "digits", "image": GOOD, "mask": GOOD}, "nothing to be filled"),
        ("inpaint", {"model": "digits", "image": GOOD, "mask": WHITE}, "covers the whole image"),
        ("inpaint", {"model": "old", "image": GOOD, "mask": HALF}, "takes no mask, so it fills"),
        ("inpaint", {"model": "digits", "image": GOOD, "mask": HALF, "seeds": []}, "seeds has 0"),
        ("inpaint", {"model": "digits", "image": GOOD, "mask": HALF, "seeds": [-1]}, r"seeds\[0\]"),
        (
            "inpaint",
            {"model": "digits", "image": GOOD, "mask": HALF, "seeds": [1, 2, 3], "label": [1, 2]},
            "label has 2 entries for 3 images",
        ),
        (
            "inpaint",
            {"model": "digits", "image": GOOD, "mask": HALF, "format": "jpeg"},
            "format is 'jpeg'.*png.*webp",
        ),
        (
            "inpaint",
            {"model": "digits", "image": LARGE, "mask": TALL, "fit": "crop"},
            "mask has 24x96 pixels, image has 48x32; send a mask of the image's size",
        ),
        (
            "inpaint",
            {"model": "digits", "image": LARGE, "mask": HALF, "fit": "stretch"},
            "mask has 12x8 pixels, image has 48x32",
        ),
        (
            "inpaint",
            {"model": "digits", "image": GOOD, "mask": LAYER},
            "mask is transparent in places, and is read by its brightness",
        ),
        ("upscale", {"model": "old", "image": GOOD}, "fills and enlarges nothing"),
        ("upscale", {"model": "digits", "image": GOOD}, "has the size of the model's images alr"),
        ("upscale", {"model": "alpha", "image": GOOD}, "those that can become 8x8 are 4x4, 2x2"),
        ("score", {"model": "digits", "images": [GOOD], "fit": "cut"}, "allowed are exact, crop"),
        ("score", {"model": "digits", "image": GOOD}, "field 'image' is not known.*images"),
        (
            "encode",
            {"model": "digits", "images": [text(npy(np.zeros((400, 400), np.uint8)))]},
            "400x400 pixels, allowed are 1 .. 100000",
        ),
    ],
)
def test_what_cannot_be_done_is_said(
    real: ServerProcess, route: str, fields: dict[str, Any], words: str
) -> None:
    reply = real.post(f"/v1/{route}", json=fields)
    assert reply.status_code == 400, reply.text
    assert re.search(words, reply.json()["detail"]), reply.json()["detail"]


@pytest.mark.parametrize(
    ("files", "data", "words"),
    [
        ({"image": b"x", "model": b"y"}, {}, "model is a file, must be text"),
        ({"image": b"x"}, {"image": "y"}, "image is given twice"),
        ({"picture": b"x"}, {}, "field 'picture' is not known"),
        ({"image": b"x"}, {"label": "a"}, "label is 'a'"),
    ],
)
def test_parts_that_mean_nothing_are_named(
    real: ServerProcess, files: dict[str, bytes], data: dict[str, str], words: str
) -> None:
    sent = {name: (name, content) for name, content in files.items()}
    reply = real.post("/v1/inpaint", files=sent, data=data)
    assert reply.status_code == 400
    assert words in reply.json()["detail"]


def test_an_image_of_a_model_with_alpha_keeps_it(
    real: ServerProcess, bundles: dict[str, Bundle]
) -> None:
    image = made(bundles["alpha"], 1)[0]
    body = {"model": "alpha", "image": text(npy(image)), "mask": text(npy(np.eye(8, dtype=bool)))}
    reply = real.post("/v1/inpaint", json=body)
    assert reply.status_code == 200, reply.text
    keeps = ~np.eye(8, dtype=bool)
    assert np.array_equal(pixels(reply.content)[keeps], image[keeps])


def test_a_run_that_fails_is_its_own_requests_failure(
    real: ServerProcess, bundles: dict[str, Bundle]
) -> None:
    good = made(bundles["fragile"], 1)[0]
    good[0, 0] = 12
    bad = good.copy()
    bad[0, 0] = 13
    expected = real.post("/v1/encode", json={"model": "fragile", "images": [text(npy(good))]})
    assert expected.status_code == 200
    replies: list[Any] = [None] * 16

    def ask(index: int) -> None:
        image = bad if index % 4 == 0 else good
        replies[index] = real.post(
            "/v1/encode", json={"model": "fragile", "images": [text(npy(image))]}
        )

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, reply in enumerate(replies):
        if index % 4 == 0:
            assert reply.status_code == 503
            assert "encoder.onnx of model 'fragile' (version 1) failed" in reply.json()["detail"]
        else:
            assert reply.content == expected.content  # the same bytes at any load
    assert real.generate(model="fragile", seeds=[1]).status_code == 200


def test_stages_are_counted(real: ServerProcess) -> None:
    names = ("saddlepoint_part_rows_total", "saddlepoint_input_images_total")
    before = [metric(real, name) for name in names]
    made_before = metric(real, "saddlepoint_rows_generated_total")
    body = {"model": "digits", "images": [GOOD, GOOD]}
    assert real.post("/v1/score", json=body).status_code == 200
    wait_for(lambda: metric(real, names[0]) == before[0] + 4)  # encoder and score, two rows each
    wait_for(lambda: metric(real, names[1]) == before[1] + 2)
    wait_for(lambda: metric(real, "saddlepoint_rows_generated_total") == made_before + 2)


def test_a_deadline_holds_for_the_whole_way(real: ServerProcess) -> None:
    # A thousandth of a second is too little to decode an image, encode it and make 64 answers.
    body = {"model": "digits", "image": GOOD, "mask": HALF, "seeds": list(range(64))}
    reply = real.post("/v1/inpaint", json=body, headers={"x-request-timeout-ms": "1"})
    assert reply.status_code == 504
    assert real.post("/v1/inpaint", json=body).status_code == 200


def test_all_count_as_requests_for_images_and_need_such_keys(tmp_path: Any) -> None:
    service = make_service(Settings(repository=tmp_path), tmp_path)
    routes = RealImageRoutes(service).routes()
    assert {route.path for route in routes} == {f"/v1/{name}" for name in ROUTES}
    assert all(route.makes_images and route.scopes == {"generate"} for route in routes)
    service.decoder.shut_down()


@pytest.mark.parametrize(("route", "kind"), [("encode", EncodeRequest), ("score", ScoreRequest)])
def test_images_that_become_too_large_are_refused(tmp_path: Any, route: str, kind: Any) -> None:
    """A file of some bytes is scaled to the model's size: sixty-four of them may be gigabytes."""
    service = make_service(Settings(repository=tmp_path, max_image_pixels=20_000), tmp_path)
    routes, image = RealImageRoutes(service), SimpleNamespace(height=100, width=100)
    served = SimpleNamespace(manifest=SimpleNamespace(image=image))

    async def read(*given: Any) -> Any:
        return kind(images=[b""] * 3), served

    routes._read = read  # type: ignore[method-assign, assignment]
    with pytest.raises(InvalidRequestProblem, match=r"allowed are 2 \(--max-image-pixels"):
        asyncio.run(getattr(routes, route)(None))
    service.decoder.shut_down()


@pytest.mark.parametrize("route", ROUTES)
def test_a_body_that_is_too_large_is_refused(real: ServerProcess, route: str) -> None:
    reply = real.post(f"/v1/{route}", content=b"x" * 400_001)
    assert reply.status_code == 413
