"""The command line of training.run: [RECIPE] [--options] to one validated Command.

The defaults are the recipe's or, with --resume, those in the run's config.json; each option
replaces one of them. `--network FAMILY` is read before the other options, since the family decides
which options exist.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from models.errors import RepositoryError
from models.networks import FAMILIES
from models.repository import check_name
from training.cli.arguments import nearest, peek, read
from training.cli.paths import PLACES, found_again, name_of, places, with_absolute
from training.config.compute import device_names
from training.config.rules import check_idle
from training.config.training import TrainingConfig, from_builtins, to_builtins
from training.data.sources import DATASETS
from training.engine.distributed import World
from training.errors import CheckpointError, ConfigError, require
from training.evaluation.gates import Gate, parse_gates
from training.finite_json import as_json
from training.recipes import DEFAULT, RECIPES
from training.watchdog.watchdog import Rescue

CONFIG = "config.json"
AUTO = Path("auto")
PROG = "python -m training.run"
MAX_DIRECTIONS = 256
RECORDED = ("directions", "evaluate_kimg", "keep", "select", "stability_kimg", "track")
"""Options in config.json that runs of earlier releases don't have there."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where a training runs and where its results go. None of these changes what is learned."""

    runs: Path = Path("runs")
    """Folder that gets one folder a run: config, metrics, events, samples, checkpoints, log."""
    repository: Path = Path("model-repository")
    """Folder of published models, which the server reads."""
    name: str | None = None
    """Name to publish under; if not given, the name of the folder of your own images, or the
    recipe's."""
    resume: Path | None = None
    """Folder of a run to continue from its last checkpoint; its config.json gives the defaults.
    auto: continue the newest unfinished run with these options, or start a new one; a signal then
    ends with exit code 128 plus its number, so that whatever restarts the job knows that it isn't
    done."""
    evaluation: Literal["quick", "full", "none"] = "quick"
    """How the exported model is evaluated: quick (seconds: 1,000 images at most, features of a
    random network), full (10,000 images, features of a classifier where the data has classes) or
    none."""
    evaluate_kimg: float | None = None
    """Thousands of images from one look at the quality of the images to the next (figures of the
    averaged generator, at the end of a tick); by default about 20 looks, in 3 % of the time at
    most; 0 for none."""
    stability_kimg: float = 0.0
    """Thousands of images from one measurement of the game's stability to the next, at the end of a
    tick (sizes of the field, its angle with the way so far, condition number of dG/dz), in 3 % of
    the time at most; 0 for none."""
    keep: str = "best,last"
    """Checkpoints to keep: last (the newest two), best (of the best look), and a number of them
    spread over the training, as in best,last,10."""
    select: str = "last"
    """What is exported at the end: last, best (by the looks' Frechet distance), or the best by one
    figure: frechet_distance, kernel_distance, precision, recall, coverage; of points good_points,
    gaussians, gaussians_reverse_kl."""
    directions: int | None = None
    """Directions of the latent space that the export looks for, with evidence of what they change;
    0 for none. By default 16, and none after a training of less than 3 kimg, or where the pixels of
    an image times the width of a latent are more than 2 million (64x64 with 512)."""
    track: tuple[str, ...] = ("tensorboard",)
    """Where numbers and pictures are shown while it trains: tensorboard, wandb, mlflow."""
    metrics_port: int = 0
    """Port at which Prometheus reads the metrics of the training, GET /metrics; 0 for none."""
    metrics_host: str = "127.0.0.1"
    """Address on which that port listens: in a container 0.0.0.0, all of its addresses."""
    gate: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Publish the model only if this condition holds, else exit with 8: 'coverage>=0.8', not-worse
    or not-worse:FIGURE[:MARGIN] (than CURRENT). Can be given several times; a resumed run keeps its
    gates."""
    init_from: Path | None = None
    """Run or bundle whose weights a new training starts from (fine-tuning); weights of another
    shape start at random."""
    device: str = "auto"
    """Where to compute: auto (a GPU if there is one), cpu, cuda or cuda:N."""
    dry_run: bool = False
    """Check everything that can be checked without training, print the resolved configuration as
    JSON and exit; downloads nothing."""
    show_list: Annotated[bool, tyro.conf.arg(name="list")] = False
    """Print recipes, objectives, regularisers and network families with their papers and exit."""
    short: bool = False
    """With --list: the recipes alone, a line each."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A training's configuration, and where it runs and publishes."""

    config: Annotated[TrainingConfig, tyro.conf.arg(name="")]
    options: Annotated[Options, tyro.conf.arg(name="")] = field(default_factory=Options)
    rescues: tyro.conf.Suppress[tyro.conf.Fixed[tuple[Rescue, ...]]] = ()
    """The watchdog's rescues so far; `config` has their changes already."""
    original: tyro.conf.Suppress[tyro.conf.Fixed[TrainingConfig | None]] = None
    """The configuration before the first rescue; None where there was no rescue."""

    @property
    def name(self) -> str:
        """The name to publish under: --name, or the data folder's, or else the recipe's."""
        return self.options.name or self._folder_name or self.config.recipe

    @property
    def _folder_name(self) -> str | None:
        data = self.config.data
        is_own = data.path is not None and DATASETS[data.dataset].own
        return name_of(data.path) if is_own and data.path is not None else None

    @property
    def gates(self) -> tuple[Gate, ...]:
        """The conditions that --gate sets for publishing.

        Raises:
            ConfigError: a gate can't be parsed, or names a figure that does not exist.
        """
        return parse_gates(self.options.gate)

    def to_json(self, run: Path | None = None) -> str:
        """The content of config.json, which `resumed` reads back.

        run: the folder that the file is written into; with it, the record has the run's places.
        """
        record: dict[str, Any] = {
            "training": to_builtins(self.config),
            "name": self.name,
            "repository": str(self.options.repository),
            "evaluation": self.options.evaluation,
            "gate": self.options.gate,
            **{name: getattr(self.options, name) for name in RECORDED},
            "rescues": [asdict(rescue) for rescue in self.rescues],
            "asked": None if self.original is None else to_builtins(self.original),
        }
        record = with_absolute(record)
        if run is not None:
            record[PLACES] = places(record, run)
        return as_json(record) + "\n"

    def device(self, world: World) -> torch.device:
        """The device that --device names. With several processes each one gets its own GPU.

        Raises:
            ConfigError: this machine has no such device.
        """
        value = self.options.device
        if value == "auto":
            value = "cuda" if torch.cuda.is_available() else "cpu"
        names = device_names()
        require(value in names, "device", value, ", ".join(["auto", *names]), "set --device")
        if value == "cuda" and world.size > 1:
            return torch.device("cuda", world.local_rank)
        one = "each process needs a GPU of its own: set --device cuda"
        is_shared = world.size > 1 and value.startswith("cuda:")
        require(not is_shared, "device", value, "cuda", one)
        return torch.device(value)


