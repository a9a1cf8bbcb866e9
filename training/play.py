"""One play of the game: a batch, the images of G, what D says of them, the gradients of that.

Differentiable throughout and free of side effects on its inputs. Knows no loss and no optimiser.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm  # every form of it, distributed ones too

from models.networks.rows import Rows
from training.sites import SITES, Site

Player = Callable[..., Any]
"""A network as a function: the module itself, or `Bound` to other parameters than its own."""


class Movable(Protocol):
    """A player whose parameters are given: a function of them."""

    def __call__(self, *args: Tensor | None, **kwargs: object) -> Any:
        """The network's output."""

    def parameters(self) -> list[Tensor]:
        """What it is a function of."""

    def moved(self, by: Sequence[Tensor]) -> "Movable":
        """The same network elsewhere. by: one for each parameter."""


class Bound:
    """A network with other parameters than its own: a pure function of them and its inputs."""

    def __init__(self, network: nn.Module, parameters: Mapping[str, Tensor]) -> None:
        """parameters: by name, as named_parameters has them; buffers stay the network's."""
        self.network = network
        self._named = dict(parameters)

    def __call__(self, *args: Tensor | None, **kwargs: object) -> Any:
        """The network's output."""
        return functional_call(self.network, self._named, args, kwargs)

    def parameters(self) -> list[Tensor]:
        """What it is bound to."""
        return list(self._named.values())

    def moved(self, by: Sequence[Tensor]) -> "Bound":
        """The same network elsewhere. by: one for each parameter."""
        places = zip(self._named.items(), by, strict=True)
        return Bound(self.network, {name: value + step for (name, value), step in places})


def parameters_of(player: Player) -> list[Tensor]:
    """The parameters that a player moves, or could move: those that require a gradient."""
    parameters: list[Tensor] = list(player.parameters())  # type: ignore[attr-defined]
    return [parameter for parameter in parameters if parameter.requires_grad]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """All that a step sees besides the parameters: data, randomness and the time."""

    real_img: Tensor
    """[N, C, H, W] float32 in [-1, 1]."""
    label: Tensor | None
    """[N] int64 of the real images, asked of the fake ones too; None for unconditional games."""
    z: Tensor
    """[N, z_dim] float32, standard normal."""
    key: int
    """Seed of any further randomness: dropout, interpolation, noise."""
    step_D: int = 0
    """Number of D's steps before this one; its terms with an interval look at it."""
    step_G: int = 0
    """Of G's, likewise."""
    cur_nimg: int = 0
    """Images shown before this step; weights with a schedule look at it."""
    augment_p: Tensor | float = 1.0
    """Probability of each augmentation, in [0, 1]: adaptive augmentation moves it."""
    rows: Rows | None = None
    """Which rows of a batch these are, if not all: they draw at random what they would there."""
    whole_img: Tensor | None = None
    """The real images of that batch."""


@dataclass(frozen=True, kw_only=True)
class Play:
    """What penalties look at."""

    D: Player
    """The discriminator."""
    batch: Batch
    """Data and randomness."""
    images: dict[Site, Tensor]
    """What D was shown: fake, real but in a step of G that doesn't need it, and sites."""
    logits: dict[Site, Tensor]
    """What it said, [N] float32."""
    gradients: dict[Site, Tensor]
    """dD/dx for the sites that were asked for, [N, C, H, W], differentiable again."""
    features: dict[Site, Tensor] = field(default_factory=dict)
    """D's last features [N, F], where they were asked for."""
    G: Player | None = None
    """The generator."""
    beside_real: Callable[[Tensor], Tensor] = lambda img: img
    """What D sees of an image of G that is compared with the real one of its row: changed at random
    as that was."""
    field: tuple[Tensor, ...] = ()
    """Where it was asked for: each player's objective by that player's own parameters."""

    @property
    def fake_img(self) -> Tensor:
        """What D saw of G's images, [N, C, H, W] float32."""
        return self.images["fake"]

    @property
    def fake_logits(self) -> Tensor:
        """[N] float32."""
        return self.logits["fake"]

    @property
    def real_logits(self) -> Tensor | None:
        """[N] float32; None in a step of G whose loss doesn't need it."""
        return self.logits.get("real")

    def gradient(self, site: Site) -> Tensor:
        """The gradient of each logit by its own image, [N, C, H, W] float32."""
        return self.gradients[site]

    @cached_property
    def reconstruction(self) -> tuple[Tensor, Tensor, Tensor]:
        """The real images through G's encoder and back: (img, mu [N, z_dim], logvar [N, z_dim])."""
        assert self.G is not None
        batch = self.batch
        img, mu, logvar = self.G(batch.z, batch.label, img=batch.real_img)
        return img.float(), mu.float(), logvar.float()


