"""A thousandth of every training, for readers who are tests: Python imports this file by itself.

`tests/pages` has this folder in PYTHONPATH, so that it acts in every program that a page starts. A
page's commands stay as they are. With HURRY=ticks only ticks are short: for a training that is
stopped soon.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOST_KIMG = 0.3


def shorter(kimg: float) -> float:
    """A thousandth, 300 images at most. What is below 1 is one already, of a run that goes on."""
    return kimg if kimg < 1 else min(kimg / 1000, MOST_KIMG)


def hurry_trainings(module: Any) -> None:
    """Makes the command line of trainings give short ones."""
    parse = module.parse

    def parsed(argv: Sequence[str], **options: Any) -> Any:
        command = parse(argv, **options)
        names = ["tick_kimg"] if os.environ.get("HURRY") == "ticks" else ["total_kimg", "tick_kimg"]
        lengths = {name: shorter(getattr(command.config, name)) for name in names}
        return replace(command, config=replace(command.config, **lengths))

    module.parse = parsed


def hurry_encoders(module: Any) -> None:
    """The same of the training of an encoder."""
    run = module.EncoderCommand.run

    def short_run(command: Any, *arguments: Any) -> Any:
        return run(replace(command, kimg=shorter(command.kimg)), *arguments)

    module.EncoderCommand.run = short_run


PATCHES: dict[str, Callable[[Any], None]] = {
    "training.cli.command": hurry_trainings,
    "training.inversion.encoder_command": hurry_encoders,
}


class Hurry:
    """Finds the modules of PATCHES as ever, and changes each when it has been loaded."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """The module's own spec; None for all others."""
        if name not in PATCHES:
            return None
        patch = PATCHES.pop(name)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        loader: Any = spec.loader
        load = loader.exec_module

        def load_and_patch(module: ModuleType) -> None:
            load(module)
            patch(module)

        loader.exec_module = load_and_patch
        return spec


sys.meta_path.insert(0, Hurry())
