"""The published sets, from small files in their true formats."""

import gzip
import hashlib
import importlib.util
import io
import pickle
import struct

import numpy as np
import pytest
import torchvision
from PIL import Image

from training.data import DataConfig, load
from training.errors import ConfigError, DataError

RNG = np.random.default_rng(0)


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def idx(array: np.ndarray) -> bytes:
    """Big-endian: two zero bytes, type 8 (unsigned byte), dimensions, sizes, data."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def write_mnist(folder, images, labels, *, packed=False):
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "t10k"):
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            path = folder / f"{split}-{kind}-ubyte"
            if packed:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(idx(array)))
            else:
                path.write_bytes(idx(array))


@pytest.fixture
def mnist_arrays():
    images = RNG.integers(0, 256, (30, 28, 28), dtype=np.uint8)
    return images, (np.arange(30) % 10).astype(np.uint8)


@pytest.fixture
def offline(monkeypatch):
    """Downloads go to a port where nobody listens."""
    for name in ("MNIST", "FashionMNIST", "KMNIST"):
        cls = getattr(torchvision.datasets, name)
        monkeypatch.setattr(cls, "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", "http://127.0.0.1:9/")


def config(dataset, path, **options):
    defaults = {"resolution": 28, "channels": 1, "conditional": True}
    return DataConfig(dataset=dataset, path=path, **(defaults | options))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "folder", "first_label"),
    [
        ("mnist", "MNIST", "0"),
        ("fashion-mnist", "FashionMNIST", "T-shirt/top"),
        ("kmnist", "KMNIST", "o"),
    ],
)
def test_mnist_family(tmp_path, mnist_arrays, packed, name, folder, first_label):
    images, labels = mnist_arrays
    write_mnist(tmp_path / folder / "raw", images, labels, packed=packed)
    image_set = load(config(name, tmp_path))
    assert np.array_equal(image_set.images[:, 0].numpy(), images)
    assert np.array_equal(image_set.labels.numpy(), labels)
    assert image_set.label_names[0] == first_label
    assert len(image_set.label_names) == 10


def test_mnist_is_resized_and_coloured(tmp_path, mnist_arrays):
    images, labels = mnist_arrays
    images[:] = 77
    write_mnist(tmp_path / "MNIST/raw", images, labels)
    image_set = load(config("mnist", tmp_path, resolution=32, channels=3))
    assert image_set.images.shape == (30, 3, 32, 32)
    assert (image_set.images == 77).all()


def test_stacked_mnist_writes_a_number_in_three_colours(tmp_path, mnist_arrays, monkeypatch):
    monkeypatch.setattr("training.data.sources.stacked.NUM_IMAGES", 500)
    images, labels = mnist_arrays
    write_mnist(tmp_path / "MNIST/raw", images, labels)
    image_set = load(config("stacked-mnist", tmp_path, channels=3))
    assert image_set.images.shape == (500, 3, 28, 28)
    for img, label in zip(image_set.images[:20], image_set.labels[:20], strict=True):
        name = image_set.label_names[label]
        for channel, digit in zip(img, name, strict=True):
            (index,) = np.flatnonzero((images == channel.numpy()).all((1, 2)))
            assert labels[index] == int(digit)
    assert len(np.unique(image_set.labels)) > 300
    again = load(config("stacked-mnist", tmp_path, channels=3))
    assert again.fingerprint == image_set.fingerprint


def test_stacked_mnist_has_three_channels(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.channels is 1; .* set --data\.channels 3"):
        config("stacked-mnist", tmp_path)


def test_mnist_missing_says_where_to_put_which_files(tmp_path, offline, capsys):
    with pytest.raises(DataError) as raised:
        load(config("mnist", tmp_path))
    message = str(raised.value)
    assert "put train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images" in message
    assert f"into {tmp_path / 'MNIST' / 'raw'}" in message
    assert "--data.path" in message
    assert f"mnist: not in {tmp_path}, downloading it" in capsys.readouterr().err


def test_a_folder_that_does_not_exist_is_not_made(tmp_path, offline):
    with pytest.raises(DataError, match=r"data\.path is .*typo: not a folder; make it"):
        load(config("mnist", tmp_path / "typo"))
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize("keep", [0, 3, 100])
def test_truncated_mnist(tmp_path, mnist_arrays, keep):
    write_mnist(tmp_path / "MNIST/raw", *mnist_arrays)
    path = tmp_path / "MNIST/raw/train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"can't be read .*delete them and run again"):
        load(config("mnist", tmp_path))


def test_truncated_gz_is_not_taken_for_the_file(tmp_path, mnist_arrays, offline):
    folder = tmp_path / "MNIST/raw"
    write_mnist(folder, *mnist_arrays, packed=True)
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match="downloading them failed"):
        load(config("mnist", tmp_path))
    assert not (folder / "train-images-idx3-ubyte").exists()


def test_mnist_with_labels_of_another_set(tmp_path, mnist_arrays):
    images, labels = mnist_arrays
    write_mnist(tmp_path / "MNIST/raw", images, labels[:-1])
    with pytest.raises(DataError, match=r"\[30, 28, 28\] with 29 labels"):
        load(config("mnist", tmp_path))


@pytest.fixture
def cifar_arrays(tmp_path, monkeypatch):
    """CIFAR-10's own layout, small; torchvision checks digests, so it is told these."""
    cls = torchvision.datasets.CIFAR10
    folder = tmp_path / cls.base_folder
    folder.mkdir()
    data = RNG.integers(0, 256, (6, 4, 3072), dtype=np.uint8)
    labels = RNG.integers(0, 10, (6, 4))
    names = [name for name, _ in cls.train_list + cls.test_list]
    listed = []
    for i, name in enumerate(names):
        content = pickle.dumps({"data": data[i], "labels": labels[i].tolist()})
        (folder / name).write_bytes(content)
        listed.append([name, md5(content)])
    meta = pickle.dumps({"label_names": [f"class {i}" for i in range(10)]})
    (folder / "batches.meta").write_bytes(meta)
    monkeypatch.setattr(cls, "train_list", listed[:5])
    monkeypatch.setattr(cls, "test_list", listed[5:])
    monkeypatch.setattr(cls, "meta", cls.meta | {"md5": md5(meta)})
    return data[:5].reshape(20, 3, 32, 32), labels[:5].reshape(20)


