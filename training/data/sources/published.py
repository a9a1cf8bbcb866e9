"""Datasets that torchvision's classes read: MNIST and its relatives, CIFAR-10 and CelebA.

MNIST and its relatives are found in a given folder however they lie in it. Missing files are
downloaded. If that fails, the error says which files belong where.
"""

import gzip
import importlib
import shutil
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from training.data.decoding import Encoded, fit
from training.data.sources import idx
from training.data.sources.registry import ImageRequest, Raw, dataset, decoded
from training.errors import DataError

TEST = "test"
"""The split that isn't trained on; every other is."""


@dataset("mnist", labelled=True, downloads=True, has_test=True)
def mnist(request: ImageRequest) -> Raw:
    """60,000 handwritten digits of 28x28 pixels, 10,000 to test with (LeCun et al. 1998)."""
    return _idx(request, "MNIST", tuple("0123456789"))


@dataset("fashion-mnist", labelled=True, downloads=True, has_test=True)
def fashion_mnist(request: ImageRequest) -> Raw:
    """60,000 articles of clothing of 28x28 pixels (Xiao et al. 2017)."""
    return _idx(request, "FashionMNIST", None)


@dataset("kmnist", labelled=True, downloads=True, has_test=True)
def kmnist(request: ImageRequest) -> Raw:
    """60,000 cursive Japanese characters of 28x28 pixels (Clanuwat et al. 2018)."""
    return _idx(request, "KMNIST", None)


@dataset("cifar10", labelled=True, downloads=True, has_test=True)
def cifar10(request: ImageRequest) -> Raw:
    """50,000 photographs of 32x32 pixels in 10 classes (Krizhevsky 2009)."""
    cls = _torchvision("CIFAR10")
    files = f"cifar-10-python.tar.gz, or the folder {cls.base_folder} unpacked from it,"
    data = _open(request, cls, files, request.root, train=request.split != TEST)
    return Raw(
        images=fit(data.data, request.form),
        labels=np.array(data.targets, dtype=np.int64),
        label_names=tuple(data.classes),
    )


@dataset("celeba", labelled=False, downloads=True)
def celeba(request: ImageRequest) -> Raw:
    """162,770 aligned faces of 178x218 pixels, the training split (Liu et al. 2015)."""
    cls = _torchvision("CelebA")
    folder = request.root / cls.base_folder
    names = [name for _, _, name in cls.file_list]
    files = f"the folder img_align_celeba (unpacked from {names[0]}) and {', '.join(names[1:])}"
    data = _open(request, cls, files, folder, split="train")
    images = folder / "img_align_celeba"
    encoded = [Encoded(name, images / name) for name in data.filename]
    return decoded(request, encoded, len(encoded), None)


def _idx(request: ImageRequest, cls_name: str, label_names: tuple[str, ...] | None) -> Raw:
    """Loads a dataset in MNIST's format, from files with or without .gz."""
    raw_folder = request.root / cls_name / "raw"
    # The default folder may hold other sets in this format, so that only a given one is searched.
    if request.is_given and not raw_folder.is_dir() and (pair := _pair(request)):
        return _of_pair(request, pair, label_names or tuple(_torchvision(cls_name).classes))
    cls = _torchvision(cls_name)
    packed = [raw_folder / name for name, _ in cls.resources]
    for file in packed:
        _unpack(file)
    files = ", ".join(file.stem for file in packed) + " (each as it is, or with .gz)"
    data = _open(request, cls, files, raw_folder, train=request.split != TEST)
    images = data.data.numpy()
    if images.ndim != 3 or len(images) != len(data.targets):
        raise DataError(
            f"{raw_folder}: images of shape {list(images.shape)} with {len(data.targets)} labels; "
            "the files don't belong together: delete them and run again to download them"
        )
    return Raw(
        images=fit(images[..., None], request.form),
        labels=data.targets.numpy().astype(np.int64),
        label_names=label_names or tuple(cls.classes),
    )


def _pair(request: ImageRequest) -> idx.Pair | None:
    """The files of the wanted part; None where there are none of either part.

    Raises:
        DataError: only the other part is there. Another set must not be fetched in its place.
    """
    wanted, other = (idx.TEST, idx.TRAIN) if request.split == TEST else (idx.TRAIN, idx.TEST)
    pair = idx.find(request.root, wanted)
    if pair is None and (found := idx.find(request.root, other)) is not None:
        names = "t10k-images-idx3-ubyte" if request.split == TEST else "train-images-idx3-ubyte"
        raise DataError(
            f"data.path is {request.root}: it holds {found.images.name}, and not the part that is "
            f"asked for, {names} and its labels; put them there, or set another --data.split"
        )
    return pair


def _of_pair(request: ImageRequest, pair: idx.Pair, label_names: tuple[str, ...]) -> Raw:
    images, labels = pair.read()
    num = max(labels.max(initial=0) + 1, len(label_names))
    return Raw(
        images=fit(images[..., None], request.form),
        labels=labels.astype(np.int64),
        label_names=label_names if num == len(label_names) else tuple(map(str, range(num))),
    )


def _torchvision(cls_name: str) -> Any:
    """A dataset class of torchvision, imported only when it is needed."""
    return getattr(importlib.import_module("torchvision.datasets"), cls_name)


def _open(request: ImageRequest, cls: Any, files: str, folder: Path, **options: Any) -> Any:
    """Opens a torchvision dataset, and downloads it first if files are missing.

    Args:
        request: names the root folder.
        cls: the torchvision class.
        files: the files that the folder must hold, in words.
        folder: the folder of the files, for messages.
        options: more arguments of cls.

    Raises:
        DataError: the files are damaged, or can't be downloaded.
    """
    root = request.root
    if request.is_given and not root.is_dir():
        raise DataError(
            f"data.path is {root}: not a folder; make it, or leave --data.path out for ./data"
        )
    try:
        return cls(root, **options)
    except RuntimeError as error:
        if "not found" not in str(error):
            raise _damaged(folder, error) from error
    except Exception as error:  # torchvision checks little, so that damage may raise anything
        raise _damaged(folder, error) from error
    print(f"{request.name}: not in {root}, downloading it", file=sys.stderr)
    try:
        return cls(root, download=True, **options)
    except Exception as error:  # URLError, a missing package and others have the same remedy
        reason = " ".join(str(error).split())
        raise DataError(
            f"data.dataset is {request.name!r}: its files are not in {folder}, and downloading "
            f"them failed ({reason}); put {files} into {folder}, or choose another folder "
            "with --data.path"
        ) from error


def _damaged(folder: Path, error: Exception) -> DataError:
    return DataError(
        f"{folder}: its files can't be read ({type(error).__name__}: {error}); "
        "delete them and run again to download them"
    )


def _unpack(packed: Path) -> None:
    """Unpacks a .gz file beside itself unless that was done before; ignores a damaged one."""
    target = packed.with_suffix("")
    if target.exists() or not packed.exists():
        return
    temporary = target.with_suffix(".unpacking")
    try:
        with gzip.open(packed) as source, temporary.open("wb") as sink:
            shutil.copyfileobj(source, sink)
        temporary.replace(target)
    except (OSError, EOFError, zlib.error):  # torchvision will report the file as missing
        temporary.unlink(missing_ok=True)
