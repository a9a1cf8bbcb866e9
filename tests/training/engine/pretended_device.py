"""The meta device in place of a GPU: where would a round wait for the device?

Tensors on it have shapes and no numbers, so a round of any recipe can be played there for next to
nothing. What would make a GPU's host wait shows: reading a number (`item`, `bool`, `tolist`),
operations whose shape depends on values, and copies from the host that don't say non_blocking.
"""

import contextlib
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).parents[3]
META = torch.device("meta")
_READS = ("aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero", "aten::masked_select")


class MetaGenerator:
    """Stands for a generator on the device."""

    device = META

    def manual_seed(self, seed: int) -> "MetaGenerator":
        return self


def _without_generator(draw: Callable[..., Any]) -> Callable[..., Any]:
    def drawn(*args: Any, generator: Any = None, **kwargs: Any) -> Any:
        if isinstance(generator, MetaGenerator):
            return draw(*args, **kwargs)
        return draw(*args, generator=generator, **kwargs)

    return drawn


class Waits(TorchDispatchMode):
    """Counts them: `places` has one "file:line" of the project for each."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        if name in _READS and args[0].device == META:
            self._note()
            return False if name in _READS[:2] else torch.empty((1, args[0].dim()), device=META)
        out = func(*args, **kwargs)
        if name == "aten::lift_fresh" and out.device == META:  # torch.tensor(numbers, device=...)
            self._note()
        if name in ("aten::_to_copy", "aten::copy_"):
            source = args[1] if name == "aten::copy_" else args[0]
            asks = not (kwargs.get("non_blocking", False) or True in args[2:])
            if asks and source.device != out.device:
                self._note()
        return out

    def _note(self) -> None:
        ours = [f for f in traceback.extract_stack() if Path(f.filename).is_relative_to(ROOT)]
        frame = [f for f in ours if not Path(f.filename).is_relative_to(ROOT / "tests")][-1]
        self.places.append(f"{Path(frame.filename).relative_to(ROOT)}:{frame.lineno}")


@contextlib.contextmanager
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[Waits]:
    """Lets training run on the meta device, which has neither generators nor fused kernels."""
    make, waits = torch.Generator, Waits()

    class Generator:  # a class, as annotations join it with None
        def __new__(cls, device: Any = "cpu") -> Any:
            return MetaGenerator() if torch.device(device) == META else make(device)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "Generator", Generator)
        patch.setattr(
            sys.modules["torch.optim.optimizer"],
            "_get_fused_kernels_supported_devices",
            lambda: ["meta"],
        )
        for name in ("rand", "randn", "randint"):
            patch.setattr(torch, name, _without_generator(getattr(torch, name)))
        with waits:
            yield waits
