import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.networks import ImageShape
from training.data import Batches, DataConfig, ImageSet, load
from training.data import image_set as image_set_module
from training.data.sources import DATASETS, Raw, dataset
from training.errors import ConfigError, DataError


def numbered(num: int, *, labelled: bool = True) -> ImageSet:
    """Image i holds the pixel i, and label i."""
    images = torch.arange(num, dtype=torch.uint8).view(num, 1, 1, 1)
    labels = torch.arange(num) if labelled else None
    names = tuple(map(str, range(num))) if labelled else None
    return ImageSet("numbered", images, labels, names, "", ())


def numbers(real_img: torch.Tensor) -> list[int]:
    return torch.round((real_img.flatten() + 1) * 127.5).int().tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "minst"}, r"data\.dataset is 'minst'; choose one of celeba, cifar10, digits"),
        ({"channels": 2}, r"data\.channels is 2; allowed are 1 \(grey\), 3 \(RGB\)"),
        ({"resolution": 0}, r"data\.resolution is 0; allowed are 1 \.\. 1024"),
        ({"resolution": 5000}, r"data\.resolution is 5000"),
        ({"dataset": "folder"}, r"data\.path is not given; .*--data\.path DIR"),
        ({"dataset": "lsun"}, r"data\.path is not given"),
        ({"dataset": "celeba"}, r"data\.conditional is True; .*--data\.no-conditional"),
    ],
)
def test_config_refuses(options, message):
    with pytest.raises(ConfigError, match=message):
        DataConfig(**options)


def test_every_dataset_of_the_interface_is_registered():
    expected = "digits mnist fashion-mnist kmnist cifar10 celeba lsun folder"
    assert set(expected.split()) <= set(DATASETS)


def test_a_dataset_is_registered_once():
    with pytest.raises(ValueError, match="'digits' is registered already"):
        dataset("digits", labelled=True)(lambda config: Raw(images=np.zeros((1, 1, 1, 1))))


def test_digits():
    image_set = load(DataConfig())
    assert image_set.shape == ImageShape(resolution=32, channels=1, num_classes=10)
    assert len(image_set) == 1797
    assert image_set.label_names == tuple("0123456789")
    assert torch.bincount(image_set.labels).tolist() == [
        *(178, 182, 177, 183, 181, 182, 181, 179, 174, 180)
    ]
    assert image_set.images.min() == 0
    assert image_set.images.max() == 255


def test_digits_as_they_are():
    from sklearn.datasets import load_digits

    image_set = load(DataConfig(resolution=8))
    pixels = image_set.images[:, 0].numpy()
    assert np.array_equal(np.round(pixels / 255 * 16), load_digits().images)


def test_digits_in_colour_hold_the_grey_ones():
    grey = load(DataConfig(resolution=16)).images
    rgb = load(DataConfig(resolution=16, channels=3)).images
    assert torch.equal(rgb, grey.expand(-1, 3, -1, -1))


def test_unconditional_drops_the_labels():
    image_set = load(DataConfig(resolution=8, conditional=False))
    assert image_set.labels is None
    assert image_set.label_names is None
    assert image_set.shape.num_classes == 0


def test_fingerprint_sees_pixels_and_labels(monkeypatch):
    images = np.zeros((4, 1, 2, 2), np.uint8)
    labels = np.array([0, 1, 0, 1])

    def fingerprint(images, labels, conditional=True):
        raw = Raw(images=images, labels=labels, label_names=("a", "b"))
        entry = DATASETS["digits"]
        monkeypatch.setitem(
            DATASETS, "digits", type(entry)(load=lambda _: raw, labelled=True, needs_path=False)
        )
        return load(DataConfig(conditional=conditional)).fingerprint

    other = images.copy()
    other[3, 0, 1, 1] = 1
    assert fingerprint(images, labels) == fingerprint(images.copy(), labels.copy())
    assert len(fingerprint(images, labels)) == 64
    prints = {
        fingerprint(images, labels),
        fingerprint(other, labels),
        fingerprint(images, labels[::-1].copy()),
        fingerprint(images, labels, conditional=False),
    }
    assert len(prints) == 4


@pytest.mark.parametrize("labels", [[0, 1], [0, 1, 2], [0, 1, -1]])
def test_labels_that_do_not_fit_are_refused(monkeypatch, labels):
    raw = Raw(
        images=np.zeros((3, 1, 2, 2), np.uint8), labels=np.array(labels), label_names=("a", "b")
    )
    entry = DATASETS["digits"]
    monkeypatch.setitem(
        DATASETS, "digits", type(entry)(load=lambda _: raw, labelled=True, needs_path=False)
    )
    with pytest.raises(DataError, match="don't belong together"):
        load(DataConfig())


def test_moving_keeps_everything_else():
    image_set = numbered(3)
    moved = image_set.to("meta")
    assert moved.images.device.type == "meta"
    assert moved.labels.device.type == "meta"
    assert (moved.name, moved.label_names) == (image_set.name, image_set.label_names)


