"""The command line: [RECIPE] [--options] to one validated Command.

A recipe, or with --resume the run's own config.json, gives the defaults; every option overrides
one of them. `--network FAMILY` is read before the rest, as the family decides what options there
are.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from models.errors import RepositoryError
from models.networks import FAMILIES
from models.repository import check_name
from training.arguments import nearest, read
from training.config import TrainingConfig, from_builtins, to_builtins
from training.contradictions import check_idle
from training.distributed import World
from training.errors import CheckpointError, ConfigError, require
from training.gate import Gate, parse_gates
from training.recipes import DEFAULT, RECIPES
from training.stability.watchdog import Rescue

CONFIG = "config.json"
AUTO = Path("auto")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where a training runs and where its results go; none of it changes the game."""

    runs: Path = Path("runs")
    """Folder that gets one folder a run: config, metrics, events, samples, checkpoints, log."""
    repository: Path = Path("model-repository")
    """Folder of published models, which the server reads."""
    name: str | None = None
    """Name to publish under; the recipe's name if not given."""
    resume: Path | None = None
    """Folder of a run to continue from its last checkpoint; its config.json gives the defaults.
    auto: the newest run with these options that has not ended, or else a new one, and a signal ends
    it with 128 and its number, so that who starts it again knows that there is more to do."""
    evaluation: Literal["quick", "full", "none"] = "quick"
    """How the exported model is judged: quick (seconds: 1,000 images at most, features of a random
    network), full (10,000, features of a classifier where the data has classes) or none."""
    gate: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Publish only a model for which it holds, or exit with 8: 'coverage>=0.8', not-worse or
    not-worse:FIGURE[:MARGIN] (than CURRENT). Can be given several times; a resumed run keeps its
    own."""
    init_from: Path | None = None
    """Run or bundle whose weights a new training starts from (fine-tuning); what has another
    shape there starts anew."""
    device: str = "auto"
    """Where to compute: auto (a GPU if there is one), cpu, cuda or cuda:N."""
    dry_run: bool = False
    """Check all that can be checked without training, print the resolved configuration as JSON and
    end; downloads nothing."""
    show_list: Annotated[bool, tyro.conf.arg(name="list")] = False
    """Print recipes, objectives, regularisers and network families with their papers and end."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """All that was asked for."""

    config: Annotated[TrainingConfig, tyro.conf.arg(name="")]
    options: Annotated[Options, tyro.conf.arg(name="")] = field(default_factory=Options)
    rescues: tyro.conf.Suppress[tyro.conf.Fixed[tuple[Rescue, ...]]] = ()
    """What the watchdog has changed since the start, already in `config`."""
    asked: tyro.conf.Suppress[tyro.conf.Fixed[TrainingConfig | None]] = None
    """What the run began with, where a rescue has changed it."""

    @property
    def name(self) -> str:
        """The model's name in the repository."""
        return self.options.name or self.config.recipe

    @property
    def gates(self) -> tuple[Gate, ...]:
        """What the model must reach to be published.

        Raises:
            ConfigError: an option is no gate, or on a figure that does not exist.
        """
        return parse_gates(self.options.gate)

    def to_json(self) -> str:
        """What config.json holds: enough to run it again."""
        record = {
            "training": to_builtins(self.config),
            "name": self.name,
            "repository": str(self.options.repository),
            "evaluation": self.options.evaluation,
            "gate": self.options.gate,
            "rescues": [asdict(rescue) for rescue in self.rescues],
            "asked": None if self.asked is None else to_builtins(self.asked),
        }
        return json.dumps(record, indent=2) + "\n"

    def device(self, world: World) -> torch.device:
        """The device that --device names; of several processes, each takes a GPU of its own.

        Raises:
            ConfigError: there is no such device here.
        """
        value = self.options.device
        if value == "auto":
            value = "cuda" if torch.cuda.is_available() else "cpu"
        num_gpus = torch.cuda.device_count()
        allowed = ["auto", "cpu", *(["cuda"] if num_gpus else [])]
        allowed += [f"cuda:{index}" for index in range(num_gpus)]
        require(value in allowed, "device", value, ", ".join(allowed), "set --device")
        if value == "cuda" and world.size > 1:
            return torch.device("cuda", world.local_rank)
        one = "each process needs a GPU of its own: set --device cuda"
        require(world.size == 1 or value == "cpu" or not num_gpus, "device", value, "cuda", one)
        return torch.device(value)


