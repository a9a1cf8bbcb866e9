"""Any folder of images, whatever lies in it."""

import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from tests.support import as_nobody
from training.data import DataConfig, load
from training.data.decoding import memory, progress
from training.errors import DataError


def config(path, **options):
    defaults = {"resolution": 16, "channels": 3, "conditional": False}
    return DataConfig(dataset="folder", path=path, **(defaults | options))


def picture(path, colour="red", size=(20, 30), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)
    return path


def test_found_at_every_depth_in_a_stable_order(tmp_path):
    picture(tmp_path / "b.png", "blue")
    picture(tmp_path / "a" / "deep" / "er" / "x.jpg", "red")
    picture(tmp_path / "c.webp", "lime", lossless=True)
    image_set = load(config(tmp_path))
    assert image_set.images.shape == (3, 3, 16, 16)
    assert image_set.images.float().mean((2, 3)).argmax(1).tolist() == [0, 2, 1]
    assert image_set.skipped == ()
    assert load(config(tmp_path)).fingerprint == image_set.fingerprint


def test_shorter_side_is_resized_and_the_centre_kept(tmp_path):
    pixels = np.zeros((60, 20, 3), np.uint8)
    pixels[20:40] = (10, 200, 30)
    Image.fromarray(pixels).save(tmp_path / "tall.png")
    Image.fromarray(pixels.transpose(1, 0, 2)).save(tmp_path / "wide.png")
    images = load(config(tmp_path, resolution=10)).images
    for image in images:
        inner = image[:, 2:8, 2:8]
        assert (inner == inner.new_tensor([10, 200, 30])[:, None, None]).all()


def test_reduction_is_antialiased(tmp_path):
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    image = load(config(tmp_path, resolution=8, channels=1)).images[0, 0]
    assert ((image > 110) & (image < 145)).all()  # grey, not black or white


def test_exif_orientation_is_applied(tmp_path):
    pixels = np.zeros((16, 16), np.uint8)
    pixels[:4] = 255
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    loaded = load(config(tmp_path, channels=1)).images[0, 0]
    assert (loaded[:, 12:] == 255).all()
    assert (loaded[:, :12] == 0).all()


def test_modes_become_rgb(tmp_path):
    picture(tmp_path / "1-alpha.png", (0, 0, 0, 0), mode="RGBA")
    Image.fromarray(np.full((20, 20), 0x8000, np.uint16)).save(tmp_path / "2-sixteen.png")
    picture(tmp_path / "3-palette.gif", 0, mode="P")
    palette = Image.new("P", (20, 20), 0)
    palette.save(tmp_path / "4-transparent.png", transparency=b"\x00\x01\x02")
    picture(tmp_path / "5-cmyk.jpg", (0, 0, 0, 0), mode="CMYK")
    image_set = load(config(tmp_path))
    assert image_set.skipped == ()
    means = image_set.images.float().mean((1, 2, 3)).round().tolist()
    assert means[0] == 128  # put on grey
    assert means[1] == 128
    assert means[3] == 128
    assert means[4] == 255


def test_what_can_not_be_read_is_named(tmp_path):
    picture(tmp_path / "good.png")
    whole = picture(tmp_path / "truncated.jpg", size=(300, 300)).read_bytes()
    (tmp_path / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").touch()
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "fake.png").write_bytes(os.urandom(500))
    (tmp_path / "dangling.png").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / ".hidden").write_text("not looked at")
    image_set = load(config(tmp_path))
    assert len(image_set) == 1
    reasons = {skipped.name: skipped.reason for skipped in image_set.skipped}
    assert "truncated" in reasons.pop("truncated.jpg")
    assert reasons == {
        "empty.png": "an empty file",
        "notes.txt": "not an image that Pillow can read",
        "fake.png": "not an image that Pillow can read",
        "dangling.png": "No such file or directory",
        "pipe.png": "not a regular file",
    }


