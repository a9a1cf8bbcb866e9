"""Images from a bundle without a server: the same pixels, and every refusal in words."""

import numpy as np
import pytest
from PIL import Image

from models.bundle.generator import CpuGenerator
from models.bundle.styles import read_styles
from models.bundle.units import read_units
from models.latents import latents, walk
from models.offline import generate, interpolate
from models.repository import Repository


@pytest.fixture(scope="module")
def colour(make_bundle):
    return make_bundle(size=8, channels=3, num_classes=3)


def expected(bundle, seeds, labels, psi=1.0):
    z = latents(seeds, bundle.manifest.z_dim) * np.float32(psi)
    return CpuGenerator(bundle.model_path)(z, np.array(labels))


def test_an_image_a_file_that_tells_how_it_was_made(colour, tmp_path):
    words = [str(colour.path), "--seeds", "5,7-8", "--labels", "2,class 0,1", "--truncation", "0.5"]
    assert generate.main([*words, "--out", str(tmp_path / "out")]) == 0
    images = expected(colour, [5, 7, 8], [2, 0, 1], 0.5)
    for seed, image in zip((5, 7, 8), images, strict=True):
        with Image.open(tmp_path / "out" / f"{seed}.png") as picture:
            assert np.array_equal(np.asarray(picture), image)
    with Image.open(tmp_path / "out" / "5.png") as picture:
        assert picture.text == {
            **{"seed": "5", "label": "2", "truncation": "0.5", "model": "tiny", "version": "1"},
            "digest": colour.digest,
        }


def test_a_grid_and_an_array_of_a_published_model(colour, tmp_path, capsys):
    Repository(tmp_path / "models").publish("mine", colour)
    words = ["mine@1", "--repository", str(tmp_path / "models"), "--seeds", "0-3"]
    assert generate.main([*words, "--npy", str(tmp_path / "a.npy")]) == 0
    # Without --labels as in samples.png: the seed modulo the number of classes.
    assert np.array_equal(np.load(tmp_path / "a.npy"), expected(colour, [0, 1, 2, 3], [0, 1, 2, 0]))
    assert generate.main([*words, "--grid", str(tmp_path / "g.png")]) == 0
    with Image.open(tmp_path / "g.png") as picture:
        assert picture.size == (16, 16)
    assert generate.main([*words, "--grid", str(tmp_path / "g.png")]) == 2
    assert "exists; choose another name, or add --force" in capsys.readouterr().err
    assert generate.main([*words, "--grid", str(tmp_path / "g.png"), "--force"]) == 0


@pytest.mark.parametrize(("suffix", "loop"), [(".webp", False), (".gif", True), (".png", False)])
def test_a_walk(colour, tmp_path, suffix, loop):
    out = tmp_path / f"walk{suffix}"
    words = [str(colour.path), "--seeds", "1,2", "--frames", "5", "--label", "class 2"]
    assert interpolate.main([*words, "--out", str(out), *(["--loop"] if loop else [])]) == 0
    z = walk(latents([1, 2], colour.manifest.z_dim), 5, loop=loop)
    images = CpuGenerator(colour.model_path)(z, np.full(5, 2))
    with Image.open(out) as picture:
        if suffix == ".png":
            assert np.array_equal(np.asarray(picture), np.concatenate(list(images), axis=1))
        else:
            assert picture.n_frames == 5
            if suffix == ".webp":
                picture.seek(3)
                assert np.array_equal(np.asarray(picture.convert("RGB")), images[3])


@pytest.mark.parametrize(
    ("command", "words", "code", "says"),
    [
        (generate, ["--seeds", "1", "--labels", "3", "--grid", "x.png"], 2, "allowed: 0 .. 2, or"),
        (generate, ["--seeds", "1-2", "--labels", "0,1,2", "--grid", "x.png"], 2, "has 3 entries"),
        (generate, ["--seeds", "1,1", "--out", "x"], 2, "1.png 2 times"),
        (interpolate, ["--seeds", "1", "--out", "x.webp"], 2, "a walk has at least 2"),
        (interpolate, ["--seeds", "1,2", "--out", "x.mp4"], 2, "must end in .webp"),
        (interpolate, ["--seeds", "1,2", "--frames", "1", "--out", "x.gif"], 2, "--frames is 1"),
        (interpolate, ["--seeds", "1,2", "--fps", "0", "--out", "x.gif"], 2, "--fps is 0"),
    ],
)
def test_mistakes_are_named(colour, tmp_path, capsys, monkeypatch, command, words, code, says):
    monkeypatch.chdir(tmp_path)
    assert command.main([str(colour.path), *words]) == code
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_is_no_model_is_named(tmp_path, capsys):
    words = ["--repository", str(tmp_path), "--seeds", "1", "--grid", str(tmp_path / "x.png")]
    assert generate.main(["nobody", *words]) == 3
    assert "BUNDLE is 'nobody': model 'nobody' is not in" in capsys.readouterr().err
    assert generate.main(["no/body", *words]) == 1
    assert "allowed: a folder that holds a manifest.json" in capsys.readouterr().err


