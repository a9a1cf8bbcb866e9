"""Options on the command line to a dataclass, by tyro; what it refuses, in our words.

Every refusal names the option, the value given, what is allowed and the remedy. Knows no option.
"""

import contextlib
import difflib
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

import tyro

from models.networks import FAMILIES
from training.errors import ConfigError

T = TypeVar("T")
_METAVARS = {"INT": "a whole number", "FLOAT": "a number", "FLOAT FLOAT": "two numbers"}


def read(kind: type[T], words: Sequence[str], default: T, *, prog: str, description: str) -> T:
    """Reads the options.

    Args:
        kind: dataclass of what is asked for.
        words: the arguments.
        default: of that kind; every option overrides a part of it.
        prog: how the command is called, for --help and for messages.
        description: for --help.

    Raises:
        ConfigError: an option is unknown or not allowed.
        SystemExit: --help was asked for (0).
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                kind,
                args=list(words),
                default=default,
                prog=prog,
                description=description,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as error:
        if not error.code:
            raise
        refusal = _Refusal.of(said.getvalue(), list(words), list(_names(default)), prog)
        raise ConfigError(refusal.explained()) from None
    except ValueError as error:
        raise ConfigError(str(error)) from error


def nearest(word: str, known: Sequence[str]) -> str:
    """The known word that was meant, as the beginning of a remedy; empty if none is near."""
    found = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"the nearest is {found[0]}; " if found else ""


def _names(value: Any, prefix: str = "--") -> Iterator[str]:
    """The options of a dataclass and of those in it, as far as the command line has them."""
    hints = get_type_hints(type(value), include_extras=True)
    for field in fields(value):
        inner, marks = getattr(value, field.name), getattr(hints[field.name], "__metadata__", ())
        if tyro.conf.Suppress in marks:
            continue
        named = [mark.name for mark in marks if getattr(mark, "name", None) is not None]
        name = named[0] if named else field.name.replace("_", "-")
        if is_dataclass(inner) and not isinstance(inner, type):
            yield from _names(inner, f"{prefix}{name}." if name else prefix)
        else:
            yield f"{prefix}no-{name}" if inner is True else f"{prefix}{name}"


@dataclass(frozen=True)
class _Refusal:
    """Tyro's framed message, taken apart: a title, then sections with rules between."""

    title: str
    sections: list[str]
    words: list[str]
    names: list[str]
    prog: str

    @classmethod
    def of(cls, box: str, words: list[str], names: list[str], prog: str) -> "_Refusal":
        title, *lines = (line.strip(" │╭╮╰╯") for line in box.splitlines() if line.strip())
        sections = [""]
        for line in lines:
            if line.strip("─"):
                sections[-1] = f"{sections[-1]} {line}".strip()
            else:
                sections.append("")
        return cls(title.strip(" ─"), sections, words, names, prog)

    def explained(self) -> str:
        rules: dict[str, Callable[[], str | None]] = {
            "Unrecognized options": self._unknown,
            "Value error": self._malformed,
            "Invalid choice": self._no_choice,
            "Missing argument": self._no_value,
            "Required options": self._not_given,
        }
        rule = rules.get(self.title)
        return (rule() if rule else None) or self.sections[0]

    def _unknown(self) -> str:
        unknown = self.sections[0].partition(":")[2].strip().split(", ")
        options = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        if not options:
            return (
                f"{unknown[0]!r} stands alone, allowed: --options and their values, after the "
                "first word; leave it out, or write its option before it"
            )
        option = options[0].replace("_", "-")
        family, _, name = option.removeprefix("--").partition(".")
        having = [key for key, cls in FAMILIES.items() if _is_field(cls, name)]
        if family == "network" and name and having:
            mine = [known for known in self.names if known.startswith("--network.")]
            return (
                f"{option} is no option of this network, allowed: {', '.join(mine)}; "
                f"choose its family with --network {' or '.join(having)}"
            )
        if (other := _opposite(option)) in self.names:
            state = "off" if len(other) < len(option) else "on"
            return f"{option} is no option here: it is {state} already, allowed: {other}"
        near = nearest(option, self.names).removesuffix("; ") or "leave it out"
        return f"{option} is no option here, allowed: what {self.prog} --help lists; {near}"

    def _malformed(self) -> str | None:
        match = re.fullmatch(r"Error parsing (\S+): (.*)", self.sections[0])
        if match is None:
            return None
        option, reason = match[1], match[2]
        if not option.startswith("--"):  # a dataclass refuses one of its fields, and says which
            name = option.removeprefix("config.")
            field = reason.split()[0].replace("_", "-")
            return f"{name}.{reason}" + ("" if ";" in reason else f"; set --{name}.{field}")
        text = self.sections[1].partition(option)[2].strip() if len(self.sections) > 1 else ""
        metavar = next((key for key in reversed(_METAVARS) if text.startswith(key + " ")), "")
        default = re.search(r"\(default: (.*)\)$", text)
        remedy = f"its default here is {default[1]}" if default else f"see {self.prog} --help"
        allowed = _METAVARS.get(metavar, text.removesuffix(default[0]).strip() if default else text)
        return f"{option} is {self._given(option)!r}, allowed: {allowed}; {remedy}"

    def _no_choice(self) -> str | None:
        match = re.match(r"invalid choice (.*) for argument '(\S+)'\. Expected", self.sections[0])
        if match is None:
            return None
        choices = re.findall(r"'([^']*)'", self.sections[0][match.end() :])
        return f"{match[2]} is {match[1]}, allowed: {', '.join(choices)}; set {match[2]} to one"

    def _no_value(self) -> str | None:
        match = re.search(r"'(\S+)'\. Expected (\d+)", self.sections[0])
        if match is None:
            return None
        option, count = match[1], int(match[2])
        value = " ".join(["VALUE"] * count)
        few = "no value" if count == 1 else "too few values"
        return f"{option} has {few}, allowed: {count}; write {option} {value}"

    def _not_given(self) -> str | None:
        match = re.search(r"(--\S+) (?:\{None\}\|)?(\S+) (.*) \(required\)", self.sections[0])
        if match is None:
            return None
        option, metavar, about = match.groups()
        return f"{option} is not given, allowed: {metavar}: {about} Add {option} {metavar}"

    def _given(self, option: str) -> str:
        """The words after an option, as far as they are its values."""
        found: list[str] = []
        for index, word in enumerate(self.words):
            if word.replace("_", "-") == option:
                rest = self.words[index + 1 :]
                ends = (at for at, each in enumerate(rest) if each.startswith("--"))
                found = rest[: next(ends, len(rest))]
            elif word.replace("_", "-").startswith(f"{option}="):
                found = [word.partition("=")[2]]
        return " ".join(found)


def _opposite(option: str) -> str:
    """The flag that turns off what this one turns on, or the other way round."""
    group, dot, name = option.removeprefix("--").rpartition(".")
    other = name.removeprefix("no-") if name.startswith("no-") else f"no-{name}"
    return f"--{group}{dot}{other}"


def _is_field(kind: type[Any], option: str) -> bool:
    names = {field.name.replace("_", "-") for field in fields(kind)}
    return option.removeprefix("no-") in names
