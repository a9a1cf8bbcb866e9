"""Features of a small classifier trained on the very data: what tells its classes apart.

The same data and seed give the same network on one kind of machine; the digest of its weights
stands in the protocol, so that figures of two networks aren't taken for comparable.
"""

import hashlib
import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.bundle import write_synced
from training.data import ImageSet
from training.errors import EvaluationError
from training.evaluation.features import Extractor, Source, Trunk, digest_of, on_device, reason

NUM_FEATURES = 64
MAX_IMAGES = 20_000
NUM_STEPS = 400
BATCH_SIZE = 64
LR = 2e-3
SEED = 0
VERSION = 1  # of all of the above: part of a cached file's name


class Classifier(nn.Module):
    """[N, C, H, W] float32 in [-1, 1] to features [N, 64], and from them to logits."""

    def __init__(self, channels: int, resolution: int, num_classes: int) -> None:
        super().__init__()
        trunk = Trunk(channels, resolution)
        self.flat = nn.Linear(trunk.num_channels * trunk.side**2, NUM_FEATURES)
        self.body = nn.Sequential(trunk, nn.Flatten(), self.flat, nn.LeakyReLU(0.1))
        self.head = nn.Linear(NUM_FEATURES, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, num_classes]."""
        logits: Tensor = self.head(self.body(images))
        return logits


def classifier_features(source: Source) -> Extractor:
    """The last layer before the logits of a classifier trained here, or taken from the cache.

    Raises:
        EvaluationError: the cached file can't be read.
    """
    network, held_out_accuracy = _cached(source) or _trained(source)
    body = network.body.to(source.device)
    num_train = num_training_images(source.image_set)
    description = (
        f"classifier: trained on {num_train:,} of the images, held-out accuracy "
        f"{held_out_accuracy:.3f}, {digest_of(network)}"
    )
    return Extractor(
        name="classifier",
        description=description,
        num_features=NUM_FEATURES,
        run=on_device(body, source.device),
    )


def num_training_images(image_set: ImageSet) -> int:
    """Four fifths of the images, of 20,000 at most."""
    return min(len(image_set), MAX_IMAGES) * 4 // 5


def train(image_set: ImageSet) -> tuple[Classifier, float]:
    """The classifier, and its accuracy on images that it hasn't seen; on the CPU.

    image_set: with labels.
    """
    assert image_set.labels is not None
    shape = image_set.shape
    rng = np.random.default_rng(SEED)
    chosen = rng.permutation(len(image_set))[:MAX_IMAGES]
    index = torch.from_numpy(chosen).to(image_set.images.device)
    images, labels = image_set.images[index].cpu(), image_set.labels[index].cpu()
    num_train = num_training_images(image_set)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = Classifier(shape.channels, shape.resolution, shape.num_classes)
    optim = torch.optim.Adam(network.parameters(), lr=LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optim, NUM_STEPS)
    for _ in range(NUM_STEPS):
        batch = torch.from_numpy(rng.integers(num_train, size=BATCH_SIZE))
        logits = network(images[batch].float() / 127.5 - 1)
        optim.zero_grad()
        nn.functional.cross_entropy(logits, labels[batch]).backward()  # type: ignore[no-untyped-call]
        optim.step()
        schedule.step()
    network.eval().requires_grad_(False)
    _normalise(network, images[:num_train])
    predict = on_device(network, "cpu")
    held_out = np.concatenate([predict(part) for part in torch.split(images[num_train:], 256)])
    accuracy = float((held_out.argmax(axis=1) == labels[num_train:].numpy()).mean())
    return network, accuracy


def _normalise(network: Classifier, images: Tensor) -> None:
    """Scales the features to a mean square of 1, and leaves the logits: kernels need a scale."""
    run = on_device(network.body, "cpu")
    squares = [float((run(part) ** 2).mean()) * len(part) for part in torch.split(images, 256)]
    scale = max(sum(squares) / len(images), 1e-12) ** -0.5
    network.flat.weight.mul_(scale)
    network.flat.bias.mul_(scale)
    network.head.weight.div_(scale)


def _trained(source: Source) -> tuple[Classifier, float]:
    source.say("training a classifier for its features")
    network, accuracy = train(source.image_set)
    if source.cache is not None:
        buffer = io.BytesIO()
        torch.save({"network": network.state_dict(), "held_out_accuracy": accuracy}, buffer)
        file = _cache_file(source.cache, source.image_set)
        temporary = file.with_suffix(".partial")
        try:
            source.cache.mkdir(parents=True, exist_ok=True)
            write_synced(temporary, buffer.getvalue())
            temporary.replace(file)
        except OSError as error:
            raise EvaluationError(
                f"cache is {str(source.cache)!r}: {error.strerror}; choose another with --cache"
            ) from error
    return network, accuracy


def _cached(source: Source) -> tuple[Classifier, float] | None:
    if source.cache is None:
        return None
    file = _cache_file(source.cache, source.image_set)
    if not file.exists():
        return None
    shape = source.image_set.shape
    network = Classifier(shape.channels, shape.resolution, shape.num_classes)
    try:
        record = torch.load(file, map_location="cpu", weights_only=True)
        network.load_state_dict(record["network"])
        accuracy = float(record["held_out_accuracy"])
    except Exception as error:  # bytes that are no archive make torch raise almost anything
        raise EvaluationError(
            f"{file}: {reason(error)}; delete it, and it is trained again"
        ) from error
    source.say(f"classifier from {file}")
    return network.eval().requires_grad_(False), accuracy


def _cache_file(cache: Path, image_set: ImageSet) -> Path:
    """Named by all that decides the weights."""
    key = hashlib.sha256(f"{VERSION} {image_set.content}".encode()).hexdigest()
    return cache / f"classifier-{key[:16]}.pt"