def test_images_that_do_not_fit_stay_on_the_host_and_their_batches_are_sent(monkeypatch):
    """The meta device stands for a GPU: what lies on it has no numbers."""
    gpu = torch.device("meta")
    monkeypatch.setattr(image_set_module, "free_bytes", lambda device: 10.0)
    small, large = numbered(4).to(gpu), numbered(6).to(gpu)
    assert small.images.device == small.device == gpu
    assert large.images.device.type == "cpu"
    assert large.device == gpu
    batches = Batches(large, batch_size=4, seed=0)
    read = batches._read
    seen = {}

    def noted(cur_nimg):
        seen[cur_nimg] = read(cur_nimg)
        return seen[cur_nimg]

    monkeypatch.setattr(batches, "_read", noted)
    real_img, label = batches.at(0)
    assert real_img.device == label.device == gpu
    batches.at(4)
    expected = Batches(numbered(6), batch_size=4, seed=0)
    for cur_nimg in (0, 4):
        assert torch.equal(seen[cur_nimg][0], expected.at(cur_nimg)[0])
        assert torch.equal(seen[cur_nimg][1], expected.at(cur_nimg)[1])
    assert 8 in seen or batches._ahead.keys() == {8}  # one is read ahead


def test_pixels_become_exactly_minus_one_to_one():
    image_set = numbered(256)
    real_img, labels = Batches(image_set, batch_size=256, seed=0).at(0)
    assert real_img.dtype == torch.float32
    assert real_img.shape == (256, 1, 1, 1)
    order = torch.argsort(labels)
    expected = torch.linspace(-1, 1, 256)
    assert torch.allclose(real_img.flatten()[order], expected, atol=1e-6)
    assert real_img.min() == -1
    assert real_img.max() == 1


@given(
    num=st.integers(1, 40),
    batch_size=st.integers(1, 100),
    seed=st.integers(0, 2**63),
    steps=st.integers(1, 12),
)
def test_every_epoch_holds_every_image_once(num, batch_size, seed, steps):
    batches = Batches(numbered(num), batch_size=batch_size, seed=seed)
    dealt = []
    for step in range(steps):
        real_img, labels = batches.at(step * batch_size)
        assert real_img.shape[0] == batch_size
        assert numbers(real_img) == labels.tolist()
        dealt += labels.tolist()
    for start in range(0, len(dealt) - num + 1, num):
        assert sorted(dealt[start : start + num]) == list(range(num))


@given(cur_nimg=st.integers(0, 10**12), seed=st.integers(0, 2**32))
@settings(max_examples=50)
def test_a_batch_does_not_depend_on_history(cur_nimg, seed):
    image_set = numbered(50)
    used = Batches(image_set, batch_size=16, seed=seed)
    for start in (cur_nimg + 500, 0, cur_nimg // 2):
        used.at(start)
    fresh = Batches(image_set, batch_size=16, seed=seed)
    assert torch.equal(used.at(cur_nimg)[0], fresh.at(cur_nimg)[0])
    # A batch of another size that starts there starts with the same images.
    longer = Batches(image_set, batch_size=48, seed=seed)
    assert torch.equal(longer.at(cur_nimg)[0][:16], fresh.at(cur_nimg)[0])


def test_epochs_and_seeds_differ():
    image_set = numbered(200)
    orders = {
        tuple(Batches(image_set, batch_size=200, seed=seed).at(epoch * 200)[1].tolist())
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 9


def test_a_batch_belongs_to_the_caller():
    batches = Batches(numbered(20), batch_size=20, seed=0)
    expected = batches.at(0)[0].clone()
    real_img, labels = batches.at(0)
    real_img.zero_()
    labels.zero_()
    assert torch.equal(batches.at(0)[0], expected)
    assert sorted(batches.at(0)[1].tolist()) == list(range(20))


def test_without_labels_there_are_none():
    assert Batches(numbered(3, labelled=False), batch_size=2, seed=0).at(0)[1] is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_deals_the_same_batches():
    image_set = numbered(200)
    here, there = (
        Batches(image_set.to(device), batch_size=64, seed=1) for device in ("cpu", "cuda")
    )
    for cur_nimg in (0, 64, 192):
        for a, b in zip(here.at(cur_nimg), there.at(cur_nimg), strict=True):
            assert b.device.type == "cuda"
            assert torch.equal(a, b.cpu())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0, "seed": 0}, "batch_size is 0, allowed: 1 or more; set --batch-size"),
        ({"batch_size": 1, "seed": -1}, "seed is -1, allowed: 0 or more; set --seed"),
    ],
)
def test_batches_refuse(options, message):
    with pytest.raises(ConfigError, match=message):
        Batches(numbered(3), **options)


def test_mirror_shows_half_of_the_images_mirrored():
    image_set = load(DataConfig(resolution=16))
    plain = Batches(image_set, batch_size=64, seed=3)
    mirrored = Batches(image_set, batch_size=64, seed=3, mirror=True)
    turned = []
    for at in range(0, 6400, 64):  # several epochs, and batches over their ends
        real_img, labels = plain.at(at)
        shown, shown_labels = mirrored.at(at)
        assert torch.equal(labels, shown_labels)  # the order is the same as without
        same = (shown == real_img).flatten(1).all(1)
        flipped = (shown == real_img.flip(3)).flatten(1).all(1)
        assert (same | flipped).all()
        turned += (~same).tolist()
    assert 0.45 < np.mean(turned) < 0.55
    first = np.array(turned[:1797])
    assert 0.3 < np.mean(first != turned[1797:3594]) < 0.7  # an epoch's draws are its own
    again = Batches(image_set, batch_size=64, seed=3, mirror=True)
    assert torch.equal(again.at(1792)[0], mirrored.at(1792)[0])  # as a resumed training does
