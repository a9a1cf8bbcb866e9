"""Archives that a stranger made: bounded, or refused, before anything is inflated."""

import io
import os
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from models.bundle.archive import ArchiveError, read_arrays
from models.errors import BundleError

NAMES = ("seeds", "images")
LIMIT = 1 << 20


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def header(shape: str, dtype: str = "|u1", version: int = 1) -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    length = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + text


@pytest.fixture
def archive(tmp_path: Path):
    """Writes an archive of these members."""

    def write(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
        path = tmp_path / "golden.npz"
        with zipfile.ZipFile(path, "w", compression) as file:
            for name, data in members.items():
                file.writestr(name, data)
        return path

    return write


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes_comes_back(tmp_path, save):
    arrays = {
        "seeds": np.arange(5, dtype=np.uint64),
        "images": np.asfortranarray(np.random.default_rng(0).integers(0, 255, (5, 4, 3), np.uint8)),
    }
    save(tmp_path / "golden.npz", **arrays)
    found = read_arrays(tmp_path / "golden.npz", names=NAMES, max_bytes=LIMIT)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)


def test_a_bomb_is_refused_before_it_inflates(archive):
    path = archive({"seeds.npy": npy(np.arange(2)), "images.npy": bytes(200 << 20)})
    assert path.stat().st_size < LIMIT
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError, match=r"inflates to 2\d+ bytes, allowed are 1048576"):
            read_arrays(path, names=NAMES, max_bytes=LIMIT)
        assert tracemalloc.get_traced_memory()[1] < LIMIT
    finally:
        tracemalloc.stop()


def test_a_directory_that_lies_about_sizes_does_not_help_it(archive):
    """Sizes in the central directory are what is read, whatever the stream would give."""
    path = archive({"images.npy": bytes(50 << 20)})
    data = path.read_bytes()
    size = (50 << 20).to_bytes(4, "little")
    assert data.count(size) == 2  # the member's own head, and the directory
    path.write_bytes(data.replace(size, (4096).to_bytes(4, "little")))
    tracemalloc.start()
    try:
        with pytest.raises((ValueError, zipfile.BadZipFile)):
            read_arrays(path, names=NAMES, max_bytes=LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 4 * LIMIT
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("shape", ["(1000000000000,)", "(3,)", "(1000000, 1000000)", "(-1,)"])
def test_a_head_that_promises_more_than_there_is(archive, shape, version):
    path = archive({"images.npy": header(shape, version=version) + bytes(8)})
    with pytest.raises(ValueError, match="and holds 8 bytes"):
        read_arrays(path, names=NAMES, max_bytes=LIMIT)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"other.npy": npy(np.arange(2))}, "holds 'other.npy', allowed are images.npy, seeds.npy"),
        ({"seeds": npy(np.arange(2))}, "holds 'seeds', allowed"),
        ({"../seeds.npy": npy(np.arange(2))}, "holds '../seeds.npy', allowed"),
        ({f"{i}.npy": b"" for i in range(9)}, r"holds '0.npy', .* \.\.\., allowed"),
        ({"seeds.npy": header("(1,)", "|O") + bytes(8)}, "holds objects, which only pickle"),
        ({"seeds.npy": b"\x93NUMPY\x03\x00" + bytes(30)}, r"is of version 3\.0"),
    ],
)
def test_what_does_not_belong_in_it(archive, members, message):
    with pytest.raises(ArchiveError, match=message):
        read_arrays(archive(members), names=NAMES, max_bytes=LIMIT)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_given_twice(tmp_path):
    path = tmp_path / "golden.npz"
    with zipfile.ZipFile(path, "w") as file:
        for _ in range(2):
            file.writestr("seeds.npy", npy(np.arange(2)))
    with pytest.raises(ArchiveError, match=r"holds 'seeds\.npy', 'seeds\.npy'"):
        read_arrays(path, names=NAMES, max_bytes=LIMIT)


def test_other_compressions_are_refused(archive):
    """LZMA's head chooses how much memory its reader takes."""
    path = archive({"seeds.npy": npy(np.arange(2))}, zipfile.ZIP_LZMA)
    with pytest.raises(ArchiveError, match="a compression that NumPy never writes"):
        read_arrays(path, names=NAMES, max_bytes=LIMIT)


def test_a_large_file_is_not_opened(tmp_path):
    path = tmp_path / "golden.npz"
    with path.open("wb") as file:
        file.truncate(LIMIT + 1)
    with pytest.raises(ArchiveError, match=f"holds {LIMIT + 1} bytes, allowed are {LIMIT}"):
        read_arrays(path, names=NAMES, max_bytes=LIMIT)


@pytest.mark.parametrize("name", ["golden.npz", "manifest.json", "model.onnx"])
def test_a_pipe_in_a_files_place_does_not_hang(spoil, name):
    copy = spoil()
    bundle = copy.open()
    (copy.path / name).unlink()
    os.mkfifo(copy.path / name)
    read = {
        "manifest.json": copy.open,
        "golden.npz": lambda: bundle.golden,
        "model.onnx": bundle.verify_files,
    }
    with pytest.raises(BundleError, match="o regular file"):
        read[name]()


def test_a_golden_bomb_is_a_refused_bundle(spoil):
    copy = spoil()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr("seeds.npy", npy(np.arange(8, dtype=np.uint64)))
        file.writestr("images.npy", header("(8, 8, 8, 1)") + bytes(300 << 20))
    copy.write("golden.npz", buffer.getvalue())
    bundle = copy.open()
    bundle.verify_files()
    with pytest.raises(BundleError, match=r"golden\.npz: inflates to \d+ bytes, allowed are"):
        _ = bundle.golden


def test_a_manifest_without_end(spoil):
    copy = spoil()
    with (copy.path / "manifest.json").open("r+b") as file:
        file.truncate(1 << 30)
    with pytest.raises(BundleError, match=r"manifest\.json: holds 1073741824 bytes, allowed are"):
        copy.open()
