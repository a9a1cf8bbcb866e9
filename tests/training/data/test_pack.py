"""Packed images train as those in memory do, and an interrupted pack goes on."""

import io
import json
import os
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.data.listing.test_listing import as_folder, as_zip, png, tree
from training.cli.command import parse
from training.data import Batches, DataConfig, load
from training.data import pack as packing
from training.data.__main__ import main
from training.data.listing.outputs import PACK, PACKED_IMAGES
from training.data.pack import pack
from training.data.sources.packed import LABELS
from training.errors import DataError

FILES = tree(*(f"{name}/{i}.png" for name in ("1", "10", "2") for i in range(5)))


def config(path: Path, **options: object) -> DataConfig:
    defaults = {"resolution": "12x8", "channels": 3, "conditional": True}
    return DataConfig(dataset="folder", path=path, **(defaults | options))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return as_folder(tmp_path / "photos", FILES | {"1/note.txt": b"no image"})


@pytest.mark.parametrize("conditional", [True, False])
def test_packed_is_the_same_data(tmp_path, photos, conditional):
    pack(config(photos, conditional=conditional), tmp_path / "packed", part=4)
    kept, mapped = (
        load(config(path, conditional=conditional)) for path in (photos, tmp_path / "packed")
    )
    assert mapped.is_mapped
    assert not kept.is_mapped
    assert torch.equal(mapped.images, kept.images)
    for field in ("label_names", "fingerprint", "content", "classes", "origins", "skipped"):
        assert getattr(mapped, field) == getattr(kept, field), field
    assert mapped.fingerprint == kept.fingerprint
    weights = {"weights": ("1=3",), "conditional": conditional}
    weighted = [load(config(path, **weights)).fingerprint for path in (photos, tmp_path / "packed")]
    assert weighted[0] == weighted[1] != kept.fingerprint
    for cur_nimg in (0, 6, 12, 100, 6):  # across an epoch's end, and not in order
        batches = [Batches(each, batch_size=6, seed=3).at(cur_nimg) for each in (kept, mapped)]
        assert torch.equal(batches[0][0], batches[1][0])
        if conditional:
            assert torch.equal(batches[0][1], batches[1][1])


def test_batches_ahead_are_those_that_would_have_come(tmp_path, photos):
    pack(config(photos), tmp_path / "packed")
    kept, mapped = (
        Batches(load(config(path)), batch_size=4, seed=0) for path in (photos, tmp_path / "packed")
    )
    for cur_nimg in (0, 4, 8, 12, 40, 44, 0):
        assert torch.equal(kept.at(cur_nimg)[0], mapped.at(cur_nimg)[0])


def test_the_batches_of_both_players_are_read_once_each(tmp_path, photos, monkeypatch):
    """Where G has batches of its own, D's are read ahead all the same."""
    pack(config(photos), tmp_path / "packed")
    batches = Batches(load(config(tmp_path / "packed")), batch_size=4, seed=0)
    read, one = [], batches._batch
    monkeypatch.setattr(
        batches, "_batch", lambda cur_nimg: (read.append(cur_nimg), one(cur_nimg))[1]
    )
    far = 1 << 40
    for start in range(0, 40, 4):
        batches.at(start)
        batches.at(far + start)
    batches._reader.shutdown()
    assert sorted(read) == sorted(place + start for place in (0, far) for start in range(0, 44, 4))


@pytest.mark.parametrize("num_parts", [0, 1, 2, 3])
def test_an_interrupted_pack_goes_on(tmp_path, photos, num_parts, monkeypatch):
    whole = pack(config(photos), tmp_path / "whole", part=4)
    decode, seen = packing.decode, []

    def failing(chunk, form, *, num, **options):
        if len(seen) == num_parts:
            raise KeyboardInterrupt
        seen.extend([1])
        return decode(chunk, form, num=num, **options)

    monkeypatch.setattr(packing, "decode", failing)
    with pytest.raises(KeyboardInterrupt):
        pack(config(photos), tmp_path / "packed", part=4)
    assert not (tmp_path / "packed" / PACK).exists()
    # A crash may leave pixels without a record, and half a record.
    for name, torn in ((PACKED_IMAGES, b"torn"), ("parts.jsonl", b'{"num_fi')):
        with (tmp_path / "packed" / name).open("ab") as file:
            file.write(torn)
    decoded = []

    def counting(chunk, form, *, num, **options):
        decoded.append(num)
        return decode(chunk, form, num=num, **options)

    monkeypatch.setattr(packing, "decode", counting)
    assert pack(config(photos), tmp_path / "packed", part=4) == whole
    assert sum(decoded) == len(FILES) - 4 * num_parts
    for name in (PACKED_IMAGES, LABELS, "files.jsonl", PACK):
        first, second = ((tmp_path / each / name).read_bytes() for each in ("whole", "packed"))
        assert first == second, name
    assert sorted(path.name for path in (tmp_path / "packed").iterdir()) == sorted(
        [".lock", "files.jsonl", PACKED_IMAGES, LABELS, PACK]
    )


