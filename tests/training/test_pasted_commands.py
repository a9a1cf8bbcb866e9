"""Commands that training prints can be pasted: folders in them are quoted for the shell."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from training.errors import CheckpointError
from training.interpretation.published import open_model

TRAINING = Path(__file__).parents[2] / "training"
_BEFORE = re.compile(r"(--(resume|out|folder|runs|data\.path)|training\.\w+ [a-z]+) $")
_SAFE = {"name", "manifest.name"}  # of a model: letters, digits, dots and dashes


def unquoted(source: str) -> Iterator[int]:
    """Yields the lines of f-strings that put something bare where a command takes a folder."""
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        nodes = list(ast.walk(function))
        quoted = {
            name.id
            for node in nodes
            if isinstance(node, ast.Assign) and "shlex." in ast.unparse(node.value)
            for target in node.targets
            for name in ast.walk(target)
            if isinstance(name, ast.Name)
        }
        for text in (node for node in nodes if isinstance(node, ast.JoinedStr)):
            for before, value in zip(text.values, text.values[1:], strict=False):
                if not isinstance(before, ast.Constant) or not isinstance(
                    value, ast.FormattedValue
                ):
                    continue
                expression = ast.unparse(value.value)
                is_quoted = expression.startswith("shlex.") or expression in quoted | _SAFE
                if _BEFORE.search(str(before.value)) and not is_quoted:
                    yield value.lineno


def test_no_command_has_a_bare_folder() -> None:
    found = [
        f"{path.relative_to(TRAINING)}:{line}"
        for path in sorted(TRAINING.rglob("*.py"))
        for line in unquoted(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_a_bare_folder_is_found() -> None:
    bare = 'def f(run):\n    return f"go on with --resume {run.folder}"'
    assert list(unquoted(bare)) == [2]
    named = 'def f(run):\n    folder, n = shlex.quote(run), 1\n    return f"--resume {folder}"'
    assert list(unquoted(named)) == []


def test_a_run_without_a_model_is_told_how_to_export_it(tmp_path: Path) -> None:
    run = tmp_path / "my runs; $HOME" / "00000-digits"
    run.mkdir(parents=True)
    (run / "config.json").write_text("{}")
    with pytest.raises(CheckpointError) as caught:
        open_model(str(run), tmp_path)
    command = str(caught.value).rpartition("export it: ")[2]
    assert shlex.split(command)[-3:] == [str(run), "--out", str(run / "bundle")]
