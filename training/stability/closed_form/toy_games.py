"""Two-player games with one or two parameters each, played by the losses that train networks.

Expectations over normal distributions are means over few points with the same moments, so that the
Jacobians are exact: six points have those of N(0, 1) up to the fifth. f(t) = -log(1 + e^-t) is the
logistic objective's, c = f'(0) = 1/2, f''(0) = -1/4; the Wasserstein objective has c = 1, f'' = 0.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from training.game.forward import Batch
from training.game.losses import Game, ImageTransform
from training.game.regularizers import Term
from training.optim.unrolled import descent
from training.stability.field import VectorField, loss_on

NORMAL_POINTS = (0.0, 0.0, 0.0, 0.0, math.sqrt(3), -math.sqrt(3))
"""Equal weights; moments 1 to 5 are 0, 1, 0, 3, 0, as N(0, 1) has them (Gauss-Hermite, n = 3)."""


class Point(nn.Module):
    """G: a point theta, whatever the latent."""

    def __init__(self, theta: float = 0.0) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(theta, dtype=torch.float64))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """[N, z_dim] to [N, 1, 1, 1]."""
        return self.theta.expand(len(z), 1, 1, 1)


class Slope(nn.Module):
    """D(x) = psi x."""

    def __init__(self, psi: float = 0.0) -> None:
        super().__init__()
        self.psi = nn.Parameter(torch.tensor(psi, dtype=torch.float64))

    def forward(
        self, img: Tensor, label: Tensor | None = None, *, with_features: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """[N, C, 1, 1] to [N]: psi times the sum; with features also the image, [N, C]."""
        logits = self.psi * img.flatten(1).sum(1)
        return (logits, img.flatten(1)) if with_features else logits


class Width(nn.Module):
    """G(z) = a z."""

    def __init__(self, a: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """[N, 1] to [N, 1, 1, 1]."""
        return (self.a * z).view(-1, 1, 1, 1)


class Square(nn.Module):
    """D(x) = w x^2."""

    def __init__(self, w: float = 0.0) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=torch.float64))

    def forward(self, img: Tensor, label: Tensor | None = None) -> Tensor:
        """[N, 1, 1, 1] to [N]."""
        return self.w * img.flatten(1).square().sum(1)


class Shift(nn.Module):
    """G(z) = theta + s z in the plane."""

    def __init__(self, mean: tuple[float, float], spread: float) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(mean, dtype=torch.float64))
        self.spread = spread

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """[N, 2] to [N, 1, 1, 2]."""
        return (self.theta + self.spread * z).view(-1, 1, 1, 2)


class Plane(nn.Module):
    """D(x) = psi^T x in the plane."""

    def __init__(self) -> None:
        super().__init__()
        self.psi = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, img: Tensor, label: Tensor | None = None) -> Tensor:
        """[N, 1, 1, 2] to [N]."""
        return img.flatten(1) @ self.psi


class Hollow(nn.Module):
    """D(x) = x^2/4 - y x: a D that wants G away from 0."""

    def __init__(self) -> None:
        super().__init__()
        self.y = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, img: Tensor, label: Tensor | None = None) -> Tensor:
        """[N, 1, 1, 1] to [N]."""
        x = img.flatten(1).sum(1)
        return x.square() / 4 - self.y * x


@dataclass(frozen=True, kw_only=True)
class ToyGame:
    """A toy at its equilibrium."""

    objective: str = "minimax"
    """Entry of OBJECTIVES."""
    terms: tuple[str, ...] = ()
    """Penalties, as on the command line."""
    G: Callable[[], nn.Module] = Point
    """Makes G at the equilibrium."""
    D: Callable[[], nn.Module] = Slope
    """Makes D at the equilibrium."""
    real: Tensor = field(default_factory=lambda: torch.zeros(6, 1, 1, 1, dtype=torch.float64))
    """The data, [N, ...]."""
    z: Tensor = field(default_factory=lambda: torch.zeros(6, 1, dtype=torch.float64))
    """The latents, [N, z_dim]."""
    noise: float = 0.0
    """Standard deviation of instance noise, six points instead of draws."""
    packing: int = 1
    """Images that D judges at once."""
    unrolled_steps: int = 0
    """Steps of D that G looks ahead."""
    unrolled_lr: float = 0.0
    """Their size."""

    def field(self) -> VectorField:
        """Returns the game's vector field, standing at the equilibrium."""
        transforms: tuple[ImageTransform, ...] = (self._noisy,) if self.noise else ()
        terms = tuple(Term.parse(term) for term in self.terms)
        game = Game(self.objective, terms, joint=True, transforms=transforms, packing=self.packing)
        batch = Batch(real_img=self.real, label=None, z=self.z, key=0)
        loss = loss_on(
            game,
            batch,
            unrolled_steps=self.unrolled_steps,
            unrolled_move=lambda: descent(self.unrolled_lr),
        )
        return VectorField(loss, self.G(), self.D())

    def _noisy(self, img: Tensor, batch: Batch, seed: int) -> Tensor:
        points = torch.tensor(NORMAL_POINTS, dtype=img.dtype).view(-1, 1, 1, 1)
        return img + self.noise * points


def dirac(*terms: str, **options: Any) -> ToyGame:
    """The Dirac-GAN (Mescheder et al. 2018, sec. 2): data at 0, G = theta, D(x) = psi x.

    terms: penalties. options: of ToyGame.
    """
    return ToyGame(terms=terms, **options)


def linear_quadratic(*terms: str, objective: str, spread: float = 1.0) -> ToyGame:
    """The width of a normal: x ~ N(0, s^2), G = a z, D = w x^2 (Nagarajan and Kolter 2017, 4.2)."""
    points = torch.tensor(NORMAL_POINTS, dtype=torch.float64)
    return ToyGame(
        objective=objective,
        terms=terms,
        G=lambda: Width(spread),
        D=Square,
        real=spread * points.view(-1, 1, 1, 1),
        z=points.view(-1, 1),
    )


def gaussian_mean(mean: tuple[float, float], spread: float) -> ToyGame:
    """The mean of a normal in the plane, D linear, minimax: x ~ N(mean, spread^2 I)."""
    # Four points with mean 0 and covariance I.
    corners = math.sqrt(2) * torch.tensor(
        [(1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0)], dtype=torch.float64
    )
    real = torch.tensor(mean, dtype=torch.float64) + spread * corners
    return ToyGame(G=lambda: Shift(mean, spread), D=Plane, real=real.view(-1, 1, 1, 2), z=corners)


def not_nash() -> ToyGame:
    """Min over x, max over y of -x^2/4 + x y - y^2/2: stable, and 0 is a maximum for x.

    A Wasserstein game with D(x) = x^2/4 - y x, whose R1 of weight 1 is y^2/2.
    """
    return ToyGame(objective="wasserstein", terms=("r1=1",), D=Hollow)