def parse(argv: Sequence[str], *, prog: str = PROG) -> Command:
    """Parses and checks the arguments of training.run; prog: how it was called.

    Raises:
        ConfigError: an option is unknown or not allowed.
        CheckpointError: --resume names a folder that holds no run.
        SystemExit: --help was asked for (0), or tyro refused an argument (2).
    """
    words = list(argv)
    recipe = words.pop(0) if words and not words[0].startswith("-") else None
    resume, family = peek(words, "--resume"), peek(words, "--network")
    if resume is None or Path(resume) == AUTO:
        default = _fresh(recipe or DEFAULT)
    else:
        default = resumed(Path(resume), recipe)
    if family is not None:
        default = _with_family(default, family)
        words = _without(words, "--network")
    command = _read(words, default, prog)
    check_idle(command.config, default.config)
    _check_name(command.name)
    parse_gates(command.options.gate)
    every = command.options.evaluate_kimg
    allowed, remedy = "a finite number, 0 or more", "0 never looks at the images"
    num = command.options.directions
    fits = num is None or 0 <= num <= MAX_DIRECTIONS
    require(fits, "directions", num, f"0 .. {MAX_DIRECTIONS}", "0 looks for none")
    fits = every is None or (math.isfinite(every) and every >= 0)
    require(fits, "evaluate_kimg", every, allowed, remedy)
    every = command.options.stability_kimg
    fits = math.isfinite(every) and every >= 0
    require(fits, "stability_kimg", every, allowed, "0 measures nothing")
    is_used = not command.options.short or command.options.show_list
    require(is_used, "short", True, "beside --list", "add --list, or leave --short out")
    return command


def _fresh(recipe: str) -> Command:
    remedy = f"{nearest(recipe, list(RECIPES))}--list explains them"
    require(recipe in RECIPES, "RECIPE", recipe, ", ".join(RECIPES), remedy)
    return Command(config=RECIPES[recipe].config)


def resumed(run: Path, recipe: str | None) -> Command:
    """The command that a run's config.json holds.

    Args:
        run: the run's folder.
        recipe: the recipe on the command line; None where it was left out.

    Raises:
        CheckpointError: config.json can't be read, or is of another recipe.
    """
    path = run / CONFIG
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        record = found_again(record, run)
        training, name, repository = record["training"], record["name"], record["repository"]
        rescues = tuple(Rescue(**rescue) for rescue in record.get("rescues", ()))
        original = record.get("asked")  # absent in runs of before there were rescues
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
    # Runs of before there were gates have neither of these.
    evaluation, gate = record.get("evaluation", "quick"), tuple(record.get("gate", ()))
    recorded = {name: _tupled(record[name]) for name in RECORDED if name in record}
    options = Options(
        name=name,
        repository=Path(repository),
        resume=run,
        evaluation=evaluation,
        gate=gate,
        **recorded,
    )
    return Command(
        config=config,
        options=options,
        rescues=rescues,
        original=None if original is None else from_builtins(original, str(path)),
    )


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _with_family(command: Command, name: str) -> Command:
    known = ", ".join(FAMILIES)
    require(name in FAMILIES, "network", name, known, "its options are --network.OPTION")
    if name == command.config.network.name:
        return command
    return replace(command, config=replace(command.config, network=FAMILIES[name]()))


def _without(words: list[str], option: str) -> list[str]:
    """The words without an option and its value."""
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == option:
            next(rest, None)
        elif not word.startswith(f"{option}="):
            kept.append(word)
    return kept


def _read(words: list[str], default: Command, prog: str) -> Command:
    family = default.config.network.name
    description = (
        f"Recipe {default.config.recipe!r}; others: {', '.join(RECIPES)}. The network family is "
        f"{family!r}; choose another with --network {{{','.join(FAMILIES)}}}."
    )
    return read(Command, words, default, prog=f"{prog} [RECIPE]", description=description)


def _check_name(name: str) -> None:
    try:
        check_name(name)
    except RepositoryError as error:
        raise ConfigError(f"name: {error}; set --name") from error
