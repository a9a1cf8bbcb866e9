"""The arms of the coverage benchmark: methods on one harness, and settings of their authors.

On the harness every arm plays on the same perceptrons and with the same optimiser; what a search or
a grid turns are `Knobs`. At its authors' settings an arm has their networks, optimisers, batches
and lengths, as far as the plane allows: coordinates are in units of their standard deviation.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from models.networks import Plane
from training.config.training import TrainingConfig
from training.game.regularizers import Term
from training.optim.optimizers import METHODS, OptimizerConfig
from training.optim.schedules import Schedule
from training.recipes import RECIPES

END = 0.01  # of a rate, along a cosine: what the search and the grid give every arm
EMA_KIMG = 10.0


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """What is turned."""

    lr: float = 1e-3
    """Rate of both players."""
    beta1: float = 0.0
    """Momentum of both."""
    steps_D: int = 1
    strength: float = 1.0
    """Factor on what the arm is regularised by; 1 is `Arm.options`' own."""
    width: int = 128
    """Units of each of the two hidden layers of both players."""

    @property
    def text(self) -> str:
        return " ".join(f"{name}={value:g}" for name, value in asdict(self).items())


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A method on the harness."""

    paper: str
    objective: str = "non-saturating"
    regularizers: tuple[str, ...] = ()
    method: str = "adam"
    beta1: float | None = None
    """The momentum, where it is the method itself."""
    rate: float = 1.0
    """Factor on the rate, where steps are of another length than Adam's."""
    takes_turns: bool = True
    """False where there is one step of D for one of G."""
    turns_strength: bool = False
    """True where `Knobs.strength` changes something."""
    options: Mapping[str, Any] = field(default_factory=dict)


GAN = "Goodfellow et al. 2014, arXiv:1406.2661"
PACGAN = "Lin et al. 2018, arXiv:1712.04086"
R3GAN = "Huang et al. 2024, arXiv:2501.05441"
RAGAN = "Jolicoeur-Martineau 2019, arXiv:1807.00734"
_AT_ONCE = {"update": "simultaneous"}

