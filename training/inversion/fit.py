"""Trains an encoder against a frozen generator, on exact pairs without end and on real images.

A pool of images is worked on at once, a residual pass a step: each step backs one pass of all of
them through G, then replaces the rows that have had theirs. So rows of every pass are in a step,
and an image costs no more than its passes. Pairs are z and G(z), rounded as images are. The state
between two steps is a dictionary of tensors: with the steps done it is all that goes on needs.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.networks import ImageShape
from training.data import ImageSet
from training.inversion.corruption import Corrupted, compared, corrupt
from training.inversion.network import EncoderConfig, ResidualEncoder
from training.randomness import generator, key

_WHOLE = 0.5  # weight of the whole image where only a part is known
_Z = 0.05  # of |z - z*|^2 / d, in pairs
_PRIOR = 0.02  # keeps |z|^2 / d near 1
_NEAR = 0.02  # keeps an answer near its start, so that K starts have K answers
_CLASS = 0.1  # of the classes' cross-entropy
_VARIED = 0.3  # share of rows that begin at a random start
_FLOOR = 0.05  # of the learning rate at the end


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How an encoder is trained. Defaults are for digits: minutes on two cores."""

    network: EncoderConfig = field(default_factory=EncoderConfig)
    kimg: float = 50.0
    """Thousands of images, each with all its passes."""
    batch_size: int = 128
    """Images in the pool."""
    lr: float = 2e-3
    real: float = 0.25
    """Share of real images, where there are any; the others are pairs."""
    seed: int = 0

    @property
    def num_steps(self) -> int:
        """Steps; each takes batch_size / passes new images."""
        return max(1, round(self.kimg * 1000 * self.network.passes / self.batch_size))


@dataclass(frozen=True)
class Subject:
    """A frozen generator."""

    G: nn.Module
    """(z, label or None) to images in [-1, 1]; in evaluation mode on the CPU."""
    z_dim: int
    shape: ImageShape
    infers_label: bool = False
    """True where its encoder finds the class."""


