import hashlib
import io
import json
import os
import pickle
import shutil

import msgspec
import numpy as np
import pytest

from models.bundle import REQUIRED_FILES, Bundle, Golden, write_bundle
from models.bundle.generator import CpuGenerator
from models.errors import BundleError


def npz(**arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def golden_arrays(bundle: Bundle) -> dict:
    golden = bundle.golden
    arrays = {"seeds": golden.seeds, "images": golden.images}
    return arrays if golden.labels is None else arrays | {"labels": golden.labels}


@pytest.mark.parametrize("conditional", [False, True])
def test_a_whole_bundle_verifies(spoil, conditional):
    bundle = spoil(conditional=conditional).open()
    bundle.verify_files()
    assert bundle.verify_golden(CpuGenerator(bundle.model_path)) == 0
    data = (bundle.path / "manifest.json").read_bytes()
    assert bundle.digest == hashlib.sha256(data).hexdigest()


def test_golden_survives_its_file(classes):
    golden = classes.golden
    with np.load(io.BytesIO(golden.to_bytes()), allow_pickle=False) as archive:
        assert sorted(archive) == ["images", "labels", "seeds"]
        assert np.array_equal(archive["images"], golden.images)


@pytest.mark.parametrize("name", REQUIRED_FILES)
def test_a_missing_file_is_named(spoil, name):
    copy = spoil()
    (copy.path / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: No such file or directory; publish"):
        copy.open().verify_files()


@pytest.mark.parametrize("name", REQUIRED_FILES)
def test_one_flipped_bit_is_found(spoil, name):
    copy = spoil()
    data = bytearray((copy.path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy.path / name).write_bytes(data)
    with pytest.raises(BundleError, match=rf"{name}: sha256 is \w+\.\.\., the manifest says"):
        copy.open().verify_files()


@pytest.mark.parametrize("name", REQUIRED_FILES)
def test_a_truncated_file_is_found(spoil, name):
    copy = spoil()
    data = (copy.path / name).read_bytes()
    (copy.path / name).write_bytes(data[:-1])
    message = f"{name}: holds {len(data) - 1} bytes, the manifest says {len(data)}"
    with pytest.raises(BundleError, match=message):
        copy.open().verify_files()


def test_a_folder_in_a_files_place(spoil):
    copy = spoil()
    (copy.path / "card.md").unlink()
    (copy.path / "card.md").mkdir()
    with pytest.raises(BundleError, match=r"card\.md: Is a directory"):
        copy.open().verify_files()


@pytest.mark.parametrize("name", [*REQUIRED_FILES, "manifest.json"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_is_no_file_itself_is_refused(spoil, tmp_path, name, kind):
    """A link even where the digest is right: it would bring in what lies elsewhere."""
    copy = spoil()
    shutil.move(copy.path / name, tmp_path / name)
    if kind == "link":
        (copy.path / name).symlink_to(tmp_path / name)
    else:
        os.mkfifo(copy.path / name)
    message = "Is a symbolic link" if kind == "link" else "Is no regular file"
    with pytest.raises(BundleError, match=f"{name}: {message}"):
        copy.open().verify_files()


def test_golden_images_behind_a_link_are_not_read(spoil, tmp_path):
    copy = spoil()
    shutil.move(copy.path / "golden.npz", tmp_path / "golden.npz")
    (copy.path / "golden.npz").symlink_to(tmp_path / "golden.npz")
    with pytest.raises(BundleError, match=r"golden\.npz: .*Is a symbolic link"):
        _ = copy.open().golden


def test_a_bundle_s_folder_may_be_a_link(spoil, tmp_path):
    """As Kubernetes mounts some volumes."""
    (tmp_path / "mounted").symlink_to(spoil().path)
    Bundle.open(tmp_path / "mounted").verify_files()


def test_a_required_file_must_be_listed(spoil):
    copy = spoil()
    files = json.loads((copy.path / "manifest.json").read_bytes())["files"]
    del files["golden.npz"]
    copy.manifest(files=files)
    with pytest.raises(BundleError, match=r"files lacks golden\.npz"):
        copy.open().verify_files()


def test_without_a_manifest_it_is_no_bundle(tmp_path):
    with pytest.raises(BundleError, match=r"manifest\.json: No such file.*needs a manifest"):
        Bundle.open(tmp_path)


def test_another_models_golden_images_do_not_reproduce(make_bundle, spoil):
    copy = spoil()
    other = make_bundle(weights_seed=99)
    copy.write("golden.npz", other.golden.to_bytes())
    bundle = copy.open()
    bundle.verify_files()
    with pytest.raises(BundleError, match=r"differ by up to \d+/255, .* allowed are 2/255 and 2"):
        bundle.verify_golden(CpuGenerator(bundle.model_path))


@pytest.mark.parametrize(("step", "fits"), [(0, True), (2, True), (3, False)])
def test_the_tolerance_is_two_steps(grey, step, fits):
    golden = grey.golden.images.copy()
    assert golden.flat[0] + step <= 255

    def generate(z, label=None, psi=None):
        images = golden.copy()
        images.flat[0] += step
        return images

    if fits:
        assert grey.verify_golden(generate) == step
    else:
        with pytest.raises(BundleError, match=r"differ by up to 3/255, .*does not run here"):
            grey.verify_golden(generate)


def test_differences_do_not_wrap_around(grey):
    """0 and 255 differ by 255, not by 1."""
    black = np.zeros_like(grey.golden.images)
    inverted = np.where(grey.golden.images < 128, 255, black).astype(np.uint8)
    with pytest.raises(BundleError, match=r"differ by up to 2\d\d/255"):
        grey.verify_golden(lambda z, label=None, psi=None: inverted)


@pytest.mark.parametrize("shape", [(8, 8, 8, 3), (7, 8, 8, 1), (8, 1, 8, 8)])
def test_images_of_another_shape(grey, shape):
    with pytest.raises(BundleError, match=r"gave uint8 images \["):
        grey.verify_golden(lambda z, label=None, psi=None: np.zeros(shape, np.uint8))


def test_images_of_another_type(grey):
    images = grey.golden.images.astype(np.float32)
    with pytest.raises(BundleError, match="gave float32 images"):
        grey.verify_golden(lambda z, label=None, psi=None: images)


def test_a_model_that_fails_is_a_refused_bundle(make_bundle, spoil):
    copy = spoil()
    copy.write("model.onnx", make_bundle(z_dim=9).model_path.read_bytes())
    bundle = copy.open()
    bundle.verify_files()
    with pytest.raises(BundleError, match=r"model\.onnx: can't make the golden images: .*z"):
        bundle.verify_golden(CpuGenerator(bundle.model_path))


SPOILED_ARRAYS = {
    "no rows": lambda a: {key: value[:0] for key, value in a.items()},
    "no images": lambda a: {key: value for key, value in a.items() if key != "images"},
    "no seeds": lambda a: {key: value for key, value in a.items() if key != "seeds"},
    "no labels": lambda a: {key: value for key, value in a.items() if key != "labels"},
    "signed seeds": lambda a: a | {"seeds": a["seeds"].astype(np.int64)},
    "seeds in two dimensions": lambda a: a | {"seeds": a["seeds"][:, None]},
    "one seed too few": lambda a: a | {"seeds": a["seeds"][1:]},
    "a seed without dimension": lambda a: a | {"seeds": np.uint64(3)},
    "float images": lambda a: a | {"images": a["images"].astype(np.float32)},
    "small images": lambda a: a | {"images": a["images"][:, 1:]},
    "float labels": lambda a: a | {"labels": a["labels"].astype(np.float32)},
    "labels out of range": lambda a: a | {"labels": a["labels"] + 1},
    "negative labels": lambda a: a | {"labels": a["labels"] - 1},
    "one label too many": lambda a: a | {"labels": np.append(a["labels"], 0)},
}


@pytest.mark.parametrize("change", SPOILED_ARRAYS)
def test_golden_arrays_must_fit_the_manifest(spoil, classes, change):
    copy = spoil(conditional=True)
    copy.write("golden.npz", npz(**SPOILED_ARRAYS[change](golden_arrays(classes))))
    bundle = copy.open()
    bundle.verify_files()
    with pytest.raises(BundleError, match=r"golden\.npz: .*export the model again"):
        bundle.verify_golden(CpuGenerator(bundle.model_path))


def test_labels_that_no_input_takes(spoil, grey):
    copy = spoil()
    copy.write("golden.npz", npz(**golden_arrays(grey), labels=np.zeros(8, np.int64)))
    with pytest.raises(BundleError, match="don't fit the manifest"):
        _ = copy.open().golden


class Evil:
    """Unpickled, it would leave a mark."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


def test_pickles_are_not_opened(spoil, grey):
    copy = spoil()
    evil = np.array([Evil()] * 8, dtype=object)
    copy.write("golden.npz", npz(**(golden_arrays(grey) | {"seeds": evil})))
    with pytest.raises(
        BundleError, match=r"seeds\.npy holds objects, which only pickle could read"
    ):
        _ = copy.open().golden


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04",
        b"\x93NUMPY",
        b"no archive",
        pickle.dumps([1, 2]),
        pickle.dumps(Evil()),
    ],
)
def test_bytes_that_are_no_archive(spoil, data):
    copy = spoil()
    copy.write("golden.npz", data)
    with pytest.raises(BundleError, match=r"golden\.npz: .+; export the model again"):
        _ = copy.open().golden


def test_a_lone_array_is_no_archive(spoil, grey):
    buffer = io.BytesIO()
    np.save(buffer, grey.golden.images)
    copy = spoil()
    copy.write("golden.npz", buffer.getvalue())
    with pytest.raises(BundleError, match="export the model again"):
        _ = copy.open().golden


def test_every_truncation_is_refused_with_words(spoil):
    copy = spoil()
    whole = (copy.path / "golden.npz").read_bytes()
    for keep in range(0, len(whole), 7):
        copy.write("golden.npz", whole[:keep])
        with pytest.raises(BundleError, match="export the model again"):
            _ = copy.open().golden


def test_flipped_bits_in_the_archive_are_refused_or_harmless(spoil, grey):
    copy = spoil()
    whole = (copy.path / "golden.npz").read_bytes()
    refused = 0
    for position in range(0, len(whole), 11):
        data = bytearray(whole)
        data[position] ^= 0xFF
        copy.write("golden.npz", bytes(data))
        try:
            golden = copy.open().golden
        except BundleError:
            refused += 1
        else:
            assert np.array_equal(golden.images, grey.golden.images)
    assert refused > 10


FILES = dict.fromkeys(REQUIRED_FILES, b"content")


def test_write_fills_in_size_and_digest(grey, tmp_path):
    bundle = write_bundle(tmp_path / "new", grey.manifest, FILES | {"extra.txt": b"more"})
    bundle.verify_files()
    entry = bundle.manifest.files["extra.txt"]
    assert (entry.size_bytes, entry.sha256) == (4, hashlib.sha256(b"more").hexdigest())


def test_write_refuses_what_it_could_not_read_again(grey, tmp_path):
    manifest = msgspec.structs.replace(grey.manifest, z_dim=0)
    with pytest.raises(BundleError, match="z_dim is 0"):
        write_bundle(tmp_path / "new", manifest, FILES)
    for name in ("../escape", "/tmp/escape", ".hidden", "a/b"):
        with pytest.raises(BundleError, match="only plain file names"):
            write_bundle(tmp_path / "new", grey.manifest, FILES | {name: b""})
    assert list(tmp_path.iterdir()) == []


def test_write_wants_every_required_file(grey, tmp_path):
    with pytest.raises(BundleError, match=r"a bundle needs card\.md"):
        write_bundle(tmp_path / "new", grey.manifest, _without_card())


def _without_card() -> dict[str, bytes]:
    return {name: data for name, data in FILES.items() if name != "card.md"}


def test_write_does_not_overwrite(grey, tmp_path):
    with pytest.raises(FileExistsError):
        write_bundle(tmp_path, grey.manifest, FILES)


def test_golden_without_labels():
    golden = Golden(
        seeds=np.arange(2, dtype=np.uint64), labels=None, images=np.zeros((2, 1, 1, 1), np.uint8)
    )
    with np.load(io.BytesIO(golden.to_bytes())) as archive:
        assert sorted(archive) == ["images", "seeds"]
