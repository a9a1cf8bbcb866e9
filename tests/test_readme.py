"""README and docs say what is so: the tree that they show is the tree, their commands run."""

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

import saddlepoint
from models.bundle import Bundle
from models.repository import Repository
from training.cli.command import parse

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def tree_paths() -> set[str]:
    """Folders and files that README's tree names."""
    (tree,) = re.findall(
        r"^## The tree\n+```\n(.*?)```", (ROOT / "README.md").read_text(), re.M | re.S
    )
    parents: list[str] = []
    found = set()
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name, *sentence = line.split()
        assert sentence, f"{name} has no sentence"
        del parents[depth:]
        parents.append(name)
        found.add("".join(parents))
    return found


def commands() -> Iterator[str]:
    """Lines of shell blocks, comments off; tests/web runs those of docs/api.md.

    `saddlepoint NAME` is given as the `python -m MODULE` that it stands for.
    """
    for page in PAGES:
        if page.name == "api.md":
            continue
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.S):
            for line in block.replace("\\\n", "").splitlines():
                command = re.sub(r"\s+#.*", "", line).strip()
                if command and not command.startswith("#"):
                    yield re.sub(r"^\.venv/bin/saddlepoint (\w+)", as_module, command)


def as_module(command: re.Match[str]) -> str:
    module = saddlepoint.COMMANDS[command[1]].module.removesuffix(".__main__")
    return f".venv/bin/python -m {module}"


def programs(module: str) -> Iterator[list[str]]:
    """The arguments of each command that runs a module."""
    start = f".venv/bin/python -m {module} "
    for command in commands():
        if command.startswith(start):
            yield shlex.split(command.removeprefix(start))


def test_the_tree_names_every_folder() -> None:
    packages = ("models", "training", "serving")
    # Of files, since a folder that another branch has moved away may be left with its bytecode.
    folders = {
        f"{path.parent.relative_to(ROOT)}/"
        for name in packages
        for path in (ROOT / name).rglob("*.*")
        if path.is_file() and path.suffix != ".pyc"
    }
    found = tree_paths()
    assert {path for path in found if path.startswith(packages)} == folders
    assert all((ROOT / path).exists() for path in found)


def test_the_front_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 170


def test_every_link_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages <= set(re.findall(r"\]\(([^)#]+)", index))


def test_every_training_command_is_one() -> None:
    found = list(programs("training.run"))
    assert len(found) > 10
    for words in found:
        if "--list" in words or "--resume" in words:
            continue  # nothing to resolve; a run that isn't there
        parse(words)  # raises what the command would say


def test_every_evaluation_command_works(
    make_bundle: Callable[..., Bundle],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from training.anomaly.command import AnomalyCommand, is_asked
    from training.cli.arguments import read
    from training.data import DataConfig
    from training.errors import GateError
    from training.evaluate import main

    bundle = make_bundle(size=16, num_classes=10)
    labels = tuple(map(str, range(10)))  # the data's
    bundle = replace(bundle, manifest=structs.replace(bundle.manifest, labels=labels))
    for name in ("digits", "photos"):
        Repository(tmp_path / "model-repository").publish(name, bundle)
    monkeypatch.chdir(tmp_path)
    found = list(programs("training.evaluate"))
    assert found
    for words in found:
        if is_asked(words):  # it needs data that isn't here: tests/training/anomaly runs it
            of_the_model = AnomalyCommand(data=DataConfig(dataset="mnist"))
            read(AnomalyCommand, words[2:], of_the_model, prog="", description="")
            continue
        if "--data.path" in words:  # what stands in for it has none
            place = words.index("--data.path")
            del words[place : place + 2]
        words += ["--data.dataset", "digits", "--features", "random", "--num-images", "100"]
        assert main(words) in (0, GateError.exit_code), words


def test_every_command_on_data_is_one() -> None:
    from training.data.__main__ import parse as parse_data

    found = list(programs("training.data"))
    assert len(found) >= 3
    for words in found:
        parse_data(words)


def test_every_bulk_command_is_one() -> None:
    from serving.bulk.arguments import parser

    found = list(programs("serving.bulk"))
    assert len(found) >= 4
    for words in found:
        parser("").parse_args(words)


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M))
    for command in commands():
        if command.startswith("make "):
            assert command.split()[1] in targets, command


def test_every_curl_client_and_repository_command_works(
    make_bundle: Callable[..., Bundle],
    start_server: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from models.repository.__main__ import main as repository_command
    from serving.client.__main__ import main as client_command

    monkeypatch.chdir(tmp_path)
    repository = Repository(tmp_path / "model-repository")
    for weights_seed in (1, 2):
        bundle = make_bundle(size=16, num_classes=10, weights_seed=weights_seed, directions=True)
        repository.publish("digits", bundle)
        repository.publish("photos", bundle)
    (tmp_path / "alice.key").write_text("unused\n")  # this server asks for no key
    server = start_server(repository.root)
    curls = [command for command in commands() if command.startswith("curl")]
    assert len(curls) >= 5
    for command in curls:
        command = command.replace("http://127.0.0.1:8000", server.url) + " --fail"
        done = subprocess.run(command, shell=True, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    asked = list(programs("serving.client"))
    assert {words[0] for words in asked} >= {"generate", "interpolate", "models", "load"}
    for words in asked:
        force = ["--force"] if words[0] in ("generate", "interpolate") else []
        assert client_command(["--url", server.url, *words, *force]) == 0, words
    chosen = list(programs("models.repository"))
    assert len(chosen) >= 8
    for words in chosen:
        assert repository_command(words) == 0, words
    written = {path.name for path in tmp_path.iterdir()}
    assert written >= {"seven.png", "grid.png", "sevens.png", "walk.webp"}


def test_every_command_that_explains_itself_does() -> None:
    helped = [c for c in (ROOT / "README.md").read_text().splitlines() if " --help" in c]
    found = [match for line in helped if (match := re.search(r"bin/saddlepoint (\w+) -", line))]
    assert found
    for match in found:
        # A process of its own: a server takes over signals and streams before all else.
        command = [sys.executable, "-m", "saddlepoint", match[1], "--help"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0
        assert done.stdout.startswith(f"usage: saddlepoint {match[1]} ")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_that_is_named_exists(page: Path) -> None:
    from dataclasses import fields

    from serving.settings import Settings, variable

    known = {variable(field.name) for field in fields(Settings)}
    assert set(re.findall(r"SADDLEPOINT_[A-Z_]+\b", page.read_text())) <= known