ARMS: dict[str, Arm] = {
    "gan": Arm(paper=GAN),
    "lsgan": Arm(paper="Mao et al. 2017, arXiv:1611.04076", objective="least-squares"),
    "wgan": Arm(
        paper="Arjovsky et al. 2017, arXiv:1701.07875",
        objective="wasserstein",
        regularizers=("clip=0.1",),
        method="rmsprop",
        turns_strength=True,
    ),
    "wgan-gp": Arm(
        paper="Gulrajani et al. 2017, arXiv:1704.00028",
        objective="wasserstein",
        regularizers=("wgan-gp=0.1",),
        turns_strength=True,
    ),
    "dragan": Arm(
        paper="Kodali et al. 2017, arXiv:1705.07215",
        regularizers=("dragan=0.1",),
        turns_strength=True,
    ),
    "sngan": Arm(
        paper="Miyato et al. 2018, arXiv:1802.05957",
        regularizers=("spectral=2",),
        turns_strength=True,
    ),
    "consensus": Arm(
        paper="Mescheder et al. 2017, arXiv:1705.10461",
        regularizers=("consensus=0.1",),
        takes_turns=False,
        turns_strength=True,
        options=_AT_ONCE,
    ),
    "unrolled": Arm(
        paper="Metz et al. 2017, arXiv:1611.02163",
        options={"unrolled_steps": 5, "unrolled_lr": 0.01},
    ),
    "optimistic": Arm(paper="Daskalakis et al. 2018, arXiv:1711.00141", method="optimistic-adam"),
    "extragradient": Arm(
        paper="Gidel et al. 2019, arXiv:1802.10551",
        takes_turns=False,
        options={"update": "extragradient"},
    ),
    "alex-gda": Arm(
        paper="Lee et al. 2024, arXiv:2402.10475",
        takes_turns=False,
        options={"update": "alternating-extrapolation"},
    ),
    "negative-momentum": Arm(paper="Gidel et al. 2019, arXiv:1807.04740", beta1=-0.5),
    "normalized-sgda": Arm(
        paper="Jelassi et al. 2022, arXiv:2210.04319",
        method="normalized-sgd-by-layer",
        rate=100.0,  # a step of Adam moves each of a layer's 16,384 weights by about the rate
    ),
    "instance-noise": Arm(
        paper="Sonderby et al. 2017, arXiv:1610.04490",
        regularizers=("instance-noise=0.3",),
        turns_strength=True,
    ),
    "lookahead": Arm(
        paper="Chavdarova et al. 2021, arXiv:2006.14567", options={"lookahead_steps": 5}
    ),
    "zero-gp": Arm(
        paper="Thanh-Tung et al. 2019, arXiv:1902.03984",
        regularizers=("zero-gp=0.1",),
        turns_strength=True,
    ),
    "wasserstein-zero-gp": Arm(
        paper="Thanh-Tung et al. 2019, arXiv:1902.03984, on the Wasserstein loss",
        objective="wasserstein",
        regularizers=("zero-gp=0.1",),
        turns_strength=True,
    ),
    "r1": Arm(
        paper="Mescheder et al. 2018, arXiv:1801.04406",
        regularizers=("r1=0.1",),
        turns_strength=True,
    ),
    "ragan": Arm(paper=f"{RAGAN}, RaSGAN", objective="relativistic-average"),
    "rpgan": Arm(paper=RAGAN, objective="relativistic"),
    "rpgan-r1": Arm(
        paper=f"{RAGAN}, with R1",
        objective="relativistic",
        regularizers=("r1=0.1",),
        turns_strength=True,
    ),
    "rpgan-r1-r2": Arm(
        paper=R3GAN,
        objective="relativistic",
        regularizers=("r1=0.1", "r2=0.1"),
        turns_strength=True,
    ),
    "pacgan-2": Arm(paper=PACGAN, options={"packing": 2}),
    "pacgan-4": Arm(paper=PACGAN, options={"packing": 4}),
}


def harness(arm: str, dataset: str, knobs: Knobs, *, kimg: float, seed: int) -> TrainingConfig:
    """An arm's game on the harness: batches of 128, rates along a cosine to a hundredth."""
    entry = ARMS[arm]
    beta1 = knobs.beta1 if entry.beta1 is None else entry.beta1
    betas = (beta1, 0.99 if METHODS[entry.method].second_moment else 0.0)
    lr = knobs.lr * entry.rate
    optim = OptimizerConfig(method=entry.method, lr=lr, betas=betas)
    terms = tuple(
        replace(term, weight=term.weight * knobs.strength)
        for term in map(Term.parse, entry.regularizers)
    )
    falling = [Schedule(target=f"optim_{p}.lr", end=END * lr, kimg=kimg, shape="cosine")
               for p in "GD"]  # fmt: skip
    falling += [Schedule(target=t.name, end=0.02 * t.weight, kimg=kimg)
                for t in terms if t.name == "instance-noise"]  # fmt: skip
    return replace(
        RECIPES[dataset].config,
        network=Plane(width_G=knobs.width, width_D=knobs.width),
        objective=entry.objective,
        regularizers=terms,
        schedules=tuple(falling),
        optim_G=optim,
        optim_D=optim,
        steps_D=knobs.steps_D,
        batch_size=128,
        ema_kimg=EMA_KIMG,
        total_kimg=kimg,
        tick_kimg=kimg,
        seed=seed,
        **entry.options,
    )


@dataclass(frozen=True, kw_only=True)
class Published:
    """An arm as its authors set it."""

    source: str
    steps_G: int
    """Of the whole training, as they trained."""
    build: Callable[[], dict[str, Any]]
    """Options of the training."""


