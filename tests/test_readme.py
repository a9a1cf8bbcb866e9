"""README and docs say what is so: their tree is the tree, their commands run."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from models.bundle import Bundle
from models.repository import Repository
from training.command import parse

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def tree_paths() -> set[str]:
    """Files that README's tree names."""
    (tree,) = re.findall(
        r"^## The tree\n+```\n(.*?)```", (ROOT / "README.md").read_text(), re.M | re.S
    )
    parents: list[str] = []
    found = set()
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        del parents[depth:]
        if name.endswith("/"):
            parents.append(name)
        else:
            found.add("".join(parents) + name)
    return found


def commands() -> Iterator[str]:
    """Lines of shell blocks, comments off; tests/web runs those of docs/api.md."""
    for page in PAGES:
        if page.name == "api.md":
            continue
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.S):
            for line in block.splitlines():
                command = re.sub(r"\s+#.*", "", line).strip()
                if command and not command.startswith("#"):
                    yield command


def test_the_tree_names_every_source_file() -> None:
    sources = {
        str(path.relative_to(ROOT))
        for room in ("models", "training", "serving")
        for path in (ROOT / room).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert tree_paths() == sources


def test_every_link_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_training_command_is_one() -> None:
    found = [c for c in commands() if c.startswith(".venv/bin/python -m training.run")]
    assert found
    for command in found:
        arguments = shlex.split(command)[1:]
        if "--list" in arguments or "--resume" in arguments:
            continue  # nothing to resolve; a run that isn't there
        parse(arguments[2:])  # raises what the command would say


def test_every_evaluation_command_works(
    make_bundle: Callable[..., Bundle],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from training.errors import GateError
    from training.evaluate import main

    bundle = make_bundle(size=16, num_classes=10)
    labels = tuple(map(str, range(10)))  # the data's
    bundle = replace(bundle, manifest=structs.replace(bundle.manifest, labels=labels))
    Repository(tmp_path / "model-repository").publish("digits", bundle)
    monkeypatch.chdir(tmp_path)
    found = [c for c in commands() if c.startswith(".venv/bin/python -m training.evaluate")]
    assert found
    for command in found:
        words = [*shlex.split(command)[3:], "--data.dataset", "digits", "--features", "random"]
        assert main(words) in (0, GateError.exit_code), command


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M))
    for command in commands():
        if command.startswith("make "):
            assert command.split()[1] in targets, command


def test_every_curl_and_repository_command_works(
    make_bundle: Callable[..., Bundle], start_server: Callable[..., Any], tmp_path: Path
) -> None:
    repository = Repository(tmp_path / "model-repository")
    for weights_seed in (1, 2):
        bundle = make_bundle(size=16, num_classes=10, weights_seed=weights_seed)
        repository.publish("digits", bundle)
    server = start_server(repository.root)
    ran = 0
    for command in commands():
        command = command.replace(".venv/bin/python", sys.executable)
        if command.startswith("curl"):
            command = command.replace("http://127.0.0.1:8000", server.url) + " --fail"
        elif "-m models.repository" not in command:
            continue
        environ = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, capture_output=True, text=True, env=environ
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        ran += 1
    assert ran >= 8
    assert {path.name for path in tmp_path.glob("*.png")} >= {"seven.png", "grid.png"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_that_is_named_exists(page: Path) -> None:
    from dataclasses import fields

    from serving.settings import Settings, variable

    known = {variable(field.name) for field in fields(Settings)}
    assert set(re.findall(r"SADDLEPOINT_[A-Z_]+\b", page.read_text())) <= known