def test_images_are_written_as_they_are_made(colour, tmp_path, monkeypatch):
    """Not held until the last one is there: a million would be more than a machine has."""
    batches = []
    make = CpuGenerator.__call__

    def failing(self, z, *args):
        batches.append(len(z))
        if len(batches) == 3:
            raise OSError(5, "the disk is gone", "x")
        return make(self, z, *args)

    monkeypatch.setattr(CpuGenerator, "__call__", failing)
    words = [str(colour.path), "--seeds", "0-199"]
    assert generate.main([*words, "--out", str(tmp_path / "out")]) == 1
    assert batches == [64, 64, 64]
    assert len(list((tmp_path / "out").iterdir())) == 128
    batches.clear()
    assert generate.main([*words, "--npy", str(tmp_path / "a.npy")]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_array_of_several_batches(colour, tmp_path):
    words = [str(colour.path), "--seeds", "0-99", "--npy", str(tmp_path / "a.npy")]
    assert generate.main(words) == 0
    seeds = list(range(100))
    images = expected(colour, seeds, [seed % 3 for seed in seeds])
    assert np.array_equal(np.load(tmp_path / "a.npy"), images)


def test_styles_and_units_as_the_bundle_s_own_graphs_make_them(make_bundle, tmp_path, capsys):
    styled_bundle = make_bundle(size=8, channels=3, styles=True)
    words = [str(styled_bundle.path), "--seeds", "0", "--out", str(tmp_path / "out")]
    words += ["--style-from", "5", "--style-layers", "1,3"]
    assert generate.main(words) == 0
    info = read_styles(styled_bundle)
    with Image.open(tmp_path / "out" / "0.png") as picture:
        assert np.array_equal(np.asarray(picture), info.images[0])
        assert picture.text["styles"] == '{"from":5,"layers":[1,3]}'
    dissected = make_bundle(num_classes=3, units=True)
    words = [str(dissected.path), "--seeds", "0", "--labels", "0", "--out", str(tmp_path / "off")]
    assert generate.main([*words, "--units-off", "1"]) == 0
    with Image.open(tmp_path / "off" / "0.png") as picture:
        assert np.array_equal(np.asarray(picture), read_units(dissected).images[0, ..., 0])
        assert picture.text["units_off"] == "1"
    out = tmp_path / "walk.png"
    way = [str(dissected.path), "--seeds", "0,1", "--frames", "2", "--out", str(out)]
    assert interpolate.main([*way, "--units-off", "1"]) == 0
    with Image.open(out) as picture:
        first = np.asarray(picture)[:, :8]
    assert np.array_equal(first, read_units(dissected).images[0, ..., 0])
    capsys.readouterr()


@pytest.mark.parametrize(
    ("part", "more", "words"),
    [
        ("styles", "--style-from 1", "--style-from is given without --style-layers"),
        ("styles", "--style-from 1 --style-layers 4", "--style-layers names 4, allowed are 0 .. 3"),
        ("styles", "--style-truncation 1,1", "--style-truncation has 2 numbers, this model has 4"),
        ("units", "--style-truncation 1", "styles are asked for, but tiny has none"),
        ("units", "--units-off 4", "--units-off names 4, allowed are 0 .. 3"),
        ("styles", "--units-off 1", "--units-off is given, but tiny has no units"),
        ("styles", "--units-off 1 --style-truncation 1,1,1,1", "they are different graphs"),
    ],
)
def test_what_a_model_has_not_is_refused(make_bundle, tmp_path, capsys, part, more, words):
    bundle = make_bundle(**{part: True})
    arguments = [str(bundle.path), "--seeds", "0", "--out", str(tmp_path / "out")]
    assert generate.main([*arguments, *more.split()]) == 2
    assert words in capsys.readouterr().err
