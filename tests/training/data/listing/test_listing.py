"""Which files of a folder or an archive are images, in which split, and of which class."""

import io
import json
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from training.data import DataConfig, load
from training.data.listing.order import naturally
from training.errors import ConfigError, DataError

COLOURS = ("red", "lime", "blue", "white", "black")


def png(colour: str, size: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(buffer, "PNG")
    return buffer.getvalue()


def tree(*names: str, **texts: str) -> dict[str, bytes]:
    """Files by name: images of various colours, and texts."""
    files = {name: png(COLOURS[i % len(COLOURS)]) for i, name in enumerate(names)}
    return files | {name: text.encode() for name, text in texts.items()}


def as_folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def as_zip(root: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(root / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return root / "data.zip"


def as_tar(root: Path, files: dict[str, bytes], name: str = "data.tar") -> Path:
    with tarfile.open(root / name, "w") as archive:
        for path, content in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return root / name


FORMS = [as_folder, as_zip, as_tar]


def read(path: Path, **options: object):
    defaults = {"resolution": 8, "channels": 3, "conditional": True}
    return load(DataConfig(dataset="folder", path=path, **(defaults | options)))


def classes(image_set) -> dict[str, str]:
    return dict(zip([o.name for o in image_set.origins], image_set.classes, strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_folders_are_classes_in_natural_order(tmp_path, form):
    path = form(tmp_path, tree("10/a.png", "2/b.png", "1/c.png", "1/deep/d.png"))
    image_set = read(path)
    assert image_set.label_names == ("1", "2", "10")
    assert classes(image_set) == {
        "1/c.png": "1",
        "1/deep/d.png": "1",
        "10/a.png": "10",
        "2/b.png": "2",
    }
    assert image_set.labels.tolist() == [0, 0, 2, 1]
    assert image_set.images.float().mean((2, 3)).argmax(1).tolist()[2] == 0  # red, as written
    assert read(path, class_order="text").label_names == ("1", "10", "2")


def test_every_form_gives_the_same_data(tmp_path):
    files = tree("b/1.png", "a/2.png", "a/1.png", "c/x.png")
    for i in range(len(FORMS)):
        (tmp_path / str(i)).mkdir()
    paths = [form(tmp_path / str(i), files) for i, form in enumerate(FORMS)]
    assert len({read(path).fingerprint for path in paths}) == 1
    assert len({read(path, conditional=False).fingerprint for path in paths}) == 1
    assert read(paths[1], conditional=False).classes == ("a", "a", "b", "c")


def test_natural_order():
    names = ["img12", "img2", "1e", "b", "a", "img02", "B", "7" * 5000]
    assert sorted(names, key=naturally) == [
        "1e",
        "7" * 5000,
        "B",
        "a",
        "b",
        "img02",
        "img2",
        "img12",
    ]


@pytest.mark.parametrize("form", [as_folder, as_zip])
def test_what_a_training_wrote_is_left_out_wherever_it_lies(tmp_path, form):
    run = {"config.json": b'{"training": {}}', "log.txt": b"", "samples/000.png": png("red")}
    bundle = {"manifest.json": b'{"z_dim": 4}', "model.onnx": b"", "samples.png": png("red")}
    files = tree("cat/1.png", "dog/2.png")
    files |= {f"out/deep/00003-folder/{name}": content for name, content in run.items()}
    files |= {f"cat/models/digits/7/{name}": content for name, content in bundle.items()}
    files["cat/models/digits/CURRENT"] = b"7"
    image_set = read(form(tmp_path, files))
    assert image_set.label_names == ("cat", "dog")
    assert image_set.skipped == ()
    assert [origin.name for origin in image_set.origins] == ["cat/1.png", "dog/2.png"]
    assert "left out: out/deep/00003-folder, a training run" in image_set.notes
    assert "left out: cat/models/digits/7, an exported model" in image_set.notes


def test_a_folder_that_only_looks_like_a_run_is_data(tmp_path):
    files = tree("cat/1.png", "dog/2.png") | {
        "cat/config.json": b'{"title": "my cats"}',
        "cat/log.txt": b"",
        "dog/manifest.json": b"[" * 100_000,
        "dog/model.onnx": b"",
    }
    assert len(read(as_folder(tmp_path, files))) == 2


def test_hidden_folders_are_left_out_and_said(tmp_path):
    files = tree("a/1.png", ".cache/2.png", "a/.thumbnails/3.png", "b/.4.png", "b/5.png")
    image_set = read(as_folder(tmp_path, files))
    assert len(image_set) == 2
    assert image_set.notes == ("left out: .cache, a/.thumbnails, hidden",)


@pytest.mark.parametrize("form", FORMS)
def test_splits(tmp_path, form):
    path = form(tmp_path, tree("train/a/1.png", "train/b/2.png", "val/a/3.png", "Test/b/4.png"))
    image_set = read(path)
    assert classes(image_set) == {"train/a/1.png": "a", "train/b/2.png": "b"}
    (note,) = image_set.notes
    assert note == (
        "splits: train/ (2 files) taken; left out: Test/ (1), val/ (1), see --data.split"
    )
    assert classes(read(path, split="val")) == {"val/a/3.png": "a"}
    assert len(read(path, split="all")) == 4
    assert read(path, split="all").label_names == ("a", "b")
    assert read(path, split="none").label_names == ("Test", "train", "val")
    assert len(read(path, split="test", conditional=False)) == 1


def test_a_single_training_folder_is_a_split(tmp_path):
    assert read(as_folder(tmp_path, tree("train/a/1.png", "train/b/2.png"))).label_names == (
        "a",
        "b",
    )


def test_classes_that_are_named_like_splits(tmp_path):
    path = as_folder(tmp_path, tree("train/1.png", "bus/2.png", "test/3.png"))
    image_set = read(path)
    assert image_set.label_names == ("bus", "test", "train")
    assert image_set.notes == (
        "test, train beside other folders: taken as classes; see --data.split",
    )
    assert read(path, split="train", conditional=False).classes is None
    with pytest.raises(DataError, match=r"data\.split is 'val'; .* the splits: test, train; name"):
        read(path, split="val")


@pytest.mark.parametrize(
    "options",
    [
        {"split": "val"},
        {"labels": "labels.csv"},
        {"label_column": "x"},
    ],
)
def test_options_of_a_folder_are_refused_elsewhere(options):
    with pytest.raises(ConfigError, match=r"the dataset 'digits' doesn't use it, 'folder' does"):
        DataConfig(**options)


CSV = "file_name,label\na.png,cat\nb.png,dog\nc.png,cat\n"
LISTS = {
    "metadata.csv": CSV,
    "labels.csv": "\ufeffclass,Image\ncat,./a.png\ndog,b.png\ncat,c.png\n",
    "metadata.jsonl": "".join(
        json.dumps({"file_name": f"{name}.png", "text": "a photo", "label": label}) + "\n"
        for name, label in (("a", "cat"), ("b", "dog"), ("c", "cat"))
    ),
    "labels.json": '{"a.png": "cat", "b.png": {"label": "dog"}, "c": "cat"}',
    "dataset.json": '{"labels": [["a.png", "cat"], ["b.png", "dog"], ["c.png", "cat"]]}',
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("form", [as_folder, as_zip])
def test_lists_of_labels(tmp_path, form, name):
    files = tree("a.png", "b.png", "c.png", "d.png", **{name: LISTS[name]})
    image_set = read(form(tmp_path, files))
    assert classes(image_set) == {"a.png": "cat", "b.png": "dog", "c.png": "cat"}
    (skipped,) = image_set.skipped
    assert str(skipped) == f"d.png: in no class: {name} gives it none"
    assert image_set.notes == (f"labels: {name}",)
    everything = read(tmp_path if form is as_folder else tmp_path / "data.zip", conditional=False)
    assert everything.classes == ("cat", "dog", "cat", "")
    assert everything.skipped == ()


def test_a_zip_of_stylegan(tmp_path):
    names = [f"0000{i}/img0000000{i}.png" for i in range(3)]
    labels = json.dumps({"labels": [[name, i * 5] for i, name in enumerate(names)]})
    image_set = read(as_zip(tmp_path, tree(*names, **{"dataset.json": labels})))
    assert image_set.label_names == ("0", "5", "10")
    assert image_set.labels.tolist() == [0, 1, 2]


def test_a_list_without_labels_leaves_none(tmp_path):
    path = as_zip(tmp_path, tree("00000/a.png", **{"dataset.json": '{"labels": null}'}))
    assert read(path, conditional=False).classes is None
    with pytest.raises(DataError, match=r"a\.png: in no class: dataset\.json has no labels"):
        read(path)


def test_captions_are_no_labels(tmp_path):
    files = tree("x/a.png", **{"metadata.csv": "file_name,text\nx/a.png,a cat\n"})
    image_set = read(as_folder(tmp_path, files))
    assert image_set.label_names == ("x",)
    assert "its columns are file_name, text, none of them label" in image_set.notes[0]
    assert read(tmp_path, label_column="text").label_names == ("a cat",)
    with pytest.raises(DataError, match="none of them breed; name the one of classes with --data"):
        read(tmp_path, label_column="breed")


def test_each_split_has_a_list_of_its_own(tmp_path):
    files = tree("train/0.png", "train/1.png", "val/0.png")
    files["train/metadata.csv"] = b"file_name,label\n0.png,a\n1.png,b\n"
    files["val/metadata.csv"] = b"file_name,label\n0.png,b\n"
    path = as_folder(tmp_path, files)
    assert classes(read(path)) == {"train/0.png": "a", "train/1.png": "b"}
    assert classes(read(path, split="val")) == {"val/0.png": "b"}
    everything = read(path, split="all")
    assert classes(everything) == {"train/0.png": "a", "train/1.png": "b", "val/0.png": "b"}
    assert everything.notes[-1] == "labels: 2 files metadata.csv"


def test_a_list_elsewhere(tmp_path):
    path = as_folder(tmp_path / "set", tree("x/a.png", "x/b.png"))
    (tmp_path / "mine.csv").write_text("id,label\na,1\nb,2\ngone,3\n")
    image_set = read(path, labels=str(tmp_path / "mine.csv"))
    assert image_set.label_names == ("1", "2")
    assert "1 of its 3 files aren't here: gone" in image_set.notes[0]
    assert read(path, labels="none").label_names == ("x",)
    with pytest.raises(DataError, match=r"data\.labels is 'no\.csv': neither a file nor in"):
        read(path, labels="no.csv")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "labels.csv",
            "file_name,label\na.png,x\na.png,y\n",
            "'a.png' has two classes, 'x' and 'y'",
        ),
        ("labels.csv", "one,two\n1,2\n", "its columns are one, two, none of them of files"),
        ("labels.csv", "", "its columns are none"),
        ("labels.csv", "file,label\nz.png,x\n", "names 1 files, and none of the 1 here"),
        ("dataset.json", '{"labels": [["a.png", [0.1, 0.9]]]}', r"\[0.1, 0.9\] is no class"),
        ("dataset.json", "[" * 100_000, "is no list of labels"),
        ("metadata.jsonl", '{"file_name": "a.png"', "is no list of labels"),
        ("labels.json", '{"a.png": true}', "True is no class"),
    ],
)
def test_lists_that_are_wrong(tmp_path, name, text, message):
    with pytest.raises(DataError, match=message):
        read(as_folder(tmp_path, tree("a.png", **{name: text})))


def test_shards_of_webdataset(tmp_path):
    def shard(number: int, split: str) -> None:
        files: dict[str, bytes] = {}
        for i, label in enumerate(("2", "10")):
            key = f"{number:03d}{i}"
            files |= {f"{key}.jpg": png(COLOURS[i]), f"{key}.cls": label.encode()}
            files[f"{key}.txt"] = b"a caption"
        as_tar(tmp_path, files, f"{split}-{number:06d}.tar")

    for number in range(2):
        shard(number, "train")
    shard(0, "val")
    image_set = read(tmp_path)
    assert image_set.label_names == ("2", "10")
    assert classes(image_set)["train-000001/0010.jpg"] == "2"
    assert len(image_set) == 4
    assert image_set.notes[0].startswith("splits: 2 archives of train taken; left out: val-000000")
    assert len(read(tmp_path, split="all", conditional=False)) == 6
    assert len(read(tmp_path / "val-000000.tar")) == 2


def test_labels_of_webdataset_in_json(tmp_path):
    files = {"a.png": png("red"), "a.json": b'{"label": "cat"}', "b.png": png("blue")}
    files |= {"b.json": b'{"width": 8}', "c.png": png("lime"), "c.json": b"{"}
    image_set = read(as_tar(tmp_path, files))
    assert classes(image_set) == {"a.png": "cat"}
    assert "b.png: in no class: no .cls or .json with a label beside it" in map(
        str, image_set.skipped
    )


def test_a_folder_around_everything_is_no_class(tmp_path):
    image_set = read(as_zip(tmp_path, tree("photos/a/1.png", "photos/b/2.png", "__MACOSX/._1.png")))
    assert image_set.label_names == ("a", "b")


@pytest.mark.parametrize("form", [as_zip, as_tar])
def test_names_that_lead_out_are_refused_and_nothing_is_written(tmp_path, form):
    names = ("ok/a.png", "../../out.png", "/etc/b.png", "a/../../c.png")
    inner = tmp_path / "inner"
    inner.mkdir()
    image_set = read(form(inner, tree(*names)), conditional=False)
    assert len(image_set) == 1
    assert {skipped.reason for skipped in image_set.skipped} == {
        "its name leads out of the archive"
    }
    assert len(image_set.skipped) == 3
    assert [path.name for path in tmp_path.rglob("*.png")] == []


def test_a_bomb_is_not_inflated(tmp_path):
    path = as_zip(tmp_path, {"ok.png": png("red"), "bomb.png": b"\0" * (1 << 20)})
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02")  # the last entry of the directory: the bomb's
    content[at + 24 : at + 28] = struct.pack("<I", 900 << 20)
    path.write_bytes(content)
    image_set = read(path, conditional=False)
    (skipped,) = image_set.skipped
    assert (
        str(skipped) == "bomb.png: inflates to more than deflate can have packed: an archive bomb"
    )
    content[at + 24 : at + 28] = struct.pack("<I", 2 << 30)
    path.write_bytes(content)
    assert "larger than 1 GiB" in str(read(path, conditional=False).skipped[0])


def test_archives_that_are_cut_off(tmp_path):
    files = tree(*(f"{i}.png" for i in range(5)))
    whole = as_zip(tmp_path, files)
    (tmp_path / "cut.zip").write_bytes(whole.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"not a whole zip archive .* copy it again"):
        read(tmp_path / "cut.zip", conditional=False)
    whole = as_tar(tmp_path, files)
    (tmp_path / "cut.tar").write_bytes(whole.read_bytes()[: 512 + 40])
    with pytest.raises(DataError, match=r"not a whole tar archive .* copy it again"):
        read(tmp_path / "cut.tar", conditional=False)
    (tmp_path / "text.tar").write_text("no archive" * 100)
    with pytest.raises(DataError, match="not a whole tar archive"):
        read(tmp_path / "text.tar", conditional=False)
    (tmp_path / "photo.png").write_bytes(png("red"))
    with pytest.raises(DataError, match=r"not a folder, and no \.zip or \.tar archive"):
        read(tmp_path / "photo.png", conditional=False)


def test_a_damaged_member_is_skipped(tmp_path):
    path = as_zip(tmp_path, {"a.png": png("red"), "b.png": png("lime")})
    content = bytearray(path.read_bytes())
    content[content.index(b"a.png") + 5 + 40] ^= 255  # within its deflated bytes
    path.write_bytes(content)
    (skipped,) = read(path, conditional=False).skipped
    assert skipped.name == "a.png"
    assert "damaged in its archive" in skipped.reason


def test_what_is_packed_as_a_whole_is_refused(tmp_path):
    (tmp_path / "x.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(DataError, match=r"packed as a whole.*unpack it"):
        read(tmp_path / "x.tar.gz")


def test_an_encrypted_member_is_said(tmp_path):
    path = as_zip(tmp_path, {"a.png": png("red"), "b.png": png("lime")})
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    (skipped,) = read(path, conditional=False).skipped
    assert str(skipped) == "b.png: encrypted; pack it again without a password"


def test_archives_beside_images_are_said(tmp_path):
    as_zip(tmp_path, tree("x.png"))
    image_set = read(as_folder(tmp_path, tree("a.png")), conditional=False)
    assert len(image_set) == 1
    assert image_set.notes == (
        "left out: data.zip, archives: give one as --data.path to train on it",
    )
