"""Names of a network's weights by resolution, so that networks of two sizes can be compared.

A D counts its blocks from the image on: the second block of one for 64 pixels does what the third
of one for 128 does. Here a number in a name is replaced by the sizes of the maps that the module
takes and gives, which a run without data, on torch's meta device, tells of any network.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from models.networks import Family, ImageShape

_NUM_ROWS = 4  # a minibatch standard deviation needs several
_Sizes = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Renamed:
    """Names of one network's weights by those of the same network at another resolution."""

    own: Mapping[str, str]
    """Modules of the network in training, by what they are at which resolution."""
    other: Mapping[str, str]
    """Modules of the network that the weights are from, likewise."""

    def source_of(self, name: str) -> str | None:
        """The other network's weight for one of this network; None where it has none."""
        module, rest = _split(name, self.own)
        if module is None:
            return name
        places = {place: path for path, place in self.other.items()}
        found = places.get(self.own[module])
        return None if found is None else f"{found}{rest}"


def renamed(network: Family, player: str, shape: ImageShape, resolution: Any) -> Renamed:
    """Compares a player's network with the same one at another resolution.

    Args:
        network: the family, with its options.
        player: "G" or "D".
        shape: of the images in this training.
        resolution: that of the other one.

    Raises:
        ValueError: the family makes no network of that resolution.
    """
    other = replace(shape, resolution=resolution)
    return Renamed(own=_places(network, player, shape), other=_places(network, player, other))


def _places(network: Family, player: str, shape: ImageShape) -> dict[str, str]:
    """What each module with a number in its name is, and each that has weights of its own."""
    with torch.random.fork_rng(devices=[]):
        module = network.generator(shape) if player == "G" else network.discriminator(shape)
    sizes = _sizes_in(module.eval().to("meta"), network, player, shape)
    found: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for path, part in module.named_modules():
        own = any(True for _ in part.parameters(recurse=False))
        own = own or any(True for _ in part.buffers(recurse=False))
        if path and own:
            found[path] = _place(path, sizes)
    # Two modules of a kind and size in one list are told apart by their order.
    for path, place in found.items():
        seen[place] += 1
        found[path] = f"{place} #{seen[place]}"
    return found


def _place(path: str, sizes: _Sizes) -> str:
    words, made = path.split("."), []
    for index, word in enumerate(words):
        size = sizes.get(".".join(words[: index + 1]))
        made.append(f"[{size}]" if word.isdigit() and size else word)
    return ".".join(made) + (f" at {sizes[path]}" if path in sizes else "")


def _sizes_in(module: nn.Module, network: Family, player: str, shape: ImageShape) -> _Sizes:
    """The sizes of the maps that go into and come out of each module; those without are left out.

    module: on the meta device, where running it costs nothing.
    """
    sizes: _Sizes = {}

    def hook(path: str) -> Any:
        def note(_: nn.Module, given: tuple[Any, ...], result: Any) -> None:
            first = next((each for each in given if isinstance(each, Tensor)), None)
            came, went = _size(first), _size(result)
            if came or went:
                sizes.setdefault(path, f"{came} to {went}")

        return note

    for path, part in module.named_modules():
        part.register_forward_hook(hook(path))
    label = torch.zeros(_NUM_ROWS, dtype=torch.int64, device="meta") if shape.num_classes else None
    with torch.no_grad():
        if player == "G":
            module(torch.zeros(_NUM_ROWS, network.z_dim, device="meta"), label)
        else:
            size = (_NUM_ROWS, shape.channels, shape.height, shape.width)
            module(torch.zeros(size, device="meta"), label)
    return sizes


def _size(tensor: Any) -> str:
    if not isinstance(tensor, Tensor) or tensor.ndim != 4:
        return ""
    return "x".join(map(str, tensor.shape[2:]))


def _split(name: str, modules: Mapping[str, str]) -> tuple[str | None, str]:
    """A weight's module, and the rest of its name; a constraint may put more into its module."""
    for match in reversed(list(re.finditer(r"\.", name))):
        if name[: match.start()] in modules:
            return name[: match.start()], name[match.start() :]
    return None, name
