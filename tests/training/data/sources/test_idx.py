"""MNIST's files as people have them: other folders, other names, packed or not."""

import gzip

import numpy as np
import pytest

from tests.training.data.sources.test_sources import config, idx
from training.data import load
from training.errors import ConfigError, DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8)
LABELS = (np.arange(30) % 10).astype(np.uint8)
NAMES = {
    "train-images-idx3-ubyte": "train-labels-idx1-ubyte",
    "train-images.idx3-ubyte": "train-labels.idx1-ubyte",
    "emnist-digits-train-images-idx3-ubyte": "emnist-digits-train-labels-idx1-ubyte",
}


def write(folder, images, content, packed):
    folder.mkdir(parents=True, exist_ok=True)
    data = idx(content)
    path = folder / (images + ".gz" if packed else images)
    path.write_bytes(gzip.compress(data) if packed else data)
    return path


@pytest.mark.parametrize("place", ["", "data", "package/data/raw"])
@pytest.mark.parametrize("names", NAMES.items())
@pytest.mark.parametrize("packed", [(False, False), (True, True), (True, False)])
def test_as_it_is(tmp_path, place, names, packed):
    write(tmp_path / place, names[0], IMAGES, packed[0])
    write(tmp_path / place, names[1], LABELS, packed[1])
    write(tmp_path / place, names[0].replace("train", "t10k"), IMAGES[:3], False)
    for name in ("mnist", "fashion-mnist", "kmnist"):
        image_set = load(config(name, tmp_path))
        assert np.array_equal(image_set.images[:, 0].numpy(), IMAGES)
        assert np.array_equal(image_set.labels.numpy(), LABELS)
        assert len(image_set.label_names) == 10


@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte", "emnist-digits-test-images-idx3-ubyte"])
def test_the_test_part(tmp_path, name):
    write(tmp_path, "train-images-idx3-ubyte", IMAGES, False)
    write(tmp_path, "train-labels-idx1-ubyte", LABELS, False)
    write(tmp_path, name, IMAGES[:12], True)
    write(tmp_path, name.replace("images-idx3", "labels-idx1"), LABELS[:12], False)
    image_set = load(config("mnist", tmp_path, split="test"))
    assert np.array_equal(image_set.images[:, 0].numpy(), IMAGES[:12])
    assert np.array_equal(image_set.labels.numpy(), LABELS[:12])
    for split in ("auto", "none", "train"):
        assert len(load(config("mnist", tmp_path, split=split))) == 30
    with pytest.raises(ConfigError, match=r"data\.split is 'val'; .* has the parts train and test"):
        config("mnist", tmp_path, split="val")
    with pytest.raises(ConfigError, match=r"data\.split is 'test'; the dataset 'digits' doesn't"):
        config("digits", None, split="test")


@pytest.mark.parametrize(("there", "split"), [("train", "test"), ("t10k", "train")])
def test_another_set_is_not_fetched_where_one_part_is_missing(tmp_path, there, split):
    write(tmp_path, f"{there}-images-idx3-ubyte", IMAGES, False)
    write(tmp_path, f"{there}-labels-idx1-ubyte", LABELS, False)
    files = sorted(tmp_path.iterdir())
    with pytest.raises(DataError, match=f"it holds {there}-images-idx3-ubyte, and not the part"):
        load(config("mnist", tmp_path, split=split))
    assert sorted(tmp_path.iterdir()) == files


def test_more_classes_than_ten_are_numbered(tmp_path):
    write(tmp_path, "train-images-idx3-ubyte", IMAGES, False)
    write(tmp_path, "train-labels-idx1-ubyte", LABELS + 20, False)
    assert load(config("mnist", tmp_path)).label_names == tuple(map(str, range(30)))


def test_several_sets_are_told_apart_by_the_user(tmp_path):
    for place in ("a", "b"):
        write(tmp_path / place, "train-images-idx3-ubyte", IMAGES, place == "a")
        write(tmp_path / place, "train-labels-idx1-ubyte", LABELS, False)
    with pytest.raises(DataError, match=r"several sets \(a/train-images.*, b/train.*folder of one"):
        load(config("mnist", tmp_path))
    assert len(load(config("mnist", tmp_path / "a"))) == 30


@pytest.mark.parametrize("bad", ["header", "length", "gz", "labels", "number"])
def test_damage_is_named(tmp_path, bad):
    images = write(tmp_path, "train-images-idx3-ubyte", IMAGES, bad == "gz")
    labels = LABELS[:-1] if bad == "number" else LABELS
    labels_path = write(tmp_path, "train-labels-idx1-ubyte", labels, False)
    if bad == "header":
        images.write_bytes(b"\x89PNG" + images.read_bytes()[4:])
    elif bad in ("length", "gz"):
        images.write_bytes(images.read_bytes()[:-200])
    elif bad == "labels":
        labels_path.unlink()
    says = {
        "header": "no IDX file of bytes in 3 dimensions",
        "length": "its header says",
        "gz": "can't be read",
        "labels": "put train-labels-idx1-ubyte",
        "number": "29 labels.*don't belong together",
    }
    with pytest.raises(DataError, match=says[bad]):
        load(config("mnist", tmp_path))
