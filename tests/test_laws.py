"""The laws of the architecture, kept by reading the imports, and by trying.

1. `models` imports neither `training` nor `serving`; they never import each other.
2. `serving` and what of `models` it needs never import torch: the serving image has none.
3. Nothing imports from `tests` or `benchmarks`.
4. There is no circle of modules, and between the folders of a room arrows run one way.
5. No folder holds more modules than a reader can take in.

An import counts wherever it stands: in a function, under TYPE_CHECKING, by import_module.
"""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("models", "training", "serving")
TORCHLESS = (
    *("animation", "bundle", "command_line", "decoding", "decoding.road", "errors", "grid"),
    *("image_files", "latents", "offline", "repository", "restoration", "seed_list", "stdout"),
)
# What only the extra `train` installs.
TRAIN_ONLY = ("torch", "torchvision", "onnx", "onnxscript", "sklearn", "tensorboard", "tyro")

MAX_MODULES = 16
"""In one folder: 14 is the aim, and a folder may grow a little before it is split."""

Graph = Mapping[str, set[str]]


def imports_of(source: str, module: str, *, is_package: bool) -> set[str]:
    """Every dotted name that a module's source imports, `from a import b` as a.b."""
    found: set[str] = set()
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = ".".join(parents[: len(parents) - node.level + 1]) if node.level else ""
            origin = ".".join(filter(None, (base, node.module)))
            found |= {f"{origin}.{alias.name}" for alias in node.names} | {origin}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("import_module", "__import__")
        ):
            found |= {
                argument.value
                for argument in node.args[:1]
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
            }
    return found


def modules(root: Path, rooms: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    for room in rooms:
        for path in sorted((root / room).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def read(root: Path, rooms: tuple[str, ...] = ROOMS) -> Graph:
    """Each module of the rooms with what it imports."""
    return {
        module: imports_of(path.read_text(), module, is_package=path.name == "__init__.py")
        for module, path in modules(root, rooms)
    }


def reached(graph: Graph, start: str) -> dict[str, str]:
    """Every name that importing `start` leads to, with the chain that leads there."""
    chains = {start: start}
    waiting = [start]
    while waiting:
        module = waiting.pop()
        imported = set(graph.get(module, ()))
        for name in [module, *imported]:  # importing a.b.c runs a and a.b first
            parts = name.split(".")
            imported |= {".".join(parts[:i]) for i in range(1, len(parts))}
        for name in sorted(imported - chains.keys()):
            chains[name] = f"{chains[module]} -> {name}"
            waiting.append(name)
    return chains


def violations(graph: Graph, start: str, forbidden: tuple[str, ...]) -> list[str]:
    """Chains from a module to any of the forbidden packages."""
    return [
        chain for name, chain in reached(graph, start).items() if name.split(".")[0] in forbidden
    ]


def between_modules(graph: Graph) -> dict[str, set[str]]:
    """What each module imports of the graph's own modules.

    A module's own packages don't count: importing a.b.c always runs a and a.b first.
    """
    arrows: dict[str, set[str]] = {}
    for module, names in graph.items():
        known = {_module_of(name, graph) for name in names} - {"", module}
        arrows[module] = {name for name in known if not module.startswith(name + ".")}
    return arrows


def _module_of(name: str, graph: Graph) -> str:
    """The module that a dotted name is of, or lies in; "" where it isn't ours."""
    while name and name not in graph:
        name = name.rpartition(".")[0]
    return name


def between_folders(arrows: Graph, folder: str) -> dict[str, set[str]]:
    """Arrows between what lies directly in a folder: its modules, and its folders as one each."""
    depth = folder.count(".") + 2
    inside: dict[str, set[str]] = {}
    for module, names in arrows.items():
        if module.startswith(folder + "."):
            start = ".".join(module.split(".")[:depth])
            ends = {".".join(n.split(".")[:depth]) for n in names if n.startswith(folder + ".")}
            inside.setdefault(start, set()).update(ends - {start})
    return inside


def circle(arrows: Graph) -> list[str]:
    """One circle, its first element again at its end; empty where arrows run one way."""
    try:
        graphlib.TopologicalSorter(arrows).prepare()
    except graphlib.CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


GRAPH = read(ROOT)
ARROWS = between_modules(GRAPH)
FOLDERS = sorted({module.rpartition(".")[0] for module in GRAPH if "." in module})


@pytest.mark.parametrize("module", [module for module in GRAPH if module.startswith("models")])
def test_models_knows_neither_training_nor_serving(module):
    assert not violations(GRAPH, module, ("training", "serving"))


@pytest.mark.parametrize(("room", "other"), [("training", "serving"), ("serving", "training")])
def test_training_and_serving_never_meet(room, other):
    members = [module for module in GRAPH if module.split(".")[0] == room]
    assert len(members) > 3
    assert not [chain for member in members for chain in violations(GRAPH, member, (other,))]


@pytest.mark.parametrize(
    "module",
    [
        *(module for module in GRAPH if module.split(".")[0] == "serving"),
        *(f"models.{name}" for name in TORCHLESS),
    ],
)
def test_serving_reaches_no_torch(module):
    assert module in GRAPH
    assert not violations(GRAPH, module, TRAIN_ONLY)


def test_nothing_imports_tests_or_benchmarks():
    for module in GRAPH:
        assert not violations(GRAPH, module, ("tests", "benchmarks")), module


def test_no_modules_import_each_other_in_a_circle():
    assert circle(ARROWS) == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_arrows_between_folders_run_one_way(folder):
    assert circle(between_folders(ARROWS, folder)) == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_can_be_taken_in(folder):
    inside = sorted((ROOT / folder.replace(".", "/")).glob("*.py"))
    assert len([path for path in inside if path.name != "__init__.py"]) <= MAX_MODULES


def test_every_package_says_what_it_is_for():
    for folder in FOLDERS:
        assert ast.get_docstring(
            ast.parse((ROOT / folder.replace(".", "/") / "__init__.py").read_text())
        )


IMPORT_ALL = """
import importlib, pkgutil, sys

BLOCKED = set(sys.argv[1].split(","))

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r} (blocked)", name=name)

sys.meta_path.insert(0, Refuse())
import serving
names = [m.name for m in pkgutil.walk_packages(serving.__path__, "serving.")]
for name in [*names, *sys.argv[2].split(",")]:
    if not name.endswith("__main__"):
        importlib.import_module(name)
loaded = {name.split(".")[0] for name in sys.modules}
assert not loaded & BLOCKED, loaded & BLOCKED
print(len(names))
"""


def test_serving_starts_where_torch_is_not_installed():
    blocked = ",".join((*TRAIN_ONLY, "training"))
    torchless = ",".join(f"models.{name}" for name in TORCHLESS)
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, blocked, torchless],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout.splitlines()[-1]) > 3


