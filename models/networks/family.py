"""What a family of networks is, and the registry that families enter by decorator."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar, runtime_checkable

from torch import nn


@dataclass(frozen=True, kw_only=True)
class ImageShape:
    """What the networks see and make."""

    resolution: int
    """Height and width in pixels."""
    channels: int
    """1 (grey) or 3 (RGB)."""
    num_classes: int = 0
    """0 for unconditional networks."""

    def __post_init__(self) -> None:
        """Refuses shapes that no family could make."""
        if self.channels not in (1, 3):
            raise ValueError(f"channels is {self.channels}, allowed are 1 (grey) and 3 (RGB)")
        if self.resolution < 1:
            raise ValueError(f"resolution is {self.resolution}, must be at least 1")
        if self.num_classes < 0:
            raise ValueError(f"num_classes is {self.num_classes}, must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class Family:
    """Base of the families: options in fields, both players by methods."""

    name: ClassVar[str]

    z_dim: int = 128
    """Width of the latent."""

    def __post_init__(self) -> None:
        """Refuses options that make no network."""
        if self.z_dim < 1:
            raise ValueError(f"z_dim is {self.z_dim}, must be at least 1")

    def check(self, shape: ImageShape) -> None:
        """Raises ValueError where the family can't make this shape; it names what it can."""

    def generator(self, shape: ImageShape) -> nn.Module:
        """A freshly initialised G."""
        raise NotImplementedError

    def discriminator(self, shape: ImageShape) -> nn.Module:
        """A freshly initialised D."""
        raise NotImplementedError


@runtime_checkable
class Growing(Protocol):
    """A network that changes with the training's progress; 1 is its final form.

    Nothing about it is stored: it follows from how many images were shown.
    """

    def set_progress(self, progress: float) -> None:
        """progress: share of the training that is done, in [0, 1]."""
        ...


FAMILIES: dict[str, type[Family]] = {}

F = TypeVar("F", bound=type[Family])


def family(name: str) -> Callable[[F], F]:
    """Enters a family into FAMILIES under a name."""

    def enter(cls: F) -> F:
        if name in FAMILIES:
            raise ValueError(f"the family {name!r} is registered already")
        cls.name = name
        FAMILIES[name] = cls
        return cls

    return enter