def _pacgan(packing: int) -> dict[str, Any]:
    """G 4x400 with batch norm, D 3 maxout layers of 200x5, weights N(0, 0.02)."""
    optim = OptimizerConfig(lr=1e-4, betas=(0.8, 0.999))
    return {
        "network": Plane(
            width_G=400, depth_G=4, width_D=200, depth_D=3, batch_norm_G=True, maxout_D=5,
            init="normal",
        ),
        "objective": "non-saturating",
        "optim_G": optim,
        "optim_D": optim,
        "update": "simultaneous",
        "batch_size": 100 * packing,
        "packing": packing,
    }  # fmt: skip


def _gulrajani(regularizer: str, optim: OptimizerConfig) -> dict[str, Any]:
    """Their toy: 3x512 ReLU of He's variance, five steps of D."""
    return {
        "network": Plane(width_G=512, depth_G=3, width_D=512, depth_D=3, init="he"),
        "objective": "wasserstein",
        "regularizers": (Term.parse(regularizer),),
        "optim_G": optim,
        "optim_D": optim,
        "batch_size": 256,
        "steps_D": 5,
    }


AUTHORS: dict[str, Published] = {
    "gan": Published(
        source="Lin et al. 2018, their baseline", steps_G=400_000, build=lambda: _pacgan(1)
    ),
    "pacgan-2": Published(source=PACGAN, steps_G=400_000, build=lambda: _pacgan(2)),
    "pacgan-4": Published(source=PACGAN, steps_G=400_000, build=lambda: _pacgan(4)),
    "wgan": Published(
        source="Gulrajani et al. 2017, their toy of WGAN",
        steps_G=100_000,
        build=lambda: _gulrajani(
            "clip=0.01", OptimizerConfig(method="rmsprop", lr=5e-5, betas=(0.0, 0.9))
        ),
    ),
    "wgan-gp": Published(
        source="Gulrajani et al. 2017, their toy",
        steps_G=100_000,
        build=lambda: _gulrajani("wgan-gp=0.1", OptimizerConfig(lr=1e-4, betas=(0.5, 0.9))),
    ),
    "unrolled": Published(
        source="Metz et al. 2017, their notebook",
        steps_G=25_000,
        build=lambda: {
            "network": Plane(
                z_dim=256, width_G=128, width_D=128, activation="tanh", init="orthogonal"
            ),
            "objective": "non-saturating",
            "optim_G": OptimizerConfig(lr=1e-3, betas=(0.5, 0.999)),
            "optim_D": OptimizerConfig(lr=1e-4, betas=(0.5, 0.999)),
            "unrolled_steps": 5,
            "unrolled_lr": 1e-4,
            "unrolled_adam": True,
            "batch_size": 512,
        },
    ),
    "consensus": Published(
        source="Mescheder et al. 2017, their notebook",
        steps_G=50_000,
        build=lambda: {
            "network": Plane(z_dim=16, width_G=16, width_D=16, depth_G=4, depth_D=4, init="glorot"),
            "objective": "non-saturating",
            "regularizers": (Term.parse("consensus=10"),),
            "update": "simultaneous",
            "optim_G": OptimizerConfig(method="rmsprop", lr=1e-4, betas=(0.0, 0.9)),
            "optim_D": OptimizerConfig(method="rmsprop", lr=1e-4, betas=(0.0, 0.9)),
            "batch_size": 512,
        },
    ),
}


def authors(arm: str, dataset: str, *, share: float, seed: int) -> TrainingConfig:
    """An arm as its authors set it, for a share of their steps; the last weights, no average."""
    entry = AUTHORS[arm]
    options = {"regularizers": (), "schedules": (), "ema_kimg": 0.0, **entry.build()}
    images = options["batch_size"] * options.get("steps_D", 1)
    kimg = max(entry.steps_G * share, 1) * images / 1000
    return replace(RECIPES[dataset].config, total_kimg=kimg, tick_kimg=kimg, seed=seed, **options)