@pytest.fixture
def sources(tmp_path):
    """A project that keeps the laws, to break them in."""
    files = {
        "models/__init__.py": "",
        "models/bundle.py": "import numpy\n",
        "models/networks/__init__.py": "import torch\n",
        "models/networks/mlp.py": "",
        "training/__init__.py": "",
        "training/loop.py": "from models.networks import mlp\n",
        "serving/__init__.py": "",
        "serving/engine.py": "from models import bundle\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_lawful_project_has_no_violation(sources):
    graph = read(sources)
    assert not violations(graph, "serving.engine", ("torch", "training"))
    assert violations(graph, "training.loop", ("torch",)) == [
        "training.loop -> models.networks -> torch"
    ]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("serving/engine.py", "import torch"),
        ("serving/engine.py", "import torch.nn.functional as F"),
        ("serving/engine.py", "from torch import nn"),
        ("serving/engine.py", "def f():\n    import torch"),
        (
            "serving/engine.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch",
        ),
        ("serving/engine.py", "import importlib\nimportlib.import_module('torch')"),
        ("serving/engine.py", "__import__('torch')"),
        ("serving/engine.py", "from models.networks import mlp"),
        ("serving/engine.py", "import models.networks.mlp"),
        ("serving/__init__.py", "import torch"),
        ("models/__init__.py", "import torch"),
        ("models/bundle.py", "from .networks import mlp"),
        ("models/bundle.py", "from . import networks"),
        ("models/bundle.py", "from training import loop"),
    ],
)
def test_every_way_to_torch_is_found(sources, file, text):
    (sources / file).write_text(f"from models import bundle\n{text}\n")
    assert violations(read(sources), "serving.engine", ("torch",))


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("models/networks/mlp.py", "from training import loop"),
        ("models/networks/mlp.py", "def f():\n    from training.loop import fit"),
        (
            "models/networks/mlp.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import training.loop",
        ),
    ],
)
def test_every_circle_is_found(sources, file, text):
    arrows = between_modules(read(sources))
    assert circle(arrows) == []
    (sources / file).write_text(text)
    found = circle(between_modules(read(sources)))
    assert {"models.networks.mlp", "training.loop"} == set(found)


def test_arrows_that_run_both_ways_between_folders_are_found(sources):
    for file, text in {
        "serving/http/__init__.py": "",
        "serving/http/messages.py": "from serving.api import names",
        "serving/http/heads.py": "",
        "serving/api/__init__.py": "",
        "serving/api/names.py": "",
        "serving/api/routes.py": "from serving.http import heads",
    }.items():
        (sources / file).parent.mkdir(exist_ok=True)
        (sources / file).write_text(text)
    arrows = between_modules(read(sources))
    assert circle(arrows) == []
    assert set(circle(between_folders(arrows, "serving"))) == {"serving.api", "serving.http"}
