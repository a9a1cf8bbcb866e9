"""directions.npz: what a request may name, what it adds, and every fault of the file."""

import dataclasses
import io

import numpy as np
import pytest

from models.bundle import Bundle
from models.bundle.bundle import write_bundle
from models.bundle.directions import (
    DIRECTIONS,
    Applied,
    DirectionError,
    as_text,
    parse_amounts,
    read_directions,
)
from models.bundle.verification import verify
from models.errors import BundleError
from models.repository import Repository


@pytest.fixture(scope="module")
def grey(make_bundle):
    return make_bundle(directions=True)


@pytest.fixture(scope="module")
def colour(make_bundle):
    return make_bundle(channels=3, num_classes=3, directions=True)


@pytest.fixture(scope="module")
def directions(colour):
    return read_directions(colour)


def test_what_was_written_is_read(colour, directions):
    again = read_directions(colour)
    assert again.to_bytes() == directions.to_bytes()
    assert directions.concepts == ("area", "slant")
    assert set(directions.sets) == {"z", "class"}
    assert verify(colour) == 0


def test_an_old_bundle_has_none(make_bundle):
    bundle = make_bundle()
    assert read_directions(bundle) is None
    assert verify(bundle) == 0


def test_a_published_bundle_keeps_them(grey, tmp_path):
    published = Repository(tmp_path).publish("mine", grey)
    assert read_directions(published).sets["z"].num == 3
    assert published.manifest.files[DIRECTIONS] == grey.manifest.files[DIRECTIONS]


def test_names_numbers_and_zeros_have_one_form(directions):
    by_name = directions.resolve({"slant": 1.5, "class:1": -2, "1": 0.0})
    assert by_name == directions.resolve({"class:1": -2.0, "0": 1.5})
    assert by_name == (Applied("class", 1, -2.0), Applied("z", 0, 1.5))
    assert as_text(by_name) == "class:1:-2,0:1.5"
    assert directions.resolve({"z:2": 1}) == directions.resolve({"ink above": 1})
    assert directions.resolve({}) == directions.resolve({"0": 0}) == ()


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"3": 1.0}, r"names '3', allowed are 0 \.\. 2, class:0 \.\. class:1, slant, ink above"),
        ({"class:2": 1.0}, "names 'class:2', allowed"),
        ({"sefa:0": 1.0}, "names 'sefa:0', allowed"),
        ({"-1": 1.0}, "names '-1', allowed"),
        ({"": 1.0}, "names '', allowed"),
        ({"x" * 500: 1.0}, r"names 'x{80}\.\.\.', allowed"),
        ({"0": 10.5}, r"\['0'\] is 10.5, allowed are -10 \.\. 10"),
        ({"0": float("nan")}, "is nan, allowed"),
        ({"0": 1.0, "slant": 1.0}, "names 0 twice, by number and by name"),
        ({str(i): 0.0 for i in range(17)}, "has 17 entries, allowed are 16"),
    ],
)
def test_a_refusal_says_what_is_allowed(directions, asked, text):
    with pytest.raises(DirectionError, match=text):
        directions.resolve(asked)


def test_steps_add_up_and_a_class_has_its_own(directions):
    applied = directions.resolve({"0": 2, "class:1": 1})
    shift = directions.shift(applied, 3, [0, 2, 0])
    assert shift.dtype == np.float32
    assert shift[0].tolist() == [1, -0.5, 0, 0, 0, 0]
    assert shift[1].tolist() == [1, -1.5, 0, 0, 0, 0]
    assert np.array_equal(shift[2], shift[0])
    assert directions.shift((), 3, [0, 1, 2]) is None
    assert directions.shift(directions.resolve({"1": 1}), 2, None).tolist()[1][:3] == [0, 0.5, 0]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0:1.5,ink above:-1", {"0": 1.5, "ink above": -1.0}),
        ("class:0:2", {"class:0": 2.0}),
        ("0", None),
        ("0:x", None),
        (":1", None),
        ("0:1,0:2", None),
    ],
)
def test_words_of_a_command_line(text, found):
    if found is not None:
        assert parse_amounts(text) == found
    else:
        with pytest.raises(DirectionError, match="is no direction and its units"):
            parse_amounts(text)


def changed(bundle, tmp_path, directions, **changes):
    """The bundle with other directions, whose digest fits."""
    files = {name: (bundle.path / name).read_bytes() for name in bundle.manifest.files}
    data = dataclasses.replace(directions, **changes).to_bytes()
    return write_bundle(tmp_path / "changed", bundle.manifest, {**files, DIRECTIONS: data})


def test_directions_of_another_model_are_refused(colour, directions, tmp_path):
    golden = dataclasses.replace(directions.golden, images=255 - directions.golden.images)
    with pytest.raises(BundleError, match="the directions are of another model"):
        verify(changed(colour, tmp_path, directions, golden=golden))


def test_a_file_that_was_altered_is_refused(grey, tmp_path):
    published = Repository(tmp_path).publish("mine", grey)
    path = published.path / DIRECTIONS
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match="was altered after export"):
        read_directions(published)
    path.unlink()
    with pytest.raises(BundleError, match="No such file"):
        read_directions(published)


@pytest.mark.parametrize("entry", ["steps", "eigenvalues", "names", "evidence", "pictures"])
def test_arrays_that_don_t_fit_are_refused(colour, directions, tmp_path, entry):
    shared = directions.sets["z"]
    cut = dataclasses.replace(shared, **{entry: getattr(shared, entry)[..., :1]})
    if entry in ("names", "pictures"):
        cut = dataclasses.replace(shared, **{entry: getattr(shared, entry)[:1]})
    bundle = changed(colour, tmp_path, directions, sets={**directions.sets, "z": cut})
    with pytest.raises(BundleError, match="don't fit the model"):
        read_directions(bundle)


@pytest.mark.parametrize(
    ("names", "text"), [(["a", "a", ""], "a name twice"), (["a:b", "", ""], "can't give")]
)
def test_names_that_no_request_could_give_are_refused(colour, directions, tmp_path, names, text):
    shared = dataclasses.replace(directions.sets["z"], names=np.array(names))
    bundle = changed(colour, tmp_path, directions, sets={**directions.sets, "z": shared})
    with pytest.raises(BundleError, match=text):
        read_directions(bundle)


def test_no_number_and_no_archive(colour, directions, tmp_path):
    steps = directions.sets["z"].steps.copy()
    steps[0, 0] = np.inf
    shared = dataclasses.replace(directions.sets["z"], steps=steps)
    bundle = changed(colour, tmp_path, directions, sets={"z": shared})
    with pytest.raises(BundleError, match="don't fit"):
        read_directions(bundle)
    files = {name: (colour.path / name).read_bytes() for name in colour.manifest.files}
    buffer = io.BytesIO()
    np.savez(buffer, nothing=np.zeros(1))
    for number, data in enumerate((b"no archive", buffer.getvalue())):
        folder = tmp_path / str(number)
        broken = write_bundle(folder, colour.manifest, {**files, DIRECTIONS: data})
        with pytest.raises(BundleError, match="export the model again"):
            read_directions(Bundle.open(broken.path))