def test_cifar10(tmp_path, cifar_arrays):
    images, labels = cifar_arrays
    image_set = load(config("cifar10", tmp_path, resolution=32, channels=3))
    assert np.array_equal(image_set.images.numpy(), images)
    assert np.array_equal(image_set.labels.numpy(), labels)
    assert image_set.label_names[3] == "class 3"


def test_cifar10_in_grey_is_luma(tmp_path, cifar_arrays):
    images, _ = cifar_arrays
    grey = load(config("cifar10", tmp_path, resolution=32)).images[:, 0].numpy().astype(float)
    luma = np.einsum("nchw,c->nhw", images, [0.299, 0.587, 0.114])
    assert np.abs(grey - luma).max() <= 1


def test_altered_cifar10_is_not_unpickled(tmp_path, cifar_arrays, offline):
    path = tmp_path / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(DataError, match=r"put cifar-10-python\.tar\.gz, or the folder"):
        load(config("cifar10", tmp_path, resolution=32, channels=3))


@pytest.fixture
def celeba_folder(tmp_path, monkeypatch):
    cls = torchvision.datasets.CelebA
    folder = tmp_path / cls.base_folder
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{i:06}.jpg" for i in range(1, 6)]
    for i, name in enumerate(names):
        Image.new("RGB", (178, 218), (40 * i, 0, 0)).save(folder / "img_align_celeba" / name)
    texts = {
        "list_eval_partition.txt": [f"{name} {0 if i < 3 else 1}" for i, name in enumerate(names)],
        "identity_CelebA.txt": [f"{name} 7" for name in names],
        "list_bbox_celeba.txt": ["5", "image_id x_1 y_1 w h", *(f"{n} 1 2 3 4" for n in names)],
        "list_landmarks_align_celeba.txt": ["5", "x y", *(f"{name} 1 2" for name in names)],
        "list_attr_celeba.txt": ["5", "Smiling Young", *(f"{name}  1 -1" for name in names)],
    }
    for name, lines in texts.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    listed = [
        (file_id, md5((folder / name).read_bytes()) if name in texts else digest, name)
        for file_id, digest, name in cls.file_list
    ]
    monkeypatch.setattr(cls, "file_list", listed)
    return folder