class EncoderFit:
    """A training between two steps."""

    def __init__(self, subject: Subject, config: FitConfig, real: ImageSet | None) -> None:
        """real: images of the generator's size; None to train on pairs alone."""
        self.subject, self.config = subject, config
        self._real = real if real is not None and len(real) and config.real else None
        torch.manual_seed(config.seed)
        shape, infers = subject.shape, subject.infers_label
        self.encoder = ResidualEncoder(shape, subject.z_dim, config.network, infers_label=infers)
        self.average = ResidualEncoder(shape, subject.z_dim, config.network, infers_label=infers)
        self.average.load_state_dict(self.encoder.state_dict())
        self.average.requires_grad_(False)
        # On a CPU the gradients of convolutions cost half as much with channels last.
        for network in (self.encoder, self.average):
            network.to(memory_format=torch.channels_last)
        self.optim = torch.optim.Adam(
            self.encoder.parameters(), lr=config.lr, betas=(0.9, 0.99), fused=True
        )
        self.step = 0
        self._pool = self._fresh(config.batch_size, -1)
        self.loss: dict[str, float] = {}

    def advance(self) -> None:
        """One pass of every row, one step of the optimiser, and new rows for those that ended."""
        passes = self.config.network.passes
        group = slice(self.step % passes, None, passes)
        fresh = self._fresh(len(self._pool["img"][group]), self.step)
        for name, values in fresh.items():
            self._pool[name][group] = values
        pool = self._pool
        given = Corrupted(pool["seen"], pool["mask"], pool["factor"])
        label = pool["label"] if self.subject.shape.num_classes else None
        rows = (pool["seen"], pool["made"], pool["mask"], pool["z"], label)
        scores = None
        if self.subject.infers_label:
            change, scores = self.encoder.step_and_scores(rows, fresh["seen"], fresh["mask"])
        else:
            change = self.encoder(*rows)
        z = pool["z"] + change
        made = self.subject.G(z, label)
        loss = self._loss(z, made, given)
        if scores is not None:
            classes = functional.cross_entropy(scores, fresh["label"])
            self.loss["classes"] = float(classes.detach())
            loss = loss + _CLASS * classes
        self._move(loss)
        pool["z"], pool["made"] = z.detach(), made.detach()
        self.step += 1

    def _loss(self, z: Tensor, made: Tensor, given: Corrupted) -> Tensor:
        pool = self._pool
        known = compared(pool["img"], made, given)
        whole = (pool["img"] - made).square().mean((1, 2, 3))
        near = (z - pool["start"]).square().mean(1)
        exact = (z - pool["target"]).square().mean(1) * pool["is_pair"]
        prior = (z.square().mean(1) - 1).clamp_min(0)
        varied = pool["is_varied"]
        rows = known + _PRIOR * prior
        # A row with a start of its own may end anywhere that agrees with what is known.
        rows = rows + torch.where(varied > 0, _NEAR * near, _WHOLE * whole + _Z * exact)
        plain = (varied == 0) & (given.mask.amin((1, 2, 3)) > 0) & (given.factor == 1)
        if plain.any():
            self.loss["pixels"] = float(whole[plain].mean().detach())
        return rows.mean()

    def _move(self, loss: Tensor) -> None:
        share = self.step / self.config.num_steps
        for group in self.optim.param_groups:
            warm = min(1.0, (self.step + 1) / 50)
            group["lr"] = self.config.lr * warm * max(_FLOOR, 1 - share)
        self.optim.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.encoder.parameters(), 1.0)
        self.optim.step()
        decay = min(0.995, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for kept, new in zip(self.average.parameters(), self.encoder.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)

    @torch.no_grad()
    def _fresh(self, num: int, step: int) -> dict[str, Tensor]:
        """New rows; they depend on the seed and the step alone."""
        device = torch.device("cpu")
        draw = generator(device, key(self.config.seed, "encoder", step + 1))
        z_dim, classes = self.subject.z_dim, self.subject.shape.num_classes
        target = torch.randn(num, z_dim, generator=draw)
        label = torch.randint(max(1, classes), (num,), generator=draw)
        img = self._made(target, label)
        img = (img.add(1).mul(127.5).round().clamp(0, 255) / 127.5).sub(1)
        is_pair = torch.ones(num)
        if self._real is not None:
            take = torch.rand(num, generator=draw) < self.config.real
            rows = torch.randint(len(self._real), (num,), generator=draw)
            real = self._real.images[rows].float() / 127.5 - 1
            img = torch.where(take[:, None, None, None], real, img)
            if classes and self._real.labels is not None:
                label = torch.where(take, self._real.labels[rows], label)
            is_pair = (~take).float()
        given = corrupt(img, draw)
        varied = (torch.rand(num, generator=draw) < _VARIED).float()
        start = torch.randn(num, z_dim, generator=draw) * varied[:, None]
        return {
            "img": img,
            "label": label,
            "target": target,
            "is_pair": is_pair,
            "is_varied": varied,
            "seen": given.seen,
            "mask": given.mask,
            "factor": given.factor,
            "start": start,
            "z": start.clone(),
            "made": self._made(start, label),
        }

    def _made(self, z: Tensor, label: Tensor) -> Tensor:
        made: Tensor = self.subject.G(z, label if self.subject.shape.num_classes else None)
        return made

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs."""
        return {
            "config": asdict(self.config),
            "step": self.step,
            "encoder": self.encoder.state_dict(),
            "average": self.average.state_dict(),
            "optim": self.optim.state_dict(),
            "pool": self._pool,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state` was taken."""
        self.encoder.load_state_dict(state["encoder"])
        self.average.load_state_dict(state["average"])
        self.optim.load_state_dict(state["optim"])
        self._pool = dict(state["pool"])
        self.step = int(state["step"])


class UnrolledEncoder(nn.Module):
    """All passes as one module, with bytes at both ends: what becomes encoder.onnx."""

    def __init__(self, encoder: ResidualEncoder, subject: Subject, passes: int) -> None:
        """encoder: in evaluation mode."""
        super().__init__()
        self.encoder, self.G, self.passes = encoder, subject.G, passes
        self.infers_label = subject.infers_label
        self.conditional = subject.shape.num_classes > 0

    def forward(
        self,
        image: Tensor,
        label: Tensor | None = None,
        mask: Tensor | None = None,
        start: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Image [N, H, W, C] uint8, mask [N, H, W] uint8 and start [N, z_dim] to z [N, z_dim].

        With label_scores [N, labels] where it finds the class itself; label is then FIND (-1) for
        rows whose z is of the class that was found.
        """
        assert mask is not None
        assert start is not None
        x = image.permute(0, 3, 1, 2).to(torch.float32).sub(127.5).div(127.5)
        known = (mask > 0).to(torch.float32)[:, None]
        x = x * known
        scores = self.encoder.scores(x, known) if self.infers_label else None
        if scores is not None:
            found = scores.argmax(1)
            label = found if label is None else torch.where(label < 0, found, label)
        z = start
        for _ in range(self.passes):
            z = z + self.encoder(x, self.G(z, label), known, z, label)
        return z if scores is None else (z, scores)
