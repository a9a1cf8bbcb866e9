"""The sets that torchvision knows, read by its own classes: MNIST's family, CIFAR-10, CelebA.

Files that aren't there are downloaded; where that fails, the error says which go where.
"""

import gzip
import importlib
import shutil
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.datasets.registry import Raw, dataset, decoded
from training.decode import Encoded, fit
from training.errors import DataError

if TYPE_CHECKING:
    from training.data import DataConfig


@dataset("mnist", labelled=True, downloads=True)
def mnist(config: "DataConfig") -> Raw:
    """60,000 handwritten digits of 28x28 pixels (LeCun et al. 1998)."""
    return _idx(config, "MNIST", tuple("0123456789"))


@dataset("fashion-mnist", labelled=True, downloads=True)
def fashion_mnist(config: "DataConfig") -> Raw:
    """60,000 articles of clothing of 28x28 pixels (Xiao et al. 2017)."""
    return _idx(config, "FashionMNIST", None)


@dataset("kmnist", labelled=True, downloads=True)
def kmnist(config: "DataConfig") -> Raw:
    """60,000 cursive Japanese characters of 28x28 pixels (Clanuwat et al. 2018)."""
    return _idx(config, "KMNIST", None)


@dataset("cifar10", labelled=True, downloads=True)
def cifar10(config: "DataConfig") -> Raw:
    """50,000 photographs of 32x32 pixels in 10 classes (Krizhevsky 2009)."""
    cls = _torchvision("CIFAR10")
    files = f"cifar-10-python.tar.gz, or the folder {cls.base_folder} unpacked from it,"
    data = _open(config, cls, files, config.root)
    return Raw(
        images=fit(data.data, resolution=config.resolution, channels=config.channels),
        labels=np.array(data.targets, dtype=np.int64),
        label_names=tuple(data.classes),
    )


@dataset("celeba", labelled=False, downloads=True)
def celeba(config: "DataConfig") -> Raw:
    """162,770 aligned faces of 178x218 pixels, the training split (Liu et al. 2015)."""
    cls = _torchvision("CelebA")
    folder = config.root / cls.base_folder
    names = [name for _, _, name in cls.file_list]
    files = f"the folder img_align_celeba (unpacked from {names[0]}) and {', '.join(names[1:])}"
    data = _open(config, cls, files, folder, split="train")
    images = folder / "img_align_celeba"
    encoded = [Encoded(name, images / name) for name in data.filename]
    return decoded(config, encoded, len(encoded), None)


def _idx(config: "DataConfig", cls_name: str, label_names: tuple[str, ...] | None) -> Raw:
    """A set in MNIST's format, its files packed or not."""
    cls = _torchvision(cls_name)
    raw_folder = config.root / cls_name / "raw"
    packed = [raw_folder / name for name, _ in cls.resources]
    for file in packed:
        _unpack(file)
    files = ", ".join(file.stem for file in packed) + " (each as it is, or with .gz)"
    data = _open(config, cls, files, raw_folder)
    images = data.data.numpy()
    if images.ndim != 3 or len(images) != len(data.targets):
        raise DataError(
            f"{raw_folder}: images of shape {list(images.shape)} with {len(data.targets)} labels; "
            "the files don't belong together: delete them and run again to download them"
        )
    return Raw(
        images=fit(images[..., None], resolution=config.resolution, channels=config.channels),
        labels=data.targets.numpy().astype(np.int64),
        label_names=label_names or tuple(cls.classes),
    )


def _torchvision(cls_name: str) -> Any:
    """Imported when needed: the embedded default does not wait for it."""
    return getattr(importlib.import_module("torchvision.datasets"), cls_name)


def _open(config: "DataConfig", cls: Any, files: str, folder: Path, **options: Any) -> Any:
    """The torchvision dataset, downloaded if it isn't there.

    Args:
        config: whose root is opened.
        cls: the torchvision class.
        files: what must lie in the folder, in words.
        folder: where.
        options: more arguments of cls.
    """
    root = config.root
    if config.path is not None and not root.is_dir():
        raise DataError(
            f"data.path is {root}: not a folder; make it, or leave --data.path out for ./data"
        )
    try:
        return cls(root, **options)
    except RuntimeError as error:
        if "not found" not in str(error):
            raise _damaged(folder, error) from error
    except Exception as error:  # torchvision checks little: any fault of a file may surface
        raise _damaged(folder, error) from error
    print(f"{config.dataset}: not in {root}, downloading it", file=sys.stderr)
    try:
        return cls(root, download=True, **options)
    except Exception as error:  # from URLError to a missing package: the remedy is the same
        reason = " ".join(str(error).split())
        raise DataError(
            f"data.dataset is {config.dataset!r}: its files are not in {folder}, and downloading "
            f"them failed ({reason}); put {files} into {folder}, or choose another folder "
            "with --data.path"
        ) from error


def _damaged(folder: Path, error: Exception) -> DataError:
    return DataError(
        f"{folder}: its files can't be read ({type(error).__name__}: {error}); "
        "delete them and run again to download them"
    )


def _unpack(packed: Path) -> None:
    """Unpacks a .gz beside itself where that was not done yet; a damaged one is left alone."""
    target = packed.with_suffix("")
    if target.exists() or not packed.exists():
        return
    temporary = target.with_suffix(".unpacking")
    try:
        with gzip.open(packed) as source, temporary.open("wb") as sink:
            shutil.copyfileobj(source, sink)
        temporary.replace(target)
    except (OSError, EOFError, zlib.error):  # torchvision will miss it, and say so
        temporary.unlink(missing_ok=True)