def test_every_truncation_of_a_file_is_survived(tmp_path):
    picture(tmp_path / "good.png")
    for suffix in ("png", "jpg", "gif", "webp", "bmp", "tiff"):
        whole = picture(tmp_path / f"x.{suffix}", size=(17, 13)).read_bytes()
        for keep in range(0, len(whole), max(1, len(whole) // 25)):
            (tmp_path / f"{suffix}-{keep}").write_bytes(whole[:keep])
    image_set = load(config(tmp_path))
    assert len(image_set) >= 7
    assert len(image_set) + len(image_set.skipped) == len(list(tmp_path.iterdir()))


@pytest.mark.parametrize("factor", [1.5, 3])  # Pillow warns above its limit, and refuses at twice
def test_decompression_bombs(tmp_path, factor):
    picture(tmp_path / "good.png")
    picture(tmp_path / "bomb.png", size=(100, 100))
    image_set = load(config(tmp_path, max_pixels=int(100 * 100 / factor)))
    assert len(image_set) == 1
    assert tuple(map(str, image_set.skipped)) == (
        f"bomb.png: 10,000 pixels, where --data.max-pixels is {int(10_000 / factor):,}: too many "
        "pixels (a decompression bomb?)",
    )


def test_a_bomb_of_text_is_not_unpacked(tmp_path):
    picture(tmp_path / "good.png")
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "a" * 200_000_000, zip=True)
    picture(tmp_path / "text.png", pnginfo=info)
    image_set = load(config(tmp_path))
    assert [skipped.name for skipped in image_set.skipped] == ["text.png"]


def test_warnings_are_as_before_afterwards(tmp_path):
    picture(tmp_path / "good.png")
    before = warnings.filters[:]
    load(config(tmp_path))
    assert warnings.filters == before


def test_no_permission():
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        picture(root / "good.png")
        picture(root / "secret.png").chmod(0)
        picture(root / "closed" / "x.png")
        (root / "closed").chmod(0)
        load(config(root))  # imports what it needs
        with as_nobody():
            image_set = load(config(root))
        (root / "closed").chmod(0o755)
    assert len(image_set) == 1
    assert sorted(map(str, image_set.skipped)) == [
        "closed: Permission denied",
        "secret.png: Permission denied",
    ]


def test_classes_are_the_first_level_of_subfolders(tmp_path):
    picture(tmp_path / "dog" / "a.png", "red")
    picture(tmp_path / "cat" / "young" / "b.png", "blue")
    picture(tmp_path / "cat" / "c.png", "blue")
    picture(tmp_path / "loose.png")
    (tmp_path / "bird").mkdir()
    (tmp_path / "bird" / "broken.png").write_bytes(b"")
    image_set = load(config(tmp_path, conditional=True))
    assert image_set.label_names == ("cat", "dog")
    blue = image_set.images[:, 2].float().mean((1, 2)) > 100
    assert image_set.labels.tolist() == [0, 0, 1]
    assert blue.tolist() == [True, True, False]
    assert sorted(map(str, image_set.skipped)) == [
        "bird/broken.png: an empty file",
        "bird: no image of this class",
        "loose.png: in no class: classes are the first level of subfolders",
    ]


def test_links_to_folders_are_followed_once(tmp_path):
    (tmp_path / "set").mkdir()
    picture(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "set" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "set")
    assert len(load(config(tmp_path / "set"))) == 1


@pytest.mark.parametrize("conditional", [False, True])
def test_an_empty_folder_is_refused(tmp_path, conditional):
    with pytest.raises(DataError, match=r"no image could be read in it \(it holds no files\)"):
        load(config(tmp_path, conditional=conditional))


def test_a_folder_without_images_is_refused_with_what_was_seen(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"\(notes\.txt: not an image that Pillow can read\)"):
        load(config(tmp_path))


def test_loose_images_make_no_classes(tmp_path):
    picture(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: in no class.*one subfolder a class"):
        load(config(tmp_path, conditional=True))


def test_not_a_folder(tmp_path):
    with pytest.raises(DataError, match=r"data\.path is .*nowhere: not a folder"):
        load(config(tmp_path / "nowhere"))


def test_more_than_memory_holds(tmp_path, monkeypatch):
    picture(tmp_path / "a.png")
    monkeypatch.setattr(memory, "available_bytes", lambda: 3 * 16 * 16 - 1)
    with pytest.raises(DataError, match=r"1 images of 3x16x16 bytes need 0\.0 GiB of memory"):
        load(config(tmp_path))


def test_available_memory_is_plausible():
    assert 2**20 < memory.available_bytes() < 2**50


def test_progress_is_shown_on_a_terminal_only(tmp_path, monkeypatch, capsys):
    picture(tmp_path / "a.png")
    monkeypatch.setattr(progress, "_AFTER_S", 0)
    load(config(tmp_path))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    load(config(tmp_path))
    assert capsys.readouterr().err == "\rdecoding images: 1 of 1\n"