def celeba(path):
    return config("celeba", path, resolution=16, channels=3, conditional=False)


def test_celeba_is_its_training_split(tmp_path, celeba_folder):
    image_set = load(celeba(tmp_path))
    assert image_set.images.shape == (3, 3, 16, 16)
    assert image_set.labels is None
    red = image_set.images[:, 0].float().mean((1, 2))
    assert np.abs(red.numpy() - [0, 40, 80]).max() < 3


def test_celeba_reports_a_damaged_image(tmp_path, celeba_folder):
    (celeba_folder / "img_align_celeba" / "000002.jpg").write_bytes(b"no")
    image_set = load(celeba(tmp_path))
    assert len(image_set) == 2
    assert tuple(map(str, image_set.skipped)) == ("000002.jpg: not an image that Pillow can read",)


def test_celeba_missing(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise RuntimeError("The daily quota\nof the file is exceeded")

    monkeypatch.setattr(torchvision.datasets.celeba, "download_file_from_google_drive", unreachable)
    with pytest.raises(DataError) as raised:
        load(celeba(tmp_path))
    assert "(The daily quota of the file is exceeded)" in str(raised.value)
    assert "list_attr_celeba.txt" in str(raised.value)
    assert f"into {tmp_path / 'celeba'}" in str(raised.value)


def jpeg(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.skipif(importlib.util.find_spec("lmdb") is None, reason="needs lmdb")
def test_lsun(tmp_path, monkeypatch):
    import lmdb

    monkeypatch.chdir(tmp_path)
    for name, colours in {"bedroom": ["red", "red"], "tower": ["blue"]}.items():
        path = str(tmp_path / f"{name}_train_lmdb")
        with lmdb.open(path, map_size=2**20) as base, base.begin(write=True) as transaction:
            for i, colour in enumerate(colours):
                transaction.put(f"key{i}".encode(), jpeg(colour))
            transaction.put(b"broken", b"not a picture")
    before = sorted(tmp_path.iterdir())
    image_set = load(config("lsun", tmp_path, resolution=16, channels=3))
    assert image_set.label_names == ("bedroom", "tower")
    assert image_set.labels.tolist() == [0, 0, 1]
    assert (image_set.images[:2, 0] > 240).all()
    assert (image_set.images[2, 2] > 240).all()
    assert len(image_set.skipped) == 2
    assert str(image_set.skipped[0]) == "bedroom/broken: not an image that Pillow can read"
    assert sorted(tmp_path.iterdir()) == before  # no cache file in the working directory


@pytest.mark.skipif(importlib.util.find_spec("lmdb") is None, reason="needs lmdb")
def test_lsun_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="holds no folder CATEGORY_train_lmdb"):
        load(config("lsun", tmp_path))
    (tmp_path / "tower_train_lmdb").mkdir()
    with pytest.raises(DataError, match="fetch the files again"):
        load(config("lsun", tmp_path))


def test_lsun_without_lmdb(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lmdb", None)
    with pytest.raises(DataError, match="run `pip install lmdb`"):
        load(config("lsun", tmp_path))
