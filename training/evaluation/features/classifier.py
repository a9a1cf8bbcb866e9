"""Features of a small classifier that is trained on the classes of the data itself.

The same data and seed give the same network on one kind of machine. The digest of its weights is
part of the protocol, so that figures of different networks are never compared.
"""

import hashlib
import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.bundle import write_synced
from models.networks import ImageShape
from training.data import ImageSet
from training.errors import EvaluationError
from training.evaluation.features.base import Extractor, Source, Trunk, digest_of, on_device, reason

NUM_FEATURES = 64
MAX_IMAGES = 20_000
NUM_STEPS = 400
BATCH_SIZE = 64
LR = 2e-3
SEED = 0
VERSION = 1  # of the constants above and the network; part of a cached file's name


class Classifier(nn.Module):
    """A convolutional classifier whose last hidden layer, [N, 64], gives the features."""

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        trunk = Trunk(shape)
        self.flat = nn.Linear(trunk.num_outputs, NUM_FEATURES)
        self.body = nn.Sequential(trunk, nn.Flatten(), self.flat, nn.LeakyReLU(0.1))
        self.head = nn.Linear(NUM_FEATURES, shape.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """[N, C, H, W] float32 in [-1, 1] to logits [N, num_classes]."""
        logits: Tensor = self.head(self.body(images))
        return logits


def classifier_features(source: Source) -> Extractor:
    """The last hidden layer of a classifier from the cache, or of one that is trained now.

    Raises:
        EvaluationError: a cached file can't be read, or the new one can't be written.
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


def num_training_images(image_set: ImageSet, max_images: int = MAX_IMAGES) -> int:
    """The number of images to train on: four fifths of the data, or of 20,000 if it is larger."""
    return min(len(image_set), max_images) * 4 // 5


def train(
    image_set: ImageSet, *, max_images: int = MAX_IMAGES, num_steps: int = NUM_STEPS
) -> tuple[Classifier, float]:
    """Trains a classifier on the CPU.

    Args:
        image_set: with labels.
        max_images: images that are used at most, four fifths of them to train on.
        num_steps: steps of 64 images.

    Returns:
        The network in evaluation mode, and its accuracy on held-out images.
    """
    assert image_set.labels is not None
    shape = image_set.shape
    rng = np.random.default_rng(SEED)
    chosen = rng.permutation(len(image_set))[:max_images]
    index = torch.from_numpy(chosen).to(image_set.images.device)
    images, labels = image_set.images[index].cpu(), image_set.labels[index].cpu()
    num_train = num_training_images(image_set, max_images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = Classifier(shape)
    optim = torch.optim.Adam(network.parameters(), lr=LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optim, num_steps)
    for _ in range(num_steps):
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
    """Scales the features to a mean square of 1, for the kernels. The logits don't change."""
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
        # Renamed when complete, so that a killed process leaves no half file in the cache.
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
    network = Classifier(shape)
    try:
        record = torch.load(file, map_location="cpu", weights_only=True)
        network.load_state_dict(record["network"])
        accuracy = float(record["held_out_accuracy"])
    except Exception as error:  # torch raises almost anything for bytes that are no archive
        raise EvaluationError(
            f"{file}: {reason(error)}; delete the file, and the classifier is trained again"
        ) from error
    source.say(f"classifier from {file}")
    return network.eval().requires_grad_(False), accuracy


def _cache_file(cache: Path, image_set: ImageSet) -> Path:
    """The cached file of a classifier, named by everything that decides its weights."""
    key = hashlib.sha256(f"{VERSION} {image_set.content}".encode()).hexdigest()
    return cache / f"classifier-{key[:16]}.pt"
