"""Reads the options of a command line into a dataclass, with tyro.

Every message about a wrong option names the option, the value given, what is allowed and the
remedy. This module knows no option of training. It relies on `tyro._errors`, which reports parse
failures as objects, and on the function that writes the help of an option. tyro may change them in
any release: pyproject.toml pins the release, and
`tests/training/cli/test_arguments.py` fails where another one differs.
"""

import argparse
import contextlib
import difflib
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

import tyro
from tyro import _arguments as tyro_arguments
from tyro import _errors as tyro_errors
from tyro import _fmtlib as tyro_format

from models.networks import FAMILIES
from training.errors import ConfigError
from training.stdout import ClosedPipeIgnored

T = TypeVar("T")
_METAVARS = {"INT": "a whole number", "FLOAT": "a number", "FLOAT FLOAT": "two numbers"}
_OR_NONE = "{None}|"  # how tyro's metavars begin where None may be given, too


def read(kind: type[T], words: Sequence[str], default: T, *, prog: str, description: str) -> T:
    """Reads the options.

    Args:
        kind: dataclass that the options fill.
        words: the arguments.
        default: an instance of that dataclass; each option replaces one of its values.
        prog: how the command is called, for --help and for messages.
        description: for --help.

    Raises:
        ConfigError: an option is unknown or not allowed.
        SystemExit: 0 after --help; 2 after a message of tyro's own, for a failure that has no
            message here.
    """
    messages = _Messages(words=list(words), names=list(_names(default)), prog=prog)

    def refuse(event: tyro_errors.ParseErrorEvent) -> None:
        if message := messages.of(event):
            raise ConfigError(message) from None

    with tyro_errors.on_parse_error(refuse), _negative_help(), ClosedPipeIgnored():
        return tyro.cli(
            kind,
            args=_without_none(words, default),
            default=default,
            prog=prog,
            description=description,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    raise SystemExit(0)  # nobody read --help to its end


@contextlib.contextmanager
def _negative_help() -> Iterator[None]:
    """Within the block the help of a flag such as --no-conditional says that it turns off."""
    original = tyro_arguments.generate_argument_helptext

    def helptext(
        arg: tyro_arguments.ArgumentDefinition,
        lowered: tyro_arguments.LoweredArgumentDefinition,
        compact: bool = False,
    ) -> Any:
        text = original(arg, lowered, compact)
        is_negative = lowered.action == "store_false"
        return tyro_format.text("Turns off:", text, delimiter=" ") if is_negative else text

    tyro_arguments.generate_argument_helptext = helptext
    try:
        yield
    finally:
        tyro_arguments.generate_argument_helptext = original


def _without_none(words: Sequence[str], default: Any) -> list[str]:
    """The words with `--option none` as `--option`, where the option takes any number of values.

    Messages write an empty list as none.
    """
    lists = {name for name, value in _values(default) if isinstance(value, tuple)}
    kept: list[str] = []
    for index, word in enumerate(words):
        option, equals, value = word.replace("_", "-").partition("=")
        last = kept[-1].replace("_", "-") if kept else ""
        follows = index + 1 < len(words) and not words[index + 1].startswith("-")
        if option in lists and equals and value == "none":
            kept.append(option)
        elif word != "none" or last not in lists or follows:
            kept.append(word)
    return kept


def peek(words: Sequence[str], option: str) -> str | None:
    """The value of an option that must be known before the others are read.

    Returns:
        The last value given; None where the option is missing or has no value.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument(option, nargs="?", dest="value")
    value: str | None = parser.parse_known_args(list(words))[0].value
    return value


def nearest(word: str, known: Sequence[str]) -> str:
    """A suggestion to begin a remedy with: the known word most like this one, or an empty text."""
    found = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"the nearest is {found[0]}; " if found else ""


def _names(value: Any) -> Iterator[str]:
    """Every option of a dataclass and of the dataclasses in it, as written on the command line."""
    return (name for name, _ in _values(value))


def _values(value: Any, prefix: str = "--") -> Iterator[tuple[str, Any]]:
    """Every option, and its value."""
    hints = get_type_hints(type(value), include_extras=True)
    for field in fields(value):
        inner, marks = getattr(value, field.name), getattr(hints[field.name], "__metadata__", ())
        if tyro.conf.Suppress in marks:
            continue
        named = [mark.name for mark in marks if getattr(mark, "name", None) is not None]
        name = named[0] if named else field.name.replace("_", "-")
        if is_dataclass(inner) and not isinstance(inner, type):
            yield from _values(inner, f"{prefix}{name}." if name else prefix)
        else:
            yield (f"{prefix}no-{name}" if inner is True else f"{prefix}{name}"), inner


@dataclass(frozen=True, kw_only=True)
class _Messages:
    """Turns tyro's parse failures into messages."""

    words: list[str]
    names: list[str]
    prog: str

    def of(self, event: tyro_errors.ParseErrorEvent) -> str | None:
        """The message; None for a failure that tyro shall report itself."""
        rules: dict[type[tyro_errors.ParseErrorEvent], Callable[[Any], str | None]] = {
            tyro_errors.UnrecognizedArgs: self._unknown,
            tyro_errors.InstantiationFailure: self._malformed,
            tyro_errors.InvalidChoice: self._no_choice,
            tyro_errors.BadValue: self._no_value,
            tyro_errors.MissingArgs: self._not_given,
        }
        rule = rules.get(type(event))
        return None if rule is None else rule(event)

    def _unknown(self, event: tyro_errors.UnrecognizedArgs) -> str:
        options = [word.partition("=")[0] for word in event.tokens if word.startswith("-")]
        if not options:
            return (
                f"{event.tokens[0]!r} stands alone, allowed: --options and their values, after the "
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

    def _malformed(self, event: tyro_errors.InstantiationFailure) -> str:
        if event.argument is None:
            return self._refused_field(event.message)
        lowered, option = event.argument.lowered, event.argument.display_name()
        remedy = f"see {self.prog} --help"
        if lowered.str_from_instance is not None and not lowered.required:
            default = lowered.str_from_instance(event.argument.field.default)
            remedy = f"its default here is {shlex.join(default)}"
        metavar = str(lowered.metavar).removeprefix(_OR_NONE)
        allowed = _METAVARS.get(metavar, metavar)
        return f"{option} is {self._given(option)!r}, allowed: {allowed}; {remedy}"

    def _refused_field(self, reason: str) -> str:
        """The message for a ValueError of a dataclass, which begins with the field's name.

        tyro doesn't say which of the nested dataclasses raised it. Ours raise ConfigError, which
        passes through tyro, so that this is about a network family.
        """
        field = reason.split()[0].replace("_", "-")
        options = [name for name in self.names if name.rpartition(".")[2] == field]
        if len(options) != 1:
            return reason
        group = options[0].removeprefix("--").rpartition(".")[0]
        return f"{group}.{reason}" + ("" if ";" in reason else f"; set {options[0]}")

    def _no_choice(self, event: tyro_errors.InvalidChoice) -> str:
        option = event.argument.display_name()
        choices = ", ".join(event.choices)
        return f"{option} is {event.value!r}, allowed: {choices}; set {option} to one"

    def _no_value(self, event: tyro_errors.BadValue) -> str | None:
        option, count = event.argument.display_name(), event.argument.lowered.nargs
        if event.reason != "too_few_values" or not isinstance(count, int):
            return None
        value = " ".join(["VALUE"] * count)
        few = "no value" if count == 1 else "too few values"
        return f"{option} has {few}, allowed: {count}; write {option} {value}"

    def _not_given(self, event: tyro_errors.MissingArgs) -> str:
        argument = event.missing_arguments[0].arg
        option = argument.display_name()
        metavar = str(argument.lowered.metavar).removeprefix(_OR_NONE)
        about = argument.field.helptext
        text = (about() if callable(about) else about) or ""
        return f"{option} is not given, allowed: {metavar}: {text} Add {option} {metavar}"

    def _given(self, option: str) -> str:
        """The words after an option, up to the next option."""
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