def play(
    D: Player,
    batch: Batch,
    fake_img: Tensor,
    *,
    G: Player | None = None,
    real_img: Tensor | None = None,
    whole_real: Tensor | None = None,
    gradients: Collection[Site] = (),
    features: bool = False,
    judge_real: bool = True,
    joint: bool = True,
) -> Play:
    """Lets D judge a batch.

    Args:
        D: images [N, C, H, W] and labels [N] to logits [N].
        batch: data and randomness.
        fake_img: G's images for the batch, [N, C, H, W] float32.
        G: the generator, where penalties may ask it; nothing does here.
        real_img: what D sees of the batch's real images, if not those themselves.
        whole_real: what it sees of those of the whole batch, if these are some of its rows.
        gradients: sites by whose images the logits are differentiated.
        features: keep D's last features too.
        judge_real: False where only the fake logits matter.
        joint: one pass of D over several sites' images together, which is faster. The result is the
            same only if D treats each image by itself (`rows_are_independent`).
    """
    real_img = batch.real_img if real_img is None else real_img
    images = {"real": real_img, "fake": fake_img} if judge_real else {"fake": fake_img}
    whole_real = real_img if whole_real is None else whole_real
    images |= _site_images(gradients, batch.key, real_img, fake_img, whole_real)
    images = {site: _leaf(img) if site in gradients else img for site, img in images.items()}
    logits: dict[Site, Tensor] = {}
    seen: dict[Site, Tensor] = {}
    # Only what is differentiated by its images pays for that.
    for wanted in (True, False):
        group = {site: img for site, img in images.items() if (site in gradients) == wanted}
        _judge(
            D, group, batch.label, joint=joint, logits=logits, features=seen if features else None
        )
    sites = [site for site in images if site in gradients]
    found = _input_gradients([logits[site] for site in sites], [images[site] for site in sites])
    return Play(
        G=G,
        D=D,
        batch=batch,
        images=images,
        logits=logits,
        gradients=dict(zip(sites, found, strict=True)),
        features=seen,
    )


def rows_are_independent(D: nn.Module) -> bool:
    """False where D mixes the images of a batch: real and fake images then go through it apart."""
    return not any(
        isinstance(module, _BatchNorm) or getattr(module, "mixes_rows", False)
        for module in D.modules()
    )


def _judge(
    D: Player,
    images: dict[Site, Tensor],
    label: Tensor | None,
    *,
    joint: bool,
    logits: dict[Site, Tensor],
    features: dict[Site, Tensor] | None,
) -> None:
    """Fills in logits, and features if they are wanted."""
    num = len(images)
    if joint and num > 1:
        labels = None if label is None else label.repeat(num)
        said, seen = _ask(D, torch.cat(list(images.values())), labels, features is not None)
        logits.update(zip(images, said.chunk(num), strict=True))
        if features is not None and seen is not None:
            features.update(zip(images, seen.chunk(num), strict=True))
        return
    for site, img in images.items():
        logits[site], seen = _ask(D, img, label, features is not None)
        if features is not None and seen is not None:
            features[site] = seen


def _ask(
    D: Player, img: Tensor, label: Tensor | None, with_features: bool
) -> tuple[Tensor, Tensor | None]:
    """Losses are computed in float32, whatever the network computes in."""
    if with_features:
        logits, features = D(img, label, with_features=True)
        return _full(logits), _full(features)
    return _full(D(img, label)), None


def _full(values: Tensor) -> Tensor:
    return values.float() if values.dtype == torch.bfloat16 else values


def _site_images(
    gradients: Collection[Site], key: int, real_img: Tensor, fake_img: Tensor, whole_real: Tensor
) -> dict[Site, Tensor]:
    sites = [site for site in SITES if site in gradients]
    if not sites:
        return {}
    generator = torch.Generator(real_img.device).manual_seed((key + 3) % 2**63)
    return {site: SITES[site](real_img, fake_img, generator, whole_real) for site in sites}


def _leaf(img: Tensor) -> Tensor:
    """The image, differentiable; not the caller's tensor, whose flags are the caller's."""
    return img if img.requires_grad else img.detach().requires_grad_()


def _input_gradients(logits: list[Tensor], images: list[Tensor]) -> tuple[Tensor, ...]:
    """Each logit by its own image: the gradient of their sum, as rows don't mix."""
    if not images:
        return ()
    return torch.autograd.grad([part.sum() for part in logits], images, create_graph=True)