def test_an_interrupted_pack_of_other_files_is_refused(tmp_path, photos, monkeypatch):
    def interrupted(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(packing, "decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pack(config(photos), tmp_path / "packed")
    with pytest.raises(DataError, match="unfinished pack of other files, or with other options"):
        pack(config(photos, resolution=16), tmp_path / "packed")
    (photos / "1" / "9.png").write_bytes(png("red"))
    with pytest.raises(DataError, match="unfinished pack of other files"):
        pack(config(photos), tmp_path / "packed")


def test_where_it_packs_to(tmp_path, photos):
    with pytest.raises(DataError, match=r"not empty, it holds '1'; choose a new folder"):
        pack(config(photos), photos)
    pack(config(photos), tmp_path / "packed")
    with pytest.raises(DataError, match="packed already; delete it, or choose another"):
        pack(config(photos), tmp_path / "packed")
    with pytest.raises(DataError, match=r"no image could be read in it \(x\.txt: not an image"):
        pack(
            config(as_folder(tmp_path / "none", {"x.txt": b"x"}), conditional=False), tmp_path / "n"
        )


def test_packed_images_inside_a_folder_are_left_out(tmp_path, photos):
    pack(config(photos), photos / "packed")
    image_set = load(config(photos))
    assert image_set.label_names == ("1", "2", "10")
    assert image_set.notes == ("left out: packed, packed images",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"resolution": 16},
            r"packed with height 8, not 16, width 12, not 16; set --data.res.*12x8",
        ),
        ({"channels": 1}, "channels 3, not 1"),
        ({"fit": "pad"}, "fit crop, not pad"),
        ({"split": "val"}, r"data\.split is 'val'; .* packed with 'auto': leave it out"),
        ({"class_order": "text"}, r"data\.class_order is 'text'; .* with --class-order text"),
    ],
)
def test_other_options_than_it_was_packed_with(tmp_path, photos, options, message):
    pack(config(photos), tmp_path / "packed")
    with pytest.raises(DataError, match=message):
        load(config(tmp_path / "packed", **options))


def test_without_classes_there_is_no_conditional_training(tmp_path, photos):
    (photos / "loose.png").write_bytes(png("red"))
    pack(config(photos, conditional=False), tmp_path / "packed")
    assert len(load(config(tmp_path / "packed", conditional=False))) == len(FILES) + 1
    with pytest.raises(DataError, match=r"packed with images without a class; pack again with"):
        load(config(tmp_path / "packed"))


def test_damage_is_said(tmp_path, photos):
    folder = tmp_path / "packed"
    pack(config(photos), folder)
    os.truncate(folder / PACKED_IMAGES, 100)
    with pytest.raises(DataError, match=r"images\.bin has not the .* bytes of pack\.json"):
        load(config(folder))
    pack(config(photos), tmp_path / "other")
    np.save(tmp_path / "other" / LABELS, np.full(len(FILES), 7))
    with pytest.raises(DataError, match=r"labels\.npy names classes that pack\.json lacks"):
        load(config(tmp_path / "other"))
    record = json.loads((folder / PACK).read_text())
    (folder / PACK).write_text(json.dumps(record | {"version": 9}))
    with pytest.raises(DataError, match="is of version 9, this release reads 1; pack again"):
        load(config(folder))
    (folder / PACK).write_text("{}")
    with pytest.raises(DataError, match=r"pack\.json can't be read: .*; pack again"):
        load(config(folder))


def test_the_command(tmp_path, photos, capsys):
    archive = as_zip(tmp_path, {f"photos/{name}": data for name, data in FILES.items()})
    words = [str(archive), "--to", str(tmp_path / "packed"), "--resolution", "8", "--conditional"]
    assert main(["pack", *words]) == 0
    out = capsys.readouterr()
    assert "packed 15 images, 3 classes in" in out.out
    assert "train with --data.path" in out.out
    assert "packed 15 of 15 files," in out.err
    assert "0s left" in out.err
    assert main(["pack", *words]) == 3
    assert "packed already" in capsys.readouterr().err


def test_the_options_to_train_with_are_accepted(tmp_path, photos, capsys):
    """Those that it prints, for a pack with other options than the defaults."""
    words = ["--resolution", "12x8", "--channels", "4", "--fit", "pad", "--frames", "first"]
    words += ["--background", "rgb(1, 2, 3)", "--max-pixels", "99999", "--class-order", "text"]
    to = tmp_path / "a folder"
    assert main(["pack", str(photos), "--to", str(to), "--conditional", *words]) == 0
    said = capsys.readouterr().out.splitlines()[-1].partition("train with ")[2]
    data = parse(["folder", *shlex.split(said)]).config.data
    assert load(data).is_mapped
    assert load(data).label_names == ("1", "10", "2")


def test_packing_shows_one_line_of_progress(tmp_path, photos, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("training.data.decoding.progress._AFTER_S", 0.0)
    monkeypatch.setattr("sys.stderr", Terminal())
    pack(config(photos), tmp_path / "packed", part=4)
    assert "packed 15 of 15 files" in sys.stderr.getvalue()
    assert "decoding" not in sys.stderr.getvalue()
    load(config(photos))
    assert "decoding images: 15 of 15" in sys.stderr.getvalue()


def test_a_sample_is_in_memory(tmp_path, photos):
    pack(config(photos), tmp_path / "packed")
    mapped = load(config(tmp_path / "packed"))
    some = mapped.subset(4)
    assert (len(some), some.is_mapped) == (4, False)
    assert [origin.name for origin in some.origins] == [
        mapped.origins[i].name for i in (0, 5, 9, 14)
    ]
    assert torch.equal(some.images[-1], mapped.images[-1])
    assert mapped.subset(100) is mapped