def parse(argv: Sequence[str]) -> Command:
    """Reads the arguments.

    Raises:
        ConfigError: an option is unknown or not allowed.
        CheckpointError: --resume names no run.
        SystemExit: --help was asked for (0).
    """
    words = list(argv)
    recipe = words.pop(0) if words and not words[0].startswith("-") else None
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    early.add_argument("--network", nargs="?")
    early.add_argument("--resume", nargs="?", type=Path)
    known, _ = early.parse_known_args(words)
    is_named = known.resume not in (None, AUTO)
    default = resumed(known.resume, recipe) if is_named else _fresh(recipe or DEFAULT)
    if known.network is not None:
        default = _with_family(default, known.network)
        words = _without(words, "--network")
    command = _read(words, default)
    check_idle(command.config, default.config)
    _check_name(command.name)
    parse_gates(command.options.gate)
    return command


def _fresh(recipe: str) -> Command:
    remedy = f"{nearest(recipe, list(RECIPES))}--list explains them"
    require(recipe in RECIPES, "RECIPE", recipe, ", ".join(RECIPES), remedy)
    return Command(config=RECIPES[recipe].config)


def resumed(run: Path, recipe: str | None) -> Command:
    """What a run's own config.json says.

    Raises:
        CheckpointError: it can't be read, or is of another recipe.
    """
    path = run / CONFIG
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        training, name, repository = record["training"], record["name"], record["repository"]
        rescues = tuple(Rescue(**rescue) for rescue in record.get("rescues", ()))
        began = record.get("asked")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"resume is {str(run)!r}, allowed: the folder of an earlier run, but {path} can't be "
            f"read ({error}); name a folder under runs/"
        ) from error
    config = from_builtins(training, str(path))
    if recipe not in (None, config.recipe):
        raise CheckpointError(
            f"RECIPE is {recipe!r}, the run {run} is of {config.recipe!r}; leave the recipe out "
            "to resume, or start a new run without --resume"
        )
    # A run of before there were gates has none; its other options stand.
    evaluation, gate = record.get("evaluation", "quick"), tuple(record.get("gate", ()))
    options = Options(
        name=name, repository=Path(repository), resume=run, evaluation=evaluation, gate=gate
    )
    asked = None if began is None else from_builtins(began, str(path))
    return Command(config=config, options=options, rescues=rescues, asked=asked)


def _with_family(command: Command, name: str) -> Command:
    known = ", ".join(FAMILIES)
    require(name in FAMILIES, "network", name, known, "its options are --network.OPTION")
    if name == command.config.network.name:
        return command
    return replace(command, config=replace(command.config, network=FAMILIES[name]()))


def _without(words: list[str], option: str) -> list[str]:
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == option:
            next(rest, None)
        elif not word.startswith(f"{option}="):
            kept.append(word)
    return kept


def _read(words: list[str], default: Command) -> Command:
    family = default.config.network.name
    description = (
        f"Recipe {default.config.recipe!r}; others: {', '.join(RECIPES)}. The network family is "
        f"{family!r}; choose another with --network {{{','.join(FAMILIES)}}}."
    )
    return read(
        Command, words, default, prog="python -m training.run [RECIPE]", description=description
    )


def _check_name(name: str) -> None:
    try:
        check_name(name)
    except RepositoryError as error:
        raise ConfigError(f"name: {error}; set --name") from error
