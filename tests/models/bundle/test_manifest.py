import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.bundle.manifest import SCHEMA_VERSION, ImageSpec, decode, encode, tensor_specs
from models.errors import BundleError


@pytest.fixture
def valid(classes):
    return json.loads(encode(classes.manifest))


def read(record) -> object:
    return decode(json.dumps(record).encode(), "here/manifest.json")


def test_a_manifest_survives_its_file(grey, classes):
    for bundle in (grey, classes):
        assert decode(encode(bundle.manifest), "here") == bundle.manifest
        assert encode(bundle.manifest).endswith(b"}\n")


def test_what_it_says_of_the_model(grey, classes):
    assert not grey.manifest.conditional
    assert classes.manifest.conditional
    assert not classes.manifest.has_mapping


@pytest.mark.parametrize(
    ("created", "seconds"),
    [
        ("1970-01-02T00:00:00+00:00", 86400),
        ("1970-01-02T00:00:00Z", 86400),
        ("1970-01-01T02:00:00+01:00", 3600),
        ("1970-01-01T00:00:05", 5),  # whatever the time zone of this machine
        ("yesterday", 0),
    ],
)
def test_when_it_was_made(valid, created, seconds):
    assert read(valid | {"created": created}).created_s == seconds


def test_a_newer_schema_is_refused_with_the_remedy(valid):
    # Even when the rest of it means nothing to this release.
    record = {"schema_version": SCHEMA_VERSION + 1, "anything": {"else": 1}}
    for newer in (record, valid | {"schema_version": 99}):
        with pytest.raises(
            BundleError, match=r"here/manifest\.json: schema_version is \d+, .*upgrade saddlepoint"
        ):
            read(newer)


def change(**fields):
    return lambda record: record | fields


CASES = {
    "missing field": (lambda r: {k: v for k, v in r.items() if k != "z_dim"}, "`z_dim`"),
    "unknown field": (change(extra=1), "unknown field `extra`"),
    "wrong type": (change(z_dim="6"), r"Expected `int`, got `str` - at `\$\.z_dim`"),
    "no channels": (change(image={"height": 8, "width": 8, "channels": 2}), "channels"),
    "z_dim of nothing": (change(z_dim=0), r"z_dim is 0, must lie in 1 \.\. 65536"),
    "z_dim beyond memory": (change(z_dim=10**12), "z_dim is 1000000000000"),
    "z_dim beyond numbers": (change(z_dim=10**40), "manifest"),
    "version 0": (change(version=0), "version is 0, must be at least 1"),
    "no height": (change(image={"height": 0, "width": 8, "channels": 1}), "image.height is 0"),
    "z_dim unlike the input": (change(z_dim=7), "inputs and outputs don't match"),
    "labels without input": (lambda r: r | {"inputs": r["inputs"][:1]}, "don't match"),
    "input without labels": (change(labels=None), "don't match"),
    "no classes": (change(labels=[]), "labels is empty"),
    "float seeds": (change(created=5), r"\$\.created"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_faulty_manifest_is_refused(valid, name):
    spoil, message = CASES[name]
    with pytest.raises(BundleError, match=message) as raised:
        read(spoil(valid))
    assert str(raised.value).startswith("here/manifest.json: ")


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../x", "a/b", "/etc/passwd", ".hidden", "a\\b", "C:\\x"),
        *("nul\x00l", "line\nbreak", "del\x7f"),
    ],
)
def test_files_are_plain_names(valid, name):
    entry = {"sha256": "0" * 64, "size_bytes": 1}
    with pytest.raises(BundleError, match="only plain file names are allowed"):
        read(valid | {"files": valid["files"] | {name: entry}})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b'"text"',
        b"\xff\xfe",
        b'{"schema_version": "1"}',
        b'{"schema_version": true}',
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"name": "\xff"}',
    ],
)
def test_bytes_that_are_no_manifest(data):
    with pytest.raises(BundleError, match="here: "):
        decode(data, "here")


@given(data=st.binary(max_size=200))
def test_any_bytes_are_refused_with_words(data):
    with pytest.raises(BundleError):
        decode(data, "here")


def test_tensor_specs_are_the_contract():
    image = ImageSpec(height=4, width=5, channels=3)
    inputs, outputs = tensor_specs(7, image, conditional=True, has_mapping=True)
    assert [(i.name, i.datatype, i.shape) for i in inputs] == [
        ("z", "FP32", (-1, 7)),
        ("label", "INT64", (-1,)),
        ("psi", "FP32", (-1,)),
    ]
    assert [(o.name, o.datatype, o.shape) for o in outputs] == [("image", "UINT8", (-1, 4, 5, 3))]
    assert [i.name for i in tensor_specs(7, image, conditional=False)[0]] == ["z"]
