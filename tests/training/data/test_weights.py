"""Sample weights: read, refused, and what they do to batches and to what a generator makes."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from models.bundle.generator import CpuGenerator, Sampler
from models.repository import Repository
from training.data import Batches, DataConfig, ImageSet, load
from training.data.weights import read, shares, summary, weigh
from training.errors import ConfigError, DataError
from training.evaluation.features.svm import features
from training.run import main


def numbered(weights, *, labelled=True):
    num = len(weights)
    images = torch.arange(num, dtype=torch.uint8).view(num, 1, 1, 1)
    labels = torch.arange(num) if labelled else None
    names = tuple(map(str, range(num))) if labelled else None
    weights = torch.tensor(weights, dtype=torch.float64)
    return ImageSet("numbered", images, labels, names, "", (), weights=weights)


def picture(path, colour="red"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), colour).save(path)


def epoch_counts(image_set, *, seed, epoch=0):
    num = len(image_set)
    real_img, _ = Batches(image_set, batch_size=num, seed=seed).at(epoch * num)
    numbers = torch.round((real_img.flatten() + 1) * 127.5).long()
    return torch.bincount(numbers, minlength=num)


@given(
    weights=st.lists(st.floats(0, 1e308) | st.just(0.0), min_size=1, max_size=60).filter(any),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 5),
)
def test_an_epoch_holds_an_image_as_often_as_it_weighs(weights, seed, epoch):
    counts = epoch_counts(numbered(weights), seed=seed, epoch=epoch)
    fractions = np.array(weights) / max(weights)
    expected = len(weights) * fractions / fractions.sum()
    assert counts.sum() == len(weights)
    assert (np.abs(counts.numpy() - expected) < 1 + 1e-9).all()
    assert not counts.numpy()[np.array(weights) == 0].any()


def test_the_rounding_is_fair():
    image_set = numbered([0.5, 1.5, 1.0, 3.0, 0.0, 0.25])
    counts = sum(epoch_counts(image_set, seed=0, epoch=epoch) for epoch in range(2000)) / 2000
    expected = 6 * image_set.weights / image_set.weights.sum()
    assert torch.allclose(counts.double(), expected, atol=0.03)


def test_equal_weights_hold_every_image_once():
    assert epoch_counts(numbered([0.1] * 50), seed=3).tolist() == [1] * 50


def test_labels_follow_the_images_and_history_does_not_matter():
    image_set = numbered([1.0, 5.0, 0.0, 2.0] * 10)
    used = Batches(image_set, batch_size=16, seed=7)
    used.at(640)
    for cur_nimg in (0, 16, 32, 4000):
        real_img, labels = used.at(cur_nimg)
        numbers = torch.round((real_img.flatten() + 1) * 127.5).long()
        assert torch.equal(numbers, labels)
        fresh, _ = Batches(image_set, batch_size=16, seed=7).at(cur_nimg)
        assert torch.equal(real_img, fresh)


def test_without_weights_batches_are_what_they_were():
    """Golden: computed before there were weights."""
    images = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1)
    image_set = ImageSet("numbered", images, None, None, "", ())
    real_img, _ = Batches(image_set, batch_size=10, seed=5).at(20)
    numbers = torch.round((real_img.flatten() + 1) * 127.5).int().tolist()
    assert numbers == np.random.default_rng((5, 2)).permutation(10).tolist()
    assert load(DataConfig(resolution=8)).fingerprint == (
        "0b7e9c3202d7bcd255d6a19a238d3743bf5e320ba74812a6679958a017c55382"
    )


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("0=-1", r"data\.weights: '0' weighs -1, allowed: a finite number of 0 or more"),
        ("0=nan", r"data\.weights: '0' weighs nan"),
        ("0=inf", r"data\.weights: '0' weighs inf"),
        ("0=much", r"data\.weights is '0=much', allowed: NAME=WEIGHT"),
        ("cats", r"data\.weights is 'cats', allowed: NAME=WEIGHT.*or a file NAME\.csv"),
    ],
)
def test_what_is_no_weight_is_refused_before_anything_is_read(word, message):
    with pytest.raises(ConfigError, match=message):
        DataConfig(weights=(word,))


def test_a_name_is_given_once():
    with pytest.raises(ConfigError, match=r"gives 'a' twice"):
        DataConfig(weights=("a=1", "a=2"))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (("10=1",), r"names '10', allowed: a class \(0, 1, 2, .*; correct the name"),
        (tuple(f"{i}=0" for i in range(10)), r"gives all 1797 images the weight 0"),
    ],
)
def test_what_does_not_fit_the_data_is_refused(weights, message):
    with pytest.raises(DataError, match=message):
        load(DataConfig(resolution=8, weights=weights))


@pytest.mark.parametrize("conditional", [True, False])
def test_classes_are_weighed_whether_networks_are_told_them_or_not(conditional):
    plain = load(DataConfig(resolution=8, conditional=conditional))
    config = DataConfig(resolution=8, conditional=conditional, weights=("3=2.5", "4=0"))
    image_set = load(config)
    labels = load(DataConfig(resolution=8)).labels
    expected = torch.ones(1797, dtype=torch.float64)
    expected[labels == 3], expected[labels == 4] = 2.5, 0
    assert torch.equal(image_set.weights, expected)
    assert (image_set.labels is None) is not conditional
    assert plain.weights is None
    assert image_set.fingerprint != plain.fingerprint  # a resume with other weights is refused


@pytest.mark.parametrize("conditional", [True, False])
def test_an_images_own_weight_counts_for_more_than_its_class(tmp_path, conditional):
    for name in ("cat/a.png", "cat/old/b.png", "dog/c.png"):
        picture(tmp_path / "set" / name)
    (tmp_path / "w.csv").write_text("name,weight\ncat,2\ncat/old/b.png,7\n\ndog,4\n")
    config = DataConfig(
        dataset="folder",
        path=tmp_path / "set",
        conditional=conditional,
        weights=(str(tmp_path / "w.csv"), "dog=5"),
    )
    image_set = load(config)
    assert [origin.name for origin in image_set.origins] == [
        *("cat/a.png", "cat/old/b.png", "dog/c.png")
    ]
    assert image_set.weights.tolist() == [2, 7, 5]  # the word counts for more than the file
    with pytest.raises(DataError, match=r"names 'cat/x\.png', allowed: a class \(cat, dog\); or"):
        load(DataConfig(dataset="folder", path=tmp_path / "set", weights=("cat/x.png=1",)))


def test_json_is_read_too(tmp_path):
    (tmp_path / "w.json").write_text(json.dumps({"a=b": 3, "c": 0.5}))
    assert read((str(tmp_path / "w.json"),)) == {"a=b": 3.0, "c": 0.5}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("w.csv", "cat,1\n", r"its first line is 'cat,1'; allowed: CSV with the header"),
        ("w.csv", "", r"its first line is ''"),
        ("w.csv", "name,weight\n", r"it holds no weight"),
        ("w.csv", "name,weight\na,1,2\n", r"line 2 has 3 cells"),
        ("w.csv", "name,weight\na,x\n", r"could not convert string to float: 'x'"),
        ("w.csv", "name,weight\na,-1\n", r"w\.csv: 'a' weighs -1, allowed"),
        ("w.csv", "name,weight\na,nan\n", r"w\.csv: 'a' weighs nan"),
        ("w.csv", "name,weight\na,1\na,2\n", r"'a' is there twice"),
        ("w.csv", 'name,weight\n"a,1\n', r"line 2: unexpected end of data"),
        ("w.json", "{", r"w\.json: Expecting property name"),
        ("w.json", "[1]", r"it holds no object"),
        ("w.json", "3", r"it holds no object"),
        ("w.json", '{"a": "1"}', r"'a' weighs '1', which is not a number"),
        ("w.json", '{"a": true}', r"'a' weighs True"),
        ("w.json", '{"a": {"b": 1}}', r"which is not a number"),
        ("w.json", '{"a": 1, "a": 2}', r"'a' is there twice"),
        ("w.json", '{"a": Infinity}', r"'a' weighs inf"),
    ],
)
def test_a_file_that_holds_no_weights_is_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read((str(tmp_path / name),))


def test_a_file_that_can_not_be_read_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.csv: .*No such file"):
        read((str(tmp_path / "nowhere.csv"),))
    (tmp_path / "w.csv").write_bytes(b"name,weight\n\xff,1\n")
    with pytest.raises(DataError, match=r"w\.csv: .*utf-8"):
        read((str(tmp_path / "w.csv"),))


def test_data_without_names_has_nothing_to_weigh():
    with pytest.raises(DataError, match="none: this dataset has no classes"):
        weigh({"a": 1.0}, num=2, classes=None, paths=None)


def test_shares():
    found = shares(np.array([1.0, 1, 1, 9, 5]), ["a", "a", "a", "b", ""])
    assert found == {"a": (0.6, 3 / 17), "b": (0.2, 9 / 17)}
    assert summary(np.array([1.0, 3]), ["a", "b"]) == (
        "weights: a 50.0% of the images, 25.0% of the draws; "
        "b 50.0% of the images, 75.0% of the draws"
    )
    assert "2 of 3 images are drawn" in summary(np.array([1.0, 3, 0]), None)


@pytest.mark.slow
def test_a_declared_imbalance_is_mended_in_what_is_generated(tmp_path):
    """171 zeros and 19 ones, without classes: 90/10 learnt as it is, 50/50 with weights."""
    data = load_digits()
    pixels = np.round(data.images * (255 / 16)).astype(np.uint8)
    for digit, name, num in ((0, "zero", 171), (1, "one", 19)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i, image in enumerate(pixels[data.target == digit][:num]):
            Image.fromarray(image).save(tmp_path / "set" / name / f"{i:03}.png")
    svm = SVC(C=10.0, gamma="scale")
    both = data.target < 2
    svm.fit(features(torch.from_numpy(pixels[both])[:, None]), data.target[both])

    def share_of_ones(*weights):
        network = "--network.ngf 8 --network.ndf 8 --network.z-dim 16 --batch-size 32 --ema-kimg 1"
        optim = "--optim-G.lr 1e-3 --optim-D.lr 1e-3 --regularizers r1=0.3 r2=0.3 --seed 1"
        length = "--total-kimg 20 --tick-kimg 20 --data.resolution 16 --data.channels 1"
        places = ["--runs", str(tmp_path / "runs"), "--repository", str(tmp_path / "models")]
        places += ["--evaluation", "none", "--directions", "0"]
        words = f"{network} {optim} {length}".split()
        options = ["--data.weights", *weights] if weights else []
        path = ["--data.path", str(tmp_path / "set")]
        assert main(["folder", *path, *words, *places, *options]) == 0
        bundle = Repository(tmp_path / "models").bundle("set")
        assert bundle.manifest.options["data"]["weights"] == list(weights)
        sampler = Sampler(CpuGenerator(bundle.model_path), z_dim=16, num_classes=0)
        images = torch.from_numpy(sampler(np.arange(1000, dtype=np.uint64)))
        return svm.predict(features(images.permute(0, 3, 1, 2))).mean()

    assert share_of_ones() < 0.2
    assert abs(share_of_ones("one=9") - 0.5) <= 0.05
