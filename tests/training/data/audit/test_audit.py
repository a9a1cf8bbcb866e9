"""The audit: every fault planted is found and named, and nothing is found where there is none."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tests.support import as_nobody
from training.data import DataConfig, load
from training.data.__main__ import main
from training.data.audit import audit, duplicates, record, sheet
from training.data.audit.report import KINDS, Finding, Report
from training.errors import CheckpointError
from training.run import main as train

SIZE = (80, 60)


def scene(seed, size=SIZE, mode="RGB"):
    """A picture unlike those of other seeds: soft blobs of colour."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert(mode)


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def clean(root, num=12, classes=("cat", "dog")):
    for name in classes:
        for i in range(num):
            save(scene(f"{name}{i}".encode()[0] * 1000 + i), root / name / f"{i:02}.png")
    return root


def plant(root):
    """One fault of each kind, and what the audit must say of it: {(kind, name): detail}."""
    clean(root)
    for name in ("01.txt", "notes.TXT"):
        (root / "cat" / name).write_text("hello")
    (root / "cat" / "camera.NEF").write_bytes(b"II*\0" + bytes(60))
    (root / "cat" / "rubbish.png").write_text("hello")
    whole = save(scene(1), root / "cat" / "whole.jpg").read_bytes()
    (root / "cat" / "whole.jpg").write_bytes(whole[: len(whole) // 2])
    whole = save(scene(2), root / "cat" / "half.png").read_bytes()
    (root / "cat" / "half.png").write_bytes(whole[: len(whole) // 2])
    save(Image.new("RGB", SIZE, "red"), root / "cat" / "flat.png")
    save(scene(3, (800, 600)), root / "cat" / "huge.png")
    save(scene(4, (40, 30)), root / "cat" / "small.png")
    save(scene(5, (300, 60)), root / "cat" / "long.png")
    save(scene(6, mode="L"), root / "cat" / "grey.png")
    save(scene(7, mode="CMYK"), root / "cat" / "print.jpg")
    save(Image.fromarray((np.asarray(scene(8)) // 10).astype(np.uint8)), root / "cat" / "dim.png")
    save(ImageOps.mirror(Image.open(root / "dog" / "05.png")), root / "dog" / "mirror.jpg")
    original = root / "dog" / "03.png"
    (root / "dog" / "copy.png").write_bytes(original.read_bytes())
    with Image.open(original) as opened:
        picture = opened.copy()
    save(picture, root / "dog" / "again.bmp")  # another file, the same pixels
    save(picture, root / "dog" / "jpeg.jpg", quality=60)
    brighter = Image.fromarray((np.asarray(picture) * 0.9 + 20).astype(np.uint8))
    save(brighter.resize((96, 72)), root / "dog" / "scaled.png")
    for i in range(3):
        save(scene(50_000 + i), root / "newt" / f"{i}.png")
    return {
        ("other-file", "2 files"): "2 .txt; the first is cat/01.txt",
        ("unreadable", "cat/rubbish.png"): "not an image that Pillow can read",
        ("unsupported", "cat/camera.NEF"): "a camera's raw file can't be read here",
        ("truncated", "cat/whole.jpg"): "truncated",
        ("truncated", "cat/half.png"): "truncated",
        ("constant", "cat/flat.png"): "all of it is (255, 0, 0)",
        ("size", "cat/huge.png"): "800x600, where the median is 80x60",
        ("size", "cat/long.png"): "300x60, where the median is 80x60",
        ("upscaled", "cat/small.png"): "40x30, enlarged to 48x48",
        ("mode", "cat/grey.png"): "L, where 37 of 39 are RGB",
        ("mode", "cat/print.jpg"): "CMYK, where 37 of 39 are RGB: its inks become RGB without",
        ("faint", "cat/dim.png"): "of 0 to 255",
        ("mirrored", "dog/mirror.jpg"): "as dog/05.png",
        ("duplicate", "dog/again.bmp"): "as dog/03.png",
        ("duplicate", "dog/copy.png"): "as dog/03.png",
        ("near-duplicate", "dog/jpeg.jpg"): "as dog/03.png",
        ("near-duplicate", "dog/scaled.png"): "as dog/03.png",
        ("imbalance", "newt"): "3 images, 6.3 times fewer than cat",
    }


def audited(root, resolution=48):
    image_set = load(
        DataConfig(
            dataset="folder", path=root, resolution=resolution, channels=3, conditional=False
        )
    )
    return image_set, audit(image_set, str(root))


def test_every_fault_is_found_and_nothing_else(tmp_path):
    planted = plant(tmp_path)
    _, report = audited(tmp_path)
    found = {(finding.kind, finding.name): finding.detail for finding in report.findings}
    assert found.keys() == planted.keys()
    for key, detail in planted.items():
        assert detail in found[key]
    assert set(report.counts) == set(KINDS) - {"unplaced"}
    assert report.classes == {"cat": 19, "dog": 17, "newt": 3}
    assert report.num_usable == 39
    assert report.modes == {"RGB": 37, "L": 1, "CMYK": 1}
    assert report.sizes == {(80, 60): 35, (96, 72): 1, (800, 600): 1, (40, 30): 1, (300, 60): 1}


def test_nothing_is_found_where_nothing_is(tmp_path):
    _, report = audited(clean(tmp_path))
    assert report.findings == ()
    assert report.summary().endswith("24 usable images at 48x48, nothing found")
    assert report.classes == {"cat": 12, "dog": 12}


def test_handwriting_is_not_a_copy_of_itself():
    report = audit(load(DataConfig()), "digits")
    assert report.counts.get("duplicate", 0) == 0
    assert len(report.findings) < 0.01 * 1797


def test_what_is_in_no_class_is_said(tmp_path):
    clean(tmp_path)
    save(scene(0), tmp_path / "loose.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "x.png").write_bytes(b"")
    image_set = load(DataConfig(dataset="folder", path=tmp_path, channels=3))
    report = audit(image_set, "here")
    assert [(finding.kind, finding.name) for finding in report.findings] == [
        *[("unreadable", "empty/x.png"), ("unplaced", "loose.png"), ("unplaced", "empty")]
    ]


def tiles_of(canvas, num_lines, columns=6):
    """Pictures and captions of a sheet of 96-pixel tiles, row after row."""
    pitch = 96 + 12 * num_lines + 10
    places = [
        (y, x * 96) for y in range(0, canvas.shape[0], pitch) for x in range(canvas.shape[1] // 96)
    ]
    return [
        (canvas[y : y + 96, x : x + 96], canvas[y + 96 : y + pitch, x : x + 96]) for y, x in places
    ]


def test_the_sheet_shows_findings_first(tmp_path):
    plant(tmp_path)
    image_set, report = audited(tmp_path)
    step = np.asarray(sheet(image_set, report, tiles=30, columns=6))
    tiles = tiles_of(step, num_lines=2)
    assert len(tiles) == 30
    # What has no pixels has no tile: the first is the first that has, the flat one.
    picture, caption = tiles[0]
    assert (picture == (255, 0, 0)).all()
    assert (caption[:24] != 255).any()
    assert (caption[24:] == 255).all()  # so that a name is nearer to its own picture
    # A duplicate follows the image that it repeats.
    pictured = [finding for finding in report.findings if finding.index is not None]
    before = [finding.kind for finding in pictured].index("duplicate")
    assert np.array_equal(tiles[before][0], tiles[before + 1][0])
    assert np.array_equal(tiles[before][0], tiles[before + 2][0])
    # The last are without findings: their name is right under them.
    clean = tiles[-1][1]
    assert (clean[:12] != 255).any()
    assert (clean[12:] == 255).all()


def test_a_picture_with_three_findings_takes_one_tile_and_each_kind_has_its_share(tmp_path):
    clean(tmp_path, num=30, classes=("cat",))
    for i in range(40):
        save(Image.new("RGB", (20 + i, 20), "blue"), tmp_path / "flat" / f"{i:02}.png")
    save(scene(9, (400, 60), "CMYK"), tmp_path / "cat" / "three.jpg")
    (tmp_path / "cat" / "caption.txt").write_text("a cat")
    image_set, report = audited(tmp_path)
    assert report.counts["constant"] == 40
    index = [origin.name for origin in image_set.origins].index("cat/three.jpg")
    assert {f.kind for f in report.findings if f.index == index} == {"size", "mode"}
    step = np.asarray(sheet(image_set, report, tiles=12, columns=6))
    tiles = [tile for tile, _ in tiles_of(step, num_lines=3)]
    assert len(tiles) == 12
    pixels = image_set.images[index].permute(1, 2, 0).numpy().repeat(2, 0).repeat(2, 1)
    assert sum(np.array_equal(tile, pixels) for tile in tiles) == 1
    blue = sum((tile == (0, 0, 255)).all() for tile in tiles)
    assert blue == 9  # of the ten for findings: not all, though there are forty


BLANK = Image.new("RGB", SIZE, "red")


def test_a_name_that_is_no_text_forges_nothing_and_stops_nothing(tmp_path, capsys):
    clean(tmp_path / "set", classes=("cat",))
    for name in (b"lat\xe9in.png", b"a\n\nconstant: 9\x1b[31m\xe2\x80\xae.png"):
        save(BLANK, Path(os.fsdecode(os.fsencode(tmp_path / "set" / "cat") + b"/" + name)))
    (tmp_path / "set" / "x: truncated thing.png").write_text("no")
    places = ["--json", str(tmp_path / "a.json"), "--sheet", str(tmp_path / "a.png")]
    assert main(["audit", str(tmp_path / "set"), "--resolution", "48", *places]) == 1
    out = capsys.readouterr().out
    assert "  cat/lat\\xe9in.png: all of it" in out
    assert "  cat/a\\n\\nconstant: 9\\x1b[31m\\u202e.png: all of it" in out
    assert [line for line in out.splitlines() if line.startswith("constant")] == [
        "constant: 2 (one flat colour)"
    ]
    assert "unreadable: 1 (" in out
    assert "  x: truncated thing.png: not an image" in out
    assert "truncated: 1" not in out
    names = {
        finding["name"] for finding in json.loads((tmp_path / "a.json").read_text())["findings"]
    }
    assert {"cat/lat\\xe9in.png", "x: truncated thing.png"} <= names
    image_set, _ = audited(tmp_path / "set")
    (tmp_path / "run").mkdir()
    assert "see " in record(image_set, "here\n", tmp_path / "run")[0]
    assert "lat\\xe9in" in (tmp_path / "run" / "audit.txt").read_text()


def test_a_class_folder_that_is_no_text_is_a_class_all_the_same(tmp_path):
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    for i in range(2):
        save(scene(i), odd / f"{i}.png")
        save(scene(9 + i), tmp_path / "bar" / f"{i}.png")
    words = {"dataset": "folder", "path": tmp_path, "resolution": 8, "channels": 3}
    image_set = load(DataConfig(**words, weights=("caf\udce9=3",)))
    assert image_set.label_names == ("bar", "caf\\xe9")
    assert image_set.weights.tolist() == [1, 1, 3, 3]
    assert load(DataConfig(**words, weights=("caf\\xe9=3",))).weights.tolist() == [1, 1, 3, 3]


def wrong_as_a_whole(root, convert):
    for i in range(8):
        image, suffix, options = convert(scene(i), i)
        save(image, root / f"{i}.{suffix}", **options)


@pytest.mark.parametrize(
    ("convert", "mode", "says"),
    [
        (lambda image, i: (image.convert("CMYK"), "jpg", {}), "CMYK", "colours shift"),
        (lambda image, i: (image.convert("P"), "png", {}), "P", "a palette of 256 colours"),
        (
            lambda image, i: (
                Image.fromarray(np.asarray(image)[..., 0] * np.uint16(257)),
                "png",
                {},
            ),
            *("I;16", "of whose 16 bits the upper 8 are kept"),
        ),
        (
            lambda image, i: (
                Image.fromarray((np.asarray(image)[..., 0] * 1.5).astype(np.float32)),
                *("tiff", {}),
            ),
            *("F", "taken as 0 to 255"),
        ),
    ],
)
def test_what_is_wrong_with_every_file_is_found(tmp_path, convert, mode, says):
    wrong_as_a_whole(tmp_path, convert)
    _, report = audited(tmp_path)
    assert report.counts == {"mode": 8}
    assert all(says in finding.detail for finding in report.findings)
    assert f"modes: 8 {mode}\nsizes: 8 of 80x60\n" in report.text()


def test_an_alpha_channel_that_hides_nothing_is_no_fault(tmp_path):
    wrong_as_a_whole(tmp_path, lambda image, i: (image.convert("RGBA"), "png", {}))
    assert audited(tmp_path)[1].counts == {}


@pytest.mark.parametrize(("bits", "num_faint"), [(12, 9), (14, 1)])
def test_a_set_that_uses_a_part_of_its_range_is_found(tmp_path, bits, num_faint):
    """12 or 14 bits of a camera in 16 of a file: nearly black once the lower 8 are gone."""
    scale = np.uint16(2 ** (bits - 8))
    wrong_as_a_whole(
        tmp_path,
        lambda image, i: (Image.fromarray(np.asarray(image)[..., 0] * scale), "png", {}),
    )
    faint = [finding for finding in audited(tmp_path)[1].findings if finding.kind == "faint"]
    assert faint[0].name == "the whole set"
    assert len(faint) == num_faint


def test_a_webp_that_was_cut_off_is_truncated(tmp_path):
    clean(tmp_path, classes=("cat",))
    for i in range(2):
        path = save(scene(i, (300, 200)), tmp_path / f"{i}.webp", quality=90)
        path.write_bytes(path.read_bytes()[: (500, -40)[i]])
    _, report = audited(tmp_path)
    assert [(f.kind, f.name) for f in report.findings] == [
        *[("truncated", "0.webp"), ("truncated", "1.webp")]
    ]


def test_what_is_in_no_class_is_said_by_the_command(tmp_path, capsys):
    save(scene(0), clean(tmp_path) / "loose.png")
    assert main(["audit", str(tmp_path), "--resolution", "48", "--conditional"]) == 1
    assert "  loose.png: in no class" in capsys.readouterr().out


def test_mirror_images_are_found_and_symmetric_ones_are_not(tmp_path):
    pictures = [np.asarray(scene(i).resize((48, 48))).transpose(2, 0, 1) for i in range(30)]
    symmetric = [np.concatenate([p[:, :, :24], p[:, :, :24][:, :, ::-1]], 2) for p in pictures[:5]]
    turned = [pictures[i][:, :, ::-1].clip(4, 250) for i in (3, 7, 7)]
    images = torch.from_numpy(np.stack([*pictures, *symmetric, *turned]))
    groups = duplicates.mirrored(images, max_bits=5, min_correlation=0.99)
    assert [group.tolist() for group in groups] == [[3, 35], [7, 36, 37]]
    assert duplicates.mirrored(images[:1], max_bits=5, min_correlation=0.99) == []


def command(*words):
    return subprocess.run(
        [sys.executable, "-m", "training.data", "audit", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_as_a_command(tmp_path):
    planted = plant(tmp_path / "set")
    before = {path: path.stat() for path in (tmp_path / "set").rglob("*")}
    places = ["--json", tmp_path / "a.json", "--sheet", tmp_path / "a.png"]
    done = command(tmp_path / "set", "--resolution", "48", *places)
    assert (done.returncode, done.stderr) == (1, "")
    for kind, name in planted:
        assert f"{kind}: " in done.stdout
        assert f"  {name}: " in done.stdout
    assert "--data.weights cat=1 dog=1.118 newt=6.333" in done.stdout
    report = json.loads((tmp_path / "a.json").read_text())
    assert {(f["kind"], f["name"]) for f in report["findings"]} == set(planted)
    assert report["counts"]["duplicate"] == 2
    groups = {f["group"] for f in report["findings"] if "duplicate" in f["kind"]}
    assert None not in groups
    with Image.open(tmp_path / "a.png") as step:
        assert step.size[0] == 960
    after = {path: path.stat() for path in (tmp_path / "set").rglob("*")}
    assert {p: (s.st_size, s.st_mtime_ns) for p, s in before.items()} == {
        p: (s.st_size, s.st_mtime_ns) for p, s in after.items()
    }


def test_a_clean_folder_ends_with_0(tmp_path, capsys):
    assert main(["audit", str(clean(tmp_path)), "--resolution", "48"]) == 0
    assert "nothing found" in capsys.readouterr().out


def test_before_a_training_on_a_folder(tmp_path, capsys):
    plant(tmp_path / "set")
    network = "--network.ngf 4 --network.ndf 4 --network.z-dim 8 --batch-size 8"
    length = "--data.resolution 16 --data.channels 1 --total-kimg 0.016 --tick-kimg 0.016"
    places = ["--runs", str(tmp_path / "runs"), "--repository", str(tmp_path / "models")]
    words = [*f"{network} {length}".split(), *places, "--data.weights", "newt=6"]
    words += ["--evaluation", "none"]
    assert train(["folder", "--data.path", str(tmp_path / "set"), *words]) == 0
    run = tmp_path / "runs" / "00000-folder"
    said = capsys.readouterr().out
    assert "39 usable images at 16x16, 1 unreadable, 1 unsupported, 2 truncated" in said
    assert "newt 7.7% of the images, 33.3% of the draws" in said
    assert "39 usable images" in (run / "log.txt").read_text()
    assert "cat/01.txt" in (run / "audit.txt").read_text()
    assert json.loads((run / "audit.json").read_text())["counts"]["truncated"] == 2
    with Image.open(run / "audit.png") as step:
        assert step.mode == "RGB"
    assert train(["--resume", str(run), "--total-kimg", "0.024"]) == 0
    assert "audit of" not in capsys.readouterr().out  # it was looked at already
    assert train(["--resume", str(run), "--data.weights", "newt=5"]) == CheckpointError.exit_code
    assert "restore the data and --data.weights" in capsys.readouterr().err


def test_a_report_that_can_not_be_written_stops_nothing(tmp_path):
    clean(tmp_path / "set")
    (tmp_path / "audit.txt").mkdir()
    image_set, _ = audited(tmp_path / "set")
    [line] = record(image_set, "here", tmp_path)
    assert "nothing found; warning: the report was not written: " in line


@pytest.mark.parametrize(
    ("make", "words", "code", "says"),
    [
        (lambda path: None, [], 3, r"not a folder; give one that holds images"),
        (lambda path: path.write_text("x"), [], 3, r"not a folder"),
        (lambda path: path.mkdir(), [], 3, r"no image could be read in it (it holds no files)"),
        (lambda path: save(scene(0), path / "a.png"), ["--resolution", "0"], 2, "resolution is 0"),
        (lambda path: save(scene(0), path / "a.png"), ["--channels", "2"], 2, "channels is 2"),
        (
            lambda path: save(scene(0), path / "a.png"),
            ["--bits", "17"],
            2,
            "bits is 17, allowed: 0",
        ),
        (lambda path: save(scene(0), path / "a.png"), ["--tiles", "0"], 2, "tiles is 0"),
        (
            lambda path: save(scene(0), path / "a.png"),
            ["--json", "/nowhere/a.json"],
            3,
            "/nowhere/a.json can't be written",
        ),
    ],
)
def test_bad_input_is_named(tmp_path, capsys, make, words, code, says):
    make(tmp_path / "set")
    assert main(["audit", str(tmp_path / "set"), *words]) == code
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert says in error


def test_a_folder_that_may_not_be_read():
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        save(scene(0), root / "closed" / "a.png")
        (root / "closed").chmod(0)
        load(DataConfig(resolution=8))  # imports what it needs
        with as_nobody():
            code = main(["audit", str(root / "closed")])
        (root / "closed").chmod(0o755)
    assert code == 3


def test_one_image_is_compared_with_none(tmp_path):
    save(scene(0), tmp_path / "a.png")
    assert audited(tmp_path)[1].findings == ()


def test_difference_hash_golden():
    """Brighter to the right sets a bit; the first place is the highest bit."""
    ramp = torch.arange(9.0).expand(8, 9)
    hashes = duplicates.difference_hash(torch.stack([ramp, -ramp, 0 * ramp])[:, None])
    assert hashes.tolist() == [2**64 - 1, 0, 0]
    step = torch.zeros(1, 1, 8, 9)
    step[0, 0, 0, 1:] = 1
    assert duplicates.difference_hash(step).tolist() == [2**63]


@given(
    seed=st.integers(0, 2**32),
    num=st.integers(2, 120),
    flips=st.integers(0, 8),
    max_bits=st.integers(0, 16),
)
@settings(max_examples=60)
def test_near_hashes_are_joined_as_comparing_all_pairs_does(seed, num, flips, max_bits):
    rng = np.random.default_rng(seed)
    bases = rng.integers(0, 2**63, max(1, num // 4), dtype=np.uint64)
    hashes = bases[rng.integers(0, len(bases), num)]
    for _ in range(flips):
        hashes ^= np.uint64(1) << rng.integers(0, 64, num).astype(np.uint64)
    hashes = np.unique(hashes)
    near = np.bitwise_count(hashes[:, None] ^ hashes) <= max_bits
    reach = near.copy()
    for _ in range(8):
        reach = (reach.astype(np.int32) @ reach.astype(np.int32)) > 0
    root = duplicates._components(hashes, max_bits)
    assert np.array_equal(root[:, None] == root, reach)


def test_flat_pictures_with_equal_hashes_are_not_taken_for_copies():
    """Two dots in different corners: hardly a bit is set, but they are not alike."""
    images = torch.zeros(2, 1, 64, 64, dtype=torch.uint8)
    images[0, 0, 8:12, 8:12] = 200
    images[1, 0, 40:44, 50:54] = 200
    assert duplicates.alike(images, max_bits=16, min_correlation=0.99) == []
    twice = torch.cat([images, images // 2])
    groups = duplicates.alike(twice, max_bits=5, min_correlation=0.99)
    assert [group.tolist() for group in groups] == [[0, 2], [1, 3]]


def test_weights_to_copy_are_quoted():
    report = Report(
        where="x",
        width=8,
        height=8,
        num_usable=5,
        classes={"a b": 4, "c": 1},
        findings=(Finding(kind="imbalance", name="c", detail=""),),
    )
    assert "--data.weights 'a b=1' c=4\n" in report.text()


def test_bits_out_of_range():
    with pytest.raises(ValueError, match=r"max_bits is 17"):
        duplicates.alike(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), max_bits=17, min_correlation=1)


def test_transparency_and_frames_are_said_of_the_whole_set(tmp_path):
    wrong_as_a_whole(tmp_path, lambda image, i: (image.convert("RGBA").rotate(3), "png", {}))
    frames = {"save_all": True, "append_images": [scene(1), scene(2)], "lossless": True}
    save(scene(0), tmp_path / "9.webp", **frames)
    options = {"path": tmp_path, "resolution": 48, "channels": 3, "conditional": False}
    several = (
        "1 with several frames or pages, of which the middle frame or the largest page is used"
    )
    first = "the first is 9.webp (frame 2 of 3, the middle one); --data.frames all uses all"
    kept = load(DataConfig(dataset="folder", **options))
    report = audit(kept, "here", background="rgb(1, 2, 3)")
    assert report.notes == (
        "8 of 9 images are transparent in places, which lie on rgb(1, 2, 3); --data.background "
        "COLOUR sets another colour, --data.channels 4 keeps transparency",
        f"{several}: {first}",
    )
    assert report.counts == {"mode": 1}
    everything = load(DataConfig(dataset="folder", **options | {"channels": 4, "frames": "all"}))
    assert len(everything) == 11
    assert audit(everything, "here").notes == (
        "8 of 11 images are transparent in places, which is kept as a fourth channel",
        "3 images are frames or pages of files, such as 9.webp#0 (frame 1 of 3)",
    )
    (tmp_path / "run").mkdir()
    lines = record(everything, "here", tmp_path / "run")
    assert lines[1:] == [f"note: {note}" for note in audit(everything, "here").notes]
