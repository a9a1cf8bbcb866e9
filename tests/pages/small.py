"""What a page's command becomes, so that it takes a second: the same program with smaller amounts.

Nothing is left out: options are added behind those of the page, and of two the last one counts.
A training is checked by its own --dry-run, or, where PAGES_TRAIN says how it is evaluated, is done
with a network of four channels for 64 images.
"""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import saddlepoint

SIZES = (
    "--network.ngf",
    "4",
    "--network.ndf",
    "4",
    "--batch-size",
    "16",
    "--data.resolution",
    "16",
)
SHORT = ("--total-kimg", "0.064", "--tick-kimg", "0.032")
LONGER = ("--total-kimg", "20", "--tick-kimg", "0.032")
RESUMED = "0.2"
GATE_FAILED = 8
FOUND = 1
"""Exit code of an audit that found something."""


@dataclass(frozen=True)
class Change:
    """A command as it is run."""

    words: tuple[str, ...]
    accepts: tuple[int, ...] = (0,)
    """Exit codes that are no failure: what the page says may happen."""
    serves: bool = False
    """It is a server, which goes on in the background; the page's next command is asked of it."""
    stops_at: str | None = None
    """Ctrl-C once such a file has a line."""


BY_MODULE = {
    "training.evaluate": ("--num-images", "100", "--features", "random"),
    "training.stability spectrum": ("--batches", "1", "--num", "1", "--batch-size", "4"),
    "training.stability exponent": ("--rounds", "8", "--block", "2"),
    "training.stability gamma": ("--num", "1", "--batch-size", "4"),
    "training.stability path": ("--points", "3", "--batch-size", "8"),
    "training.interpretation directions": ("--num", "2", "--latents", "4"),
    "training.interpretation units": ("--num-images", "16"),
}
ACCEPTED = {"training.evaluate": (0, GATE_FAILED), "training.data": (0, FOUND)}


def changed(program: str, words: Sequence[str]) -> tuple[str, Change]:
    """The module or script that a program of .venv/bin runs, and its arguments made small.

    Args:
        program: python, saddlepoint or torchrun.
        words: its arguments.
    """
    rest = list(words)
    if program == "torchrun":  # the launcher's own options are torch's; one process is enough
        rest = rest[rest.index("-m") :]
    elif program == "saddlepoint":
        module = saddlepoint.COMMANDS[rest[0]].module.removesuffix(".__main__")
        change = _smaller(module, rest[1:])
        return "saddlepoint", Change((rest[0], *change.words), *_rest(change))
    if rest[0] != "-m":
        is_measurement = rest[0].startswith("benchmarks/")  # hours: its options are read
        return rest[0], Change((*rest[1:], *(["--help"] if is_measurement else [])))
    return rest[1], _smaller(rest[1], rest[2:])


def _rest(change: Change) -> tuple[tuple[int, ...], bool, str | None]:
    return change.accepts, change.serves, change.stops_at


def _smaller(module: str, words: list[str]) -> Change:
    accepts = ACCEPTED.get(module, (0,))
    if module == "serving.bulk":
        return Change((*words, *_bulk(words)))
    if {"--help", "--list", "--dry-run"} & set(words):
        return Change(tuple(words), accepts)
    if module == "training.run":
        return _training(words)
    if module == "serving.run":
        return Change((*words, "--port", os.environ["PAGES_PORT"]), serves=True)
    if module == "serving.client":
        return Change((*words, *_client(words)))
    more = BY_MODULE.get(module) or BY_MODULE.get(f"{module} {words[0]}", ())
    return Change((*words, *more), accepts)


def _training(words: list[str]) -> Change:
    if "PAGES_TRAIN" not in os.environ:
        # Thousands of emoji are drawn even for that, of a font that isn't everywhere.
        return Change((*words, "--help" if words[0] == "emoji" else "--dry-run"))
    if "--resume" in words:
        return Change((*words, "--total-kimg", RESUMED), (0, GATE_FAILED))
    if shlex.join(words).endswith(os.environ.get("PAGES_STOP", "\0")):
        return Change((*words, *SIZES, *LONGER), (130,), stops_at="runs/00001-*/metrics.jsonl")
    return Change((*words, *SIZES, *SHORT, "--evaluation", os.environ["PAGES_TRAIN"]))


def _client(words: list[str]) -> list[str]:
    url = ["--url", f"http://127.0.0.1:{os.environ['PAGES_PORT']}"]
    if words[0] in ("generate", "interpolate"):
        return [*url, "--force"]  # pages make the same file in several ways
    return [*url, "--duration", "0.2"] if words[0] == "load" else url


def _bulk(words: list[str]) -> list[str]:
    few = ["--seeds", "0-19"] if "--seeds" in words else []
    return [*few, "--dry-run"] if "--ray" in words else few  # `auto` needs a cluster of Ray's
