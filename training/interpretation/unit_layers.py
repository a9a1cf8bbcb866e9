"""The units of a generator: the channels of its feature maps, and the generator with some off."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Hook = Callable[[nn.Module, Any, Any], Any]


@dataclass(frozen=True)
class Layer:
    """The last feature maps of one size; each channel is a unit."""

    module: str
    """Name of the module that gives them."""
    channels: int
    height: int
    width: int

    @property
    def name(self) -> str:
        """The layer in words."""
        return f"{self.width}x{self.height}"


@torch.no_grad()
def unit_layers(G: nn.Module, z: Tensor, label: Tensor | None) -> list[Layer]:
    """The layers of a generator whose channels are units, the coarsest first.

    Of the maps of each size it takes those that were computed last, by a module that is used once.
    Maps of as many channels as the image has are images, not features.
    """
    found: dict[tuple[int, int], Layer] = {}
    maps: list[tuple[str, Tensor]] = []
    calls: Counter[str] = Counter()

    def note(name: str) -> Hook:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            calls[name] += 1
            if isinstance(output, Tensor) and output.ndim == 4:
                maps.append((name, output))

        return hook

    handles = [
        module.register_forward_hook(note(name)) for name, module in G.named_modules() if name
    ]
    try:
        img = G(z[:1], None if label is None else label[:1])
    finally:
        for handle in handles:
            handle.remove()
    for name, output in maps:
        if calls[name] > 1:
            continue
        channels, height, width = output.shape[1:]
        is_small = height <= img.shape[2] and width <= img.shape[3]
        if channels > img.shape[1] and height * width > 1 and is_small:
            found[height, width] = Layer(name, channels, height, width)
    return [found[size] for size in sorted(found)]


@contextlib.contextmanager
def watched(G: nn.Module, layers: list[Layer]) -> Iterator[dict[str, Tensor]]:
    """Within it, the layers' maps [N, C, h, w] of the last image are in what it gives."""
    seen: dict[str, Tensor] = {}

    def hook_of(layer: Layer) -> Hook:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            if output.shape[2:] == (layer.height, layer.width):
                seen[layer.module] = output

        return hook

    modules = dict(G.named_modules())
    handles = [modules[layer.module].register_forward_hook(hook_of(layer)) for layer in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def masked(modules: Mapping[str, nn.Module], layers: list[Layer], mask: Tensor) -> Iterator[None]:
    """Within it, units are multiplied by a mask [N, units]: 0 switches one off."""

    def hook_of(part: Tensor) -> Hook:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            return output * part[:, :, None, None].to(output.dtype)

        return hook

    handles, start = [], 0
    for layer in layers:
        part = mask[:, start : start + layer.channels]
        start += layer.channels
        module = modules[layer.module]
        handles.append(module.register_forward_hook(hook_of(part)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def num_units(layers: list[Layer]) -> int:
    """Units of all layers."""
    return sum(layer.channels for layer in layers)


def place_of(layers: list[Layer], unit: int) -> tuple[Layer, int]:
    """The layer and the channel of a unit, by its number over all layers."""
    for layer in layers:
        if unit < layer.channels:
            return layer, unit
        unit -= layer.channels
    raise IndexError(unit)
